"""score_video.py: its table, files and errors."""

import dataclasses
import json
import re
import shutil

import clips
import numpy as np
import pytest
from checks import one_error

import score_video
from syncnet import api
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.layout import Layout
from syncnet.sync import speakers
from syncnet.sync.speakers import Span, Turns

pytestmark = pytest.mark.usefixtures("nothing_left_running")

FRAMES = 90
FLAGS = ("--facedet_scale", "0.5", "--min_track", "10")
HEADER = ["track", "from", "to", "offset", "lag", "ms", "confidence", "min", "dist", "speaks", "s"]
ROW = re.compile(r" +(\d+) +(\d+\.\d\d) +(\d+\.\d\d) +(-?\d+) +(-|-?\d+ \+-\d+) +(\d+\.\d{3}) +(\d+\.\d{3}) +\d+\.\d\d")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a clip whose two audio streams are in step, and 4 frames early, in a place with an odd name."""
    folder, light = tmp_path_factory.mktemp("score"), clips.flashes(FRAMES)
    clips.write_frames(folder / "frames", clips.flashing_face([light]))
    own = clips.write_audio(folder / "own.wav", light)
    early = clips.write_audio(folder / "early.wav", np.roll(light, -4))
    first = clips.encode(folder / "first.mkv", folder / "frames", own)
    path = folder / "a 'film', 50 % [é].mkv"
    Ffmpeg(["-i", first, "-i", early, "-map", "0", "-map", "1", "-c", "copy", path], source=path).finish()
    return path


@pytest.fixture
def score(run, tmp_path, monkeypatch):
    """Return a function that runs the script in an empty folder, where temporary files go as well."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tempfile.tempdir", str(here))
    return lambda video, *argv: run("score_video", "--videofile", video, *FLAGS, *argv)


def row(ran):
    """Return the values of the table's only row."""
    assert ran.code == 0, ran
    assert ran.out[0].split() == HEADER
    found = [match.groups() for line in ran.out if (match := ROW.fullmatch(line))]
    assert len(found) == 1, ran.out
    return found[0]


def test_table(score, clip, tmp_path):
    ran = score(clip)
    track, start, end, _, lag, _, _ = row(ran)
    assert (track, start, end) == ("0", "0.00", "3.60")
    assert lag == "-"  # it means nothing at this confidence
    assert any(f"{clip}: track 0: confidence" in line for line in ran.err)
    assert list((tmp_path / "here").iterdir()) == []


def test_lag_of_a_confident_track():
    numbers = {field.name: None for field in dataclasses.fields(api.TrackScore)}
    numbers.update(track=0, start=0.0, end=2.0, offset=1, confidence=5.0, min_dist=9.0, lag_ms=41.6, lag_error_ms=3.2)
    track = api.TrackScore(**{**numbers, "reasons": (), "speaking_s": 1.0})
    assert " 42 +-3 " in score_video.row(track)


def test_json(score, clip, tmp_path):
    ran = score(clip, "--json", "out.json", "--quiet")
    report = json.loads((tmp_path / "here" / "out.json").read_text())
    [track] = report["tracks"]
    _, start, end, offset, lag, confidence, dist = row(ran)
    assert (float(start), float(end), int(offset)) == (track["start"], track["end"], track["offset"])
    assert confidence == f"{track['confidence']:.3f}" and dist == f"{track['min_dist']:.3f}"
    assert lag == "-" and track["lag_ms"] is not None
    assert report["videofile"] == str(clip) and report["reference"] is None and report["mode"] == "direct"
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["out.json"]


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_reference_keeps_results_for_run_visualise(mode, score, run, clip, tmp_path):
    places = ("--data_dir", tmp_path / "data", "--reference", "me")
    row(score(clip, "--mode", mode, *places))
    layout = Layout(tmp_path / "data", "me")
    assert json.loads(layout.scores.read_text())["mode"] == mode
    ran = run("run_visualise", *places)
    assert ran.code == 0, ran
    assert abs(len(clips.decode(layout.video_out)) - FRAMES) <= 2  # published mode adds two here


def test_published_mode_has_the_numbers_of_the_pipeline(score, pipeline, run, clip):
    """The lag is unknown in it, because the conversions move it."""
    _, _, _, offset, lag, confidence, dist = row(score(clip, "--mode", "published"))
    assert lag == "-"
    _, layout = pipeline(clip, "--min_face_size", 50)
    run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert (int(offset), confidence, dist) == (
        track["offset"],
        f"{track['confidence']:.3f}",
        f"{track['min_dist']:.3f}",
    )


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_other_sounds(mode, score, clip):
    own, second = (row(score(clip, "--mode", mode, "--audio_stream", index)) for index in (0, 1))
    assert int(second[3]) - int(own[3]) == 4
    other = row(score(clip, "--mode", mode, "--audio", clip.with_name("early.wav")))
    assert other[3] == second[3]
    assert row(score(clip, "--mode", mode))[3] == own[3]


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_face_crops(mode, score, tmp_path):
    light = clips.flashes(60)
    images = clips.flashing_face([light], corners=[(0, 0)], size=(clips.FACE, clips.FACE))
    clips.write_frames(tmp_path / "frames", images)
    path = clips.encode(tmp_path / "a.avi", tmp_path / "frames", clips.write_audio(tmp_path / "a.wav", light))
    _, start, end, offset, *_ = row(score(path, "--mode", mode, "--face_crops"))
    assert (start, end) == ("0.00", "2.40") and int(offset) in (0, 1)


@pytest.fixture
def turns(monkeypatch):
    """Let the only face speak twice, and somebody else in between."""

    def find(candidates, **_):
        spans = [Span(0, 29, 0, 0.98), Span(60, 89, 0, 0.655)]
        return Turns(spans, [(30, 44)], [np.arange(candidate.frames) < 50 for candidate in candidates])

    monkeypatch.setattr(speakers, "find", find)


def test_who_speaks_when(score, clip, tmp_path, turns):
    ran = score(clip, "--quiet", "--json", "a.json")
    assert ran.out[1].endswith(" 2.00")
    assert [line.split() for line in ran.out[2:5]] == [
        ["speaking", "0.00", "1.20", "track", "0,", "confidence", "0.98"],
        ["2.40", "3.60", "track", "0,", "confidence", "0.66"],
        ["off", "screen", "1.20", "1.80"],
    ]
    report = json.loads((tmp_path / "here" / "a.json").read_text())
    assert report["speech_without_face"] == [{"start": 1.2, "end": 1.8}]
    assert report["speakers"][1] == {"start": 2.4, "end": 3.6, "track": 0, "confidence": 0.655}


def test_rttm(score, clip, tmp_path, turns):
    """Ten fields a line, also if the name of the video has spaces."""
    assert score(clip, "--quiet", "--rttm", "out.rttm").code == 0
    lines = (tmp_path / "here" / "out.rttm").read_text().splitlines()
    assert [line.split(" ") for line in lines] == [
        ["SPEAKER", "a_'film',_50_%_[é]", "1", "0.000", "1.200", "<NA>", "<NA>", "track0", "0.980", "<NA>"],
        ["SPEAKER", "a_'film',_50_%_[é]", "1", "2.400", "1.200", "<NA>", "<NA>", "track0", "0.655", "<NA>"],
    ]


def test_rttm_of_a_video_in_which_nobody_speaks(score, tmp_path):
    path = clips.make(tmp_path / "empty.mp4", clips.canvas(seconds=1.4))
    assert score(path, "--quiet", "--rttm", "out.rttm").code == 0
    assert (tmp_path / "here" / "out.rttm").read_text() == ""


def test_an_old_rttm_does_not_outlive_a_run_that_fails(score, clip, tmp_path):
    (tmp_path / "here" / "out.rttm").write_text("old")
    one_error(score(clip, "--quiet", "--rttm", "out.rttm", "--audio_stream", 5), "--audio_stream 5")
    assert not (tmp_path / "here" / "out.rttm").exists()
    path = shutil.copy(clip, tmp_path / "a.mkv")
    one_error(score(path, "--quiet", "--rttm", path), "another --rttm", code=2)


def test_quiet(score, clip):
    """Warnings stay."""
    ran = score(clip, "--quiet")
    row(ran)
    assert ran.err and all(line.startswith(f"{clip}: ") or "warning" in line for line in ran.err), ran.err


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_a_video_without_a_face_is_no_error(mode, score, tmp_path):
    path = clips.make(tmp_path / "empty.mp4", clips.canvas(seconds=1.4), clips.tone(seconds=1.4))
    ran = score(path, "--mode", mode, "--quiet")
    assert (ran.code, ran.out) == (0, [])
    assert any(str(path) in line and "no face found" in line for line in ran.err)


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_errors_are_one_line(mode, score, clip, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    one_error(score(text, "--mode", mode, "--quiet"), text, "not a media file")
    one_error(score(tmp_path / "gone.mp4", "--mode", mode, "--quiet"), "gone.mp4", "no such file")
    one_error(score(clip, "--mode", mode, "--quiet", "--audio", tmp_path / "gone.wav"), "gone.wav", "--audio")
    one_error(score(clip, "--mode", mode, "--quiet", "--audio", text), text, "not a media file")
    silent = clips.make(tmp_path / "silent.mp4", clips.canvas(seconds=1.4))
    one_error(score(clip, "--mode", mode, "--quiet", "--audio", silent), silent, "no audio stream", "--audio")
    one_error(score(clip, "--mode", mode, "--quiet", "--audio_stream", 5), clip.name, "--audio_stream 5")
    one_error(score(clip, "--mode", mode, "--quiet", "--initial_model", text), text)
    if mode == "published":
        one_error(score(clip, "--mode", mode, "--quiet", "--precision", "bfloat16"), "--precision", code=2)
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("--mode", "fast"),
        ("--min_speaking", "-1"),
        ("--min_span", "nan"),
        ("--audio_stream", "-1"),
        ("--detect_every", "0"),
        ("--min_track", "many"),
    ],
)
def test_flags_that_cannot_work(argv, score, clip):
    ran = score(clip, *argv)
    assert ran.code == 2 and argv[0] in ran.err[-1]


def test_the_input_is_never_overwritten(score, clip, tmp_path):
    path = shutil.copy(clip, tmp_path / "a.mkv")
    sound = shutil.copy(clip.with_name("early.wav"), tmp_path / "a.wav")
    for result in (path, sound):
        one_error(score(path, "--audio", sound, "--json", result), result, "never overwritten", code=2)
    assert path.read_bytes() == clip.read_bytes()
    assert sound.read_bytes() == clip.with_name("early.wav").read_bytes()


def test_a_json_that_cannot_be_written(score, clip, tmp_path):
    for path in (tmp_path / "gone" / "a.json", tmp_path):
        one_error(score(clip, "--quiet", "--json", path), path, "--json", code=2)
