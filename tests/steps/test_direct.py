"""The direct pass: tracks and scores against published mode, and a stream of pictures that are not kept."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import clips
import numpy as np
import pytest
import torch

from syncnet import reasons
from syncnet.errors import MediaError, WeightsError
from syncnet.faces.detect import Detector
from syncnet.media import conversions
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.pictures import Pixels
from syncnet.media.sound import SoundInMemory
from syncnet.results.layout import Layout
from syncnet.steps import direct, direct_pass
from syncnet.steps.direct import DirectSettings

SAMPLE = Path(__file__).resolve().parents[2] / "data/sample.mp4"
SIZE = (320, 240)
SMALL = DirectSettings(facedet_scale=0.5, min_track=10, vshift=10)  # for clips of red squares


@pytest.fixture(scope="module")
def nets(weights):
    """Return the detector of red squares and the network that compares brightness with loudness."""
    return load(weights["--s3fd_weights"], weights["--initial_model"])


def load(detector, model):
    from detectors import S3FD
    from SyncNetInstance import SyncNetInstance

    net = SyncNetInstance("cpu")
    net.loadParameters(model)
    return {"detector": S3FD("cpu", weights=detector), "net": net}


def film(folder, light, *, shown=None, audio=None, suffix=".avi", **places):
    """Encode a clip of a square that flashes with the sound; it is there in the frames where ``shown`` is True."""
    images = clips.flashing_face([light], **places)
    if shown is not None:
        images[~shown] = 0
    clips.write_frames(folder / "frames", images)
    clips.write_audio(folder / "audio.wav", light if audio is None else audio)
    return clips.encode(folder / f"clip{suffix}", folder / "frames", folder / "audio.wav")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return film(tmp_path_factory.mktemp("film"), clips.flashes(90))


def ends(result):
    return [(track["first_frame"], track["last_frame"]) for track in result.report["tracks"]]


@pytest.mark.slow
def test_sample_as_in_published_mode(tmp_path):
    """Direct mode has the tracks and offsets that published mode has, and about its confidences."""
    import run_pipeline
    import run_syncnet

    names = ["--data_dir", str(tmp_path), "--reference", "me", "--device", "cpu", "--quiet"]
    flags = ["--min_track", "50", "--min_face_size", "50"]
    assert run_pipeline.main(["--videofile", str(SAMPLE), *names, *flags]) == 0
    assert run_syncnet.main(names) == 0
    expected = json.loads(Layout(tmp_path, "me").scores.read_text())["tracks"]
    loaded = load(None, None)
    for every in (1, 5):
        found = direct.run(SAMPLE, **loaded, settings=DirectSettings(detect_every=every))
        assert len(found.report["tracks"]) == len(expected)
        for ours, theirs in zip(found.report["tracks"], expected):
            for end in ("first_frame", "last_frame"):
                assert abs(ours[end] - theirs[end]) <= every, (every, end)
            if theirs["confidence"] >= reasons.SURE_CONFIDENCE:
                assert ours["offset"] == theirs["offset"]
            assert ours["confidence"] == pytest.approx(theirs["confidence"], rel=0.1, abs=0.3)
            assert np.abs(np.subtract(ours["box"], theirs["box"])).max() <= 3
            assert ours["lse_c"] is None
        assert abs(found.report["lag_ms"]) < 12
    assert [span["track"] for span in found.report["speakers"]]
    assert found.dists[0].shape[1] == 31


def test_report(clip, nets):
    found = direct.run(clip, **nets, settings=SMALL)
    report = found.report
    [track] = report["tracks"]
    assert (track["first_frame"], track["last_frame"]) == (0, 89)
    assert report["mode"] == "direct" and report["videofile"] == str(clip) and report["lag_zero"] == "unmeasured"
    assert report["recipe"]["pipeline"]["detect_every"] == 5
    assert track["windows"] == len(found.dists[0]) == 85
    x, y, width, height = track["box"]
    assert abs(x + width / 2 - 150) < 8 and abs(y + height / 2 - 110) < 32
    json.dumps(report)


@pytest.mark.parametrize("every", [1, 2, 5, 9])
def test_ends_of_tracks(every, nets, tmp_path):
    """Where a face comes and goes, every frame is looked at."""
    shown = np.zeros(130, bool)
    shown[13:77] = True
    path = film(tmp_path, clips.flashes(130), shown=shown)
    settings = replace(SMALL, detect_every=every, scene_threshold=255, min_face_size=20)
    found = direct.run(path, **nets, settings=settings)
    assert ends(found) == [(13, 76)]


@pytest.mark.parametrize(("gap", "tracks"), [(24, 1), (25, 1), (26, 2), (29, 2)])
def test_a_face_that_is_lost_and_found_again(gap, tracks, nets, tmp_path):
    shown = np.ones(120, bool)
    shown[39 : 38 + gap] = False
    path = film(tmp_path, clips.flashes(120), shown=shown)
    settings = replace(SMALL, scene_threshold=255, min_face_size=20)
    found = direct.run(path, **nets, settings=settings)
    expected = [(0, 119)] if tracks == 1 else [(0, 38), (38 + gap, 119)]
    assert ends(found) == expected
    every = direct.run(path, **nets, settings=replace(settings, detect_every=1))
    assert ends(every) == expected


@pytest.mark.parametrize("cut", [38, 40, 42])
def test_no_track_crosses_a_cut(cut, nets, tmp_path):
    """The face stays in its place, the scene around it changes."""
    light = clips.flashes(90)
    images = clips.flashing_face([light])
    around = images[cut:].max(axis=3) == 0
    images[cut:][around] = (200, 180, 40)
    clips.write_frames(tmp_path / "frames", images)
    path = clips.encode(tmp_path / "a.avi", tmp_path / "frames", clips.write_audio(tmp_path / "a.wav", light))
    found = direct.run(path, **nets, settings=SMALL)
    assert found.seen.cuts == [cut]
    assert ends(found) == [(0, cut - 1), (cut, 89)]
    assert {0, cut - 1, cut, 89} <= set(found.seen.faces)


@pytest.mark.parametrize("moved", [-4, 3])
def test_another_sound(moved, clip, nets, tmp_path):
    """The sound of a file that is early by some frames gives that offset, and its lag."""
    wav = clips.write_audio(tmp_path / "other.wav", np.roll(clips.flashes(90), -moved))
    own = direct.run(clip, **nets, settings=SMALL).report["tracks"][0]
    found = direct.run(clip, **nets, settings=SMALL, audio=wav).report
    assert found["tracks"][0]["offset"] - own["offset"] == moved
    assert found["tracks"][0]["lag_ms"] - own["lag_ms"] == pytest.approx(40 * moved, abs=6)
    assert found["recipe"]["syncnet"]["audio"] == str(wav)
    late = tmp_path / "late.mkv"
    Ffmpeg(["-itsoffset", "0.4", "-i", clip, "-c", "copy", late], source=clip).finish()
    assert direct.run(late, **nets, settings=SMALL, audio=wav).report["tracks"][0]["offset"] - own["offset"] == moved
    with pytest.raises(MediaError, match="--audio"):
        direct.run(clip, **nets, settings=SMALL, audio=tmp_path / "missing.wav")
    with pytest.raises(MediaError, match="--audio_stream 3"):
        direct.run(clip, **nets, settings=SMALL, audio_stream=3)


@pytest.mark.parametrize("size", [(112, 112), (256, 200), (101, 99)])
def test_face_crops_of_any_size(size, nets, tmp_path):
    import cv2

    light = clips.flashes(60)
    images = clips.flashing_face([light], corners=[(0, 0)], size=(clips.FACE, clips.FACE))
    clips.write_frames(tmp_path / "frames", [cv2.resize(image, size) for image in images])
    wav = clips.write_audio(tmp_path / "a.wav", np.roll(light, -2))
    path = clips.encode(tmp_path / "a.avi", tmp_path / "frames", wav)
    report = direct.run(path, detector=None, net=nets["net"], settings=replace(SMALL, face_crops=True)).report
    [track] = report["tracks"]
    assert (track["first_frame"], track["last_frame"], track["offset"]) == (0, 59, 2)
    assert report["faces"] is None


def codes(result):
    return [reason["code"] for reason in result.report["reasons"]]


def test_nothing_to_score(clip, nets, tmp_path, pipeline):
    """The reasons are those of published mode."""
    files = {
        "mute": ["-i", clip, "-an", "-c", "copy"],
        "short": ["-i", clip, "-t", "0.12", "-c:v", "mpeg4", "-q:v", "2", "-c:a", "pcm_s16le"],
    }
    for name, flags in files.items():
        Ffmpeg([*flags, tmp_path / f"{name}.avi"], source=clip).finish()
    clips.make(tmp_path / "empty.avi", clips.canvas(seconds=1.4), clips.tone(seconds=1.4))
    shutil.copy(clip, tmp_path / "small.avi")
    for name in [*files, "empty", "small"]:
        size = 500 if name == "small" else 50
        path = tmp_path / f"{name}.avi"
        found = direct.run(path, **nets, settings=replace(SMALL, min_face_size=size))
        _, layout = pipeline(path, "--min_face_size", size, reference=name)
        expected = json.loads(layout.scores.read_text())["reasons"]
        assert found.report["tracks"] == []
        assert codes(found) == [reason["code"] for reason in expected], name
        assert expected
    assert codes(direct.run(tmp_path / "mute.avi", **nets, settings=SMALL)) == [reasons.NO_AUDIO]


def test_sound_that_ends_early(clip, nets, tmp_path):
    Ffmpeg(["-i", clip, "-t", "2", "-vn", tmp_path / "a.wav"], source=clip).finish()
    found = direct.run(clip, **nets, settings=SMALL, audio=tmp_path / "a.wav")
    assert found.report["tracks"][0]["windows"] == 45
    assert reasons.AUDIO_SHORT in codes(found)


def test_weights_that_compute_nan(clip, nets, weights, tmp_path):
    state = torch.load(weights["--initial_model"])
    state["netfclip.3.bias"] = torch.full_like(state["netfclip.3.bias"], float("nan"))
    torch.save(state, tmp_path / "nan.pt")
    net = load(weights["--s3fd_weights"], tmp_path / "nan.pt")["net"]
    with pytest.raises(WeightsError, match=r"nan\.pt: produces NaN"):
        direct.run(clip, detector=nets["detector"], net=net, settings=SMALL)


@pytest.mark.usefixtures("nothing_left_running")
def test_saved_results_can_be_shown(clip, nets, run, tmp_path, monkeypatch):
    """Nothing is left behind without ``save``, and run_visualise works with what it leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    wav = clips.write_audio(clip.with_name("long.wav"), clips.flashes(100))
    found = direct.run(clip, **nets, settings=SMALL, audio=wav)
    assert list(tmp_path.iterdir()) == []
    layout = Layout(tmp_path / "data", "me")
    direct.save(found, layout)
    assert json.loads(layout.scores.read_text()) == {**found.report, "reference": "me"}
    ran = run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me")
    assert ran.code == 0, "\n".join(ran.err)
    assert len(clips.decode(layout.video_out)) == 90
    np.testing.assert_array_equal(conversions.read_wav(layout.audio), conversions.read_wav(wav))


class Whole(Detector):
    """Finds the same faces in every picture, and takes its time."""

    device, weights = torch.device("cpu"), None

    def __init__(self, boxes):
        self.rows = np.array([[*box, 1.0] for box in boxes], float)

    def detect_batch(self, images, conf_th, scales):
        return [self.rows * [0.5, 0.5, 0.5, 0.5, 1]] * len(images)


@pytest.mark.usefixtures("nothing_left_running")
def test_memory_is_bounded(nets):
    """However long the video, few pictures are held, and nothing of a face that has gone but its distances."""
    frames, held, most = 900, weakref.WeakSet(), 0
    scenes = [np.full((120, 160, 3), 250 * (index % 2), np.uint8) for index in range(frames // 60)]
    sound = SoundInMemory(np.zeros(frames * 640, np.int16))
    detector = Whole([(10, 10, 70, 70), (80, 20, 150, 90)])
    with direct.open_pass(sound, detector=detector, net=nets["net"], settings=SMALL) as stream:
        for index in range(frames):
            picture = Held(scenes[index // 60])
            held.add(picture)
            stream.add(direct_pass.prepare(picture, None))
            del picture
            most = max(most, len(held))
        tracks = stream.finish()
        assert len(tracks) == 2 * len(scenes)
        assert sum(len(windows.crops) for windows in stream.windows.values()) == 0
        assert len(stream.lips.audio.blocks) <= 3
    gc.collect()
    assert not stream.pictures
    assert most < 150


class Held(Pixels):
    """A picture that can be counted while it is in memory."""

    def __hash__(self):
        return id(self)


def test_a_long_face_that_is_too_short_yet(nets):
    """A face that waits for ``min_track`` is scored meanwhile, so that its crops need not wait."""
    frames = 700
    sound = SoundInMemory(np.zeros(frames * 640, np.int16))
    detector = Whole([(10, 10, 70, 70)])
    settings = replace(SMALL, min_track=600)
    with direct.open_pass(sound, detector=detector, net=nets["net"], settings=settings) as stream:
        for _ in range(frames):
            stream.add(direct_pass.prepare(Pixels(np.zeros((120, 160, 3), np.uint8)), None))
            assert all(len(w.crops) < direct_pass.UNCONFIRMED + 100 for w in stream.live.values())
        [found] = stream.finish()
    assert len(found.dists) == frames - direct_pass.OVERLAP


def test_batches_of_the_detector_are_small(clip, nets):
    """However few frames are looked at, and however many where a face comes and goes."""
    sizes = []

    class Coming(Whole):
        def detect_batch(self, images, conf_th, scales):
            sizes.append(len(images))
            found = super().detect_batch(images, conf_th, scales)
            return found if len(sizes) > 1 else [self.rows[:0], *found[1:]]

    direct.run(clip, detector=Coming([(90, 50, 210, 170)]), net=nets["net"], settings=replace(SMALL, detect_every=40))
    assert sum(sizes) > 40 and max(sizes) <= direct_pass.LARGEST_BATCH


@pytest.mark.usefixtures("nothing_left_running")
def test_a_detector_that_fails(clip, nets):
    class Failing(Whole):
        def detect_batch(self, images, conf_th, scales):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        direct.run(clip, detector=Failing([]), net=nets["net"], settings=SMALL)
