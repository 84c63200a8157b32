"""The scripts end to end, in this process and as commands: their output, files and results."""

import json
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace

import clips
import cv2
import numpy as np
import pytest
from conftest import DETECT

from syncnet.media import conversions
from syncnet.media.containers import probe
from syncnet.models.weights import ROOT
from syncnet.results.layout import Layout
from syncnet.results.step_files import load_pickle, save_pickle
from syncnet.sync.framewise import frame_confidence
from SyncNetInstance import SyncNetInstance

pytestmark = pytest.mark.usefixtures("nothing_left_running")

FILES = {
    "pyavi": {"video.avi", "audio.wav", "video_only.avi", "video_out.avi"},
    "pywork": {
        "faces.pckl",
        "scene.pckl",
        "tracks.pckl",
        "pipeline.json",
        "activesd.pckl",
        "offsets.txt",
        "scores.json",
    },
    "pycrop": {"00000.avi"},
}
CONFIDENCES = re.compile(r"Framewise conf: \n\[([-0-9. \n]+)\]")


def test_published_lines_and_files(pipeline, run, face_clip, tmp_path):
    """Stdout has only the lines of the published suite, and all files that other programs read exist."""
    ran, layout = pipeline(face_clip)
    crop = layout.crops / "00000"
    assert ran.out == [f"{layout.video} - scenes detected 1", f"Written {crop}", "Mean pos: x 144.00 y 80.00 s 64.00"]
    [summary] = ran.err
    assert summary == (
        "faces in 36 of 36 frames, at most 1 in one, sizes 128 / 128 / 128 pixels (smallest, median, largest); 1 tracks"
    )

    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    out = "\n".join(ran.out)
    assert re.fullmatch(r"Compute time \d+\.\d{3} sec\.", ran.out[0])
    values = [float(value) for value in CONFIDENCES.search(out)[1].split()]
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert len(values) == track["windows"] == 31
    assert ran.out[-3] == f"AV offset: \t{track['offset']} "
    assert ran.out[-2] == f"Min dist: \t{track['min_dist']:.3f}"
    assert ran.out[-1] == f"Confidence: \t{track['confidence']:.3f}"
    assert layout.offsets.read_text() == f"TRACK 0: OFFSET {track['offset']}, CONF {track['confidence']:.3f}\n"

    ran = run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me")
    assert (ran.code, ran.out, ran.err) == (0, [], [str(layout.video_out)])
    for step, names in FILES.items():
        assert {path.name for path in layout.folder(step).iterdir()} == names
    assert sorted(path.name for path in layout.frames.iterdir()) == [f"{i:06d}.jpg" for i in range(1, 37)]
    assert not layout.tmp.exists()


def test_pickles_have_the_published_form(finished):
    layout = Layout(finished, "me")
    faces = load_pickle(layout.faces, made_by="")
    assert [face["frame"] for [face] in faces] == list(range(36))
    assert all(set(face) == {"frame", "bbox", "conf"} and len(face["bbox"]) == 4 for [face] in faces)
    [track] = load_pickle(layout.tracks, made_by="")
    assert set(track) == {"track", "proc_track"}
    assert track["track"]["frame"].shape == (36,)
    assert track["track"]["bbox"].shape == (36, 4)
    assert all(len(track["proc_track"][key]) == 36 for key in "sxy")
    [(start, end)] = load_pickle(layout.scenes, made_by="")
    assert start.frame_num == 0
    assert end.frame_num in (35, 36)
    [dists] = load_pickle(layout.distances, made_by="")
    assert dists.shape == (31, 31)


def test_quiet(pipeline, run, face_clip):
    ran, layout = pipeline(face_clip, "--quiet")
    assert (ran.code, ran.err) == (0, [])
    assert len(ran.out) == 3
    flags = ("--data_dir", layout.data_dir, "--reference", "me", "--quiet")
    [line] = run("run_syncnet", *flags).err  # the tone matches no lips
    assert "confidence" in line
    assert run("run_visualise", *flags).err == []


def test_quiet_still_warns(pipeline, face_clip):
    ran, _ = pipeline(face_clip, "--quiet", "--min_face_size", "500")
    assert len(ran.err) == 1
    assert "--min_face_size 500" in ran.err[0]


def test_verbose(pipeline, run, face_clip):
    ran, layout = pipeline(face_clip, "--verbose")
    lines = [line for line in ran.out if "dets" in line]
    assert len(lines) == 36
    assert re.fullmatch(re.escape(f"{layout.video}-00012; 1 dets; ") + r"\d+\.\d\d Hz", lines[12])
    run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    ran = run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me", "--verbose")
    assert ran.out == [f"Frame {index}" for index in range(36)]


def test_quiet_and_verbose_exclude_each_other(run):
    ran = run("run_syncnet", "--quiet", "--verbose")
    assert ran.code == 2
    assert "not allowed with" in ran.err[-1]


@pytest.mark.parametrize(
    "argv",
    [
        ("--facedet_scale", "0"),
        ("--facedet_scale", "nan"),
        ("--crop_scale", "-1"),
        ("--min_track", "-1"),
        ("--min_track", "many"),
        ("--frame_rate", "0"),
        ("--num_failed_det", "-2"),
        ("--scene_threshold", "inf"),
        ("--min_face_size", "9" * 400),
        ("--frame_rate", "100000"),
        ("--unknown", "1"),
    ],
)
def test_flags_that_cannot_work(pipeline, face_clip, argv):
    ran, layout = pipeline(face_clip, *argv)
    assert ran.code == 2
    assert argv[0] in ran.err[-1]
    assert "_int" not in ran.err[-1]  # the name of the parsing function means nothing to a user
    assert not layout.data_dir.exists()


def test_vshift_that_no_video_is_as_long_as(run, tmp_path):
    ran = run("run_syncnet", "--data_dir", tmp_path, "--reference", "me", "--vshift", "9" * 20)
    assert ran.code == 2 and "--vshift" in ran.err[-1]


def test_stderr_that_is_closed(weights, face_clip, tmp_path):
    """The scripts succeed, and their messages are not written into files that are opened later."""
    names = ("--data_dir", tmp_path, "--reference", "me")
    detector, model = (("--device", "cpu", flag, path) for flag, path in weights.items())
    steps = (
        ("run_pipeline.py", *names, *detector, "--videofile", face_clip, "--min_track", "10", "--facedet_scale", "0.5"),
        ("run_syncnet.py", *names, *model),
        ("run_visualise.py", *names),
    )
    for script, *argv in steps:
        done = subprocess.run(
            [sys.executable, ROOT / script, *map(str, argv)],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.close(2),
            timeout=300,
        )
        assert done.returncode == 0, script
        assert b"starter" not in done.stdout
    assert conversions.frame_count(Layout(tmp_path, "me").video_out) == 36


def test_commands(weights, face_clip, tmp_path):
    """Each script runs as a command from a folder other than the suite's."""
    names = ("--data_dir", "out put", "--reference", "me")
    clip = ("--videofile", face_clip)
    detector, model = (("--device", "cpu", flag, path) for flag, path in weights.items())

    def command(script, *argv):
        done = subprocess.run(
            [sys.executable, ROOT / script, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout.splitlines()

    layout = Layout(tmp_path / "out put", "me")
    assert command("run_pipeline.py", *clip, *names, *DETECT, *detector)[1] == "Written out put/pycrop/me/00000"
    assert command("run_syncnet.py", *clip, *names, *model)[-1].startswith("Confidence: \t")
    assert command("run_visualise.py", *clip, *names) == []
    assert len(clips.decode(layout.video_out)) == 36
    scored = ("--videofile", layout.crop_files()[0], "--tmp_dir", "tmp", "--json", "demo.json")
    assert command("demo_syncnet.py", *scored, *model)[-1].startswith("Confidence: \t")
    [ours] = json.loads((tmp_path / "demo.json").read_text())["tracks"]
    [theirs] = json.loads(layout.scores.read_text())["tracks"]
    assert ours["confidence"] == theirs["confidence"]
    assert ours["min_dist"] == theirs["min_dist"]
    for script in ("run_pipeline.py", "run_syncnet.py", "run_visualise.py", "demo_syncnet.py"):
        assert command(script, "--help")[0].startswith(f"usage: {script}")


def test_recipe_names_the_weights_even_if_they_were_not_used(pipeline, weights, tmp_path):
    mute = clips.make(tmp_path / "mute.mp4", "testsrc2=s=64x64:r=25:d=1")
    ran, layout = pipeline(mute)
    assert ran.code == 0
    recipe = json.loads(layout.scores.read_text())["recipe"]["pipeline"]
    assert recipe["s3fd_weights"]["name"] == weights["--s3fd_weights"].name


def test_recipe_lists_what_scores_depend_on(finished, weights):
    recipe = json.loads(Layout(finished, "me").scores.read_text())["recipe"]
    assert recipe["pipeline"]["min_track"] == 10
    assert recipe["pipeline"]["facedet_scale"] == 0.5
    assert recipe["syncnet"]["vshift"] == 15
    makers = {"syncnet", "ffmpeg", "torch", "opencv", "scenedetect", "python_speech_features"}
    assert makers <= set(recipe["syncnet"]["versions"])
    assert recipe["pipeline"]["device"] == recipe["syncnet"]["device"] == "cpu"
    assert recipe["syncnet"]["initial_model"]["name"] == weights["--initial_model"].name
    assert len(recipe["pipeline"]["s3fd_weights"]["sha256"]) == 64


FRAMES = 110


def flashing_clip(folder, shift, *, others=()):
    """A face that flashes with the audio, which is ``shift`` frames early; other faces flash independently."""
    light = clips.flashes(FRAMES)
    rows = [light, *others]
    corners = [(20 + 160 * index, 60) for index in range(len(rows))]
    images = clips.flashing_face(rows, corners=corners, size=(160 * len(rows), 240))
    clips.write_frames(folder / "frames", images)
    clips.write_audio(folder / "audio.wav", np.roll(light, -shift))
    return clips.encode(folder / "clip.avi", folder / "frames", folder / "audio.wav")


@pytest.mark.parametrize("shift", [0, 4, -5])
def test_offset_of_a_known_shift(pipeline, run, tmp_path, shift):
    """Audio that is ahead of the video has a positive offset in the results of all scripts."""
    ran, layout = pipeline(flashing_clip(tmp_path, shift))
    assert ran.code == 0, ran
    run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert shift <= track["offset"] <= shift + 1  # the conversion to MP3 alone costs a third of a frame
    assert track["offset_ms"] == 40 * track["offset"]
    assert track["confidence"] > 0.2
    assert [reason["code"] for reason in track["reasons"]] == ["low_confidence"]


def test_offset_at_the_edge_is_not_trusted(pipeline, run, tmp_path):
    _, layout = pipeline(flashing_clip(tmp_path, 9))
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me", "--vshift", "4")
    assert ran.code == 0
    assert "--vshift above 4" in ran.err[-1]
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert track["offset"] == 4
    assert [reason["code"] for reason in track["reasons"]] == ["low_confidence", "edge_offset"]


def test_the_face_that_matches_the_audio_is_tagged(pipeline, run, tmp_path):
    """Of two faces the one that flashes with the audio is the more confident one, and is tagged in the drawn video."""
    clip = flashing_clip(tmp_path, 0, others=[clips.flashes(FRAMES, seed=5)])
    ran, layout = pipeline(clip)
    assert len(layout.crop_files()) == 2, ran
    flags = ("--data_dir", layout.data_dir, "--reference", "me", "--speaker_threshold", "0.1")
    assert run("run_syncnet", *flags).code == 0
    report = json.loads(layout.scores.read_text())
    tracks = load_pickle(layout.tracks, made_by="")
    left = min(range(2), key=lambda index: tracks[index]["proc_track"]["x"].mean())
    assert report["tracks"][left]["confidence"] > report["tracks"][1 - left]["confidence"]
    run("run_visualise", *flags)
    drawn = clips.decode(layout.video_out)
    green = (drawn[..., 1] > 90) & (drawn[..., 0] < 70) & (drawn[..., 2] < 70)
    assert green[..., :160].sum() > 1.5 * green[..., 160:].sum() + 1000


def test_square_colour_follows_confidence(results, run):
    """The square is red at confidence 0 and green from 10.2 on; every frame has its own value."""
    dists = np.full((31, 31), 12.0, np.float32)
    dists[:15, 10], dists[15:, 10] = 12.0, 0.0
    save_pickle([dists], results.distances)
    confidence = frame_confidence(dists)
    assert run("run_visualise", "--data_dir", results.data_dir, "--reference", "me").code == 0
    drawn = clips.decode(results.video_out)
    assert len(drawn) == 36
    [track] = load_pickle(results.tracks, made_by="")
    path = track["proc_track"]
    x, bottom = int(path["x"][0]), int(path["y"][0] + path["s"][0])
    for index in (5, 30):
        edge = drawn[index][bottom - 1 : bottom + 2, x - 5 : x + 5].reshape(-1, 3).mean(axis=0)
        green = min(max(25 * confidence[index], 0), 255)
        np.testing.assert_allclose(edge, (0, green, 255 - green), atol=80)
    assert confidence[5] == 0
    assert confidence[30] == 12


def test_drawn_video_has_the_audio_of_the_video(results, run):
    run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    capture = cv2.VideoCapture(str(results.video_out), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == 25
    assert probe(results.video_out).video and probe(results.video_out).audio
    wav = results.data_dir / "out.wav"
    conversions.start_audio(results.video_out, wav).finish()
    np.testing.assert_array_equal(conversions.read_wav(wav), conversions.read_wav(results.audio))


def test_published_interface(results, weights, tmp_path, capsys):
    """What other people's scripts call."""
    net = SyncNetInstance(device="cpu")
    net.loadParameters(str(weights["--initial_model"]))
    opt = Namespace(tmp_dir=str(tmp_path / "tmp"), reference="me", batch_size=20, vshift=15)
    offset, confidence, dists = net.evaluate(opt, videofile=str(results.crop_files()[0]))
    [track] = json.loads(results.scores.read_text())["tracks"]
    assert (offset, confidence, dists.shape) == (track["offset"], track["confidence"], (31, 31))
    assert "AV offset: \t" in capsys.readouterr().out
    assert net.extract_feature(opt, str(results.crop_files()[0])).shape[0] == 32


def test_scores_without_run_pipelines_word(results, run):
    """Crops that another program made: times count from the clip's start."""
    shutil.rmtree(results.folder("pywork"))
    results.folder("pywork").mkdir()
    assert run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me").code == 0
    report = json.loads(results.scores.read_text())
    [track] = report["tracks"]
    assert (track["first_frame"], track["last_frame"], track["start"]) == (0, 35, 0)
    assert report["recipe"]["pipeline"] is None


def test_crops_of_other_programs(results, run, tmp_path):
    """All clips named 0*.avi are scored, as in the published suite, but not incomplete ones."""
    layout = Layout(tmp_path, "mine")
    layout.crops.mkdir(parents=True)
    for name in ("0_speaker.avi", "00000.avi", "0_other.part.avi", "speaker.avi"):
        shutil.copy(results.crop_files()[0], layout.crops / name)
    assert [path.name for path in layout.crop_files()] == ["00000.avi", "0_speaker.avi"]
    assert run("run_syncnet", "--data_dir", tmp_path, "--reference", "mine").code == 0
    report = json.loads(layout.scores.read_text())
    assert report["reference"] == "mine"
    one, two = report["tracks"]
    assert one["confidence"] == two["confidence"] is not None
