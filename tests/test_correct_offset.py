"""correct_offset.py: what it prints and writes, its exit codes, and what it never overwrites."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys

import clips
import pytest
from checks import one_error
from conftest import ROOT
from moving import Mover, make_video, measure, measurement

import correct_offset
from syncnet import api
from syncnet.media.resync import COPY
from syncnet.steps import correct
from syncnet.steps.correct import Correction, RefusedError, ShotLag

SAMPLE = ROOT / "data" / "sample.mp4"
STARTER = ROOT / "data" / "starter"
LINE = re.compile(
    r"audio (\d+) ms (early|late) \(lag (-?\d+) ms\) -> (\d+) ms (?:early|late); confidence (\d+\.\d) -> (\d+\.\d)"
)


@pytest.fixture
def mover(monkeypatch):
    """Return the stand-in that moves sound; measured is by a stand-in, too, and networks are not loaded."""
    stand_in = Mover()
    monkeypatch.setattr(correct, "move_sound", stand_in)
    monkeypatch.setattr("syncnet.media.resync.check_holds", lambda *_, **__: None)
    monkeypatch.setattr(correct, "measure", measure)
    for name in ("load_net", "load_detector"):
        monkeypatch.setattr(api, name, lambda *_: None)
    return stand_in


@pytest.fixture
def video(tmp_path):
    return make_video(tmp_path / "in.mp4")


@pytest.fixture
def script(run, tmp_path, monkeypatch):
    """Return a function that runs the script in a folder, by default from in.mp4 to out.mp4."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv, video="in.mp4", output="out.mp4": run(
        "correct_offset", "--videofile", video, "--output", output, *argv
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_lag_is_taken_out(mover, video, script, tmp_path):
    ran = script("--json", "done.json")
    assert ran.code == 0
    assert ran.out == ["audio 215 ms late (lag -215 ms) -> 0 ms late; confidence 7.2 -> 7.2"]
    assert ran.err == ["out.mp4: a note"]
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["before"]["lag_ms"] == -215 and done["after"]["lag_ms"] == 0
    assert done["shift"] == {"delay_ms": -215, "drift_ms_per_min": 0, "at_s": 0}
    assert (done["written"], done["rounds"], done["notes"]) == (True, 1, ["a note"])
    assert names(tmp_path) == ["done.json", "in.mp4", "out.mp4"]


def test_the_line_for_people():
    before, after = measurement(240.4), measurement(-0.6, confidence=7.44)
    done = Correction(before, after, correct.Shift(240.4), written=True, rounds=1)
    assert list(correct_offset.summary(done)) == ["audio 240 ms early (lag 240 ms) -> 1 ms late; confidence 7.2 -> 7.4"]


def test_nothing_to_do(mover, script, tmp_path):
    path = make_video(tmp_path / "in.mp4", 4.0)
    ran = script()
    assert ran.code == 0 and mover.calls == []
    assert ran.out == ["audio 4 ms early (lag 4 ms): nothing to do; confidence 7.2"]
    assert ran.err == ["out.mp4: not written: --always_write writes a copy"]
    assert names(tmp_path) == ["in.mp4"]
    assert script("--always_write").err == []
    assert (tmp_path / "out.mp4").read_bytes() == path.read_bytes()


def test_twice(mover, video, script, tmp_path):
    assert script().code == 0
    ran = script(video="out.mp4", output="again.mp4")
    assert ran.code == 0 and "nothing to do" in ran.out[0]
    assert names(tmp_path) == ["in.mp4", "out.mp4"]


def test_drift(mover, script, tmp_path):
    make_video(tmp_path / "in.mp4", drift=60.0)
    said, _ = script().out
    assert said == "the lag drifts by 60 +-5 ms per minute: --fix_drift takes that out"
    fixed, line = script("--fix_drift", output="fixed.mp4").out
    assert fixed == "drift 60 +-5 -> 0 +-5 ms per minute" and LINE.fullmatch(line)


def test_shots(mover, video, script, monkeypatch, tmp_path):
    """The table says why shots that differ are refused."""
    shots = (
        ShotLag(0.0, 6.0, 7.0, -215.0, 4.0),
        ShotLag(6.0, 11.2, 0.3, 99.0, 300.0),
        ShotLag(11.2, 20.0, 5.0, 80.0, 3.0),
    )
    found = correct.Measurement(None, None, 7.0, None, None, at_s=5.0, shots=shots, reasons=("the tracks differ",))
    monkeypatch.setattr(correct, "measure", lambda *_, **__: found)
    ran = script("--json", "done.json")
    assert ran.code == 3 and "not corrected: the tracks differ" in ran.err[0] and len(ran.err) == 1
    assert ran.out == [
        correct_offset.HEADER,
        "    0     0.00     6.00       -215 +-4       7.000",
        "    1     6.00    11.20              -       0.300",
        "    2    11.20    20.00         80 +-3       5.000",
    ]
    done = json.loads((tmp_path / "done.json").read_text())
    assert not done["written"] and [shot["lag_ms"] for shot in done["before"]["shots"]] == [-215, 99, 80]
    assert names(tmp_path) == ["done.json", "in.mp4"]


def test_a_refusal(mover, script, tmp_path):
    make_video(tmp_path / "in.mp4", confidence=2.2)
    ran = script()
    one_error(ran, "in.mp4: not corrected: confidence 2.20 is below --min_confidence 3", code=3)
    assert ran.out == [] and names(tmp_path) == ["in.mp4"]
    assert script("--min_confidence", 2).code == 0


def test_a_result_that_is_not_in_step(mover, video, script, tmp_path):
    mover.gain = 0.5
    one_error(script("--quiet"), "in.mp4", "is left of -215 ms")
    assert names(tmp_path) == ["in.mp4"]


def test_a_given_delay_needs_no_network(mover, video, script, monkeypatch):
    def fail(*_, **__):
        raise AssertionError

    for module, name in ((api, "load_net"), (api, "load_detector"), (correct, "measure")):
        monkeypatch.setattr(module, name, fail)
    ran = script("--delay_audio", "-120", "--audio_codec", "copy")
    assert ran.code == 0 and ran.out == ["audio moved 120 ms earlier, not measured"]
    [(_, shift, codec)] = mover.calls
    assert (shift.delay_ms, codec) == (-120, COPY)


def test_flags_reach_the_measurement(mover, video, script, monkeypatch):
    seen = []

    def spy(path, **given):
        seen.append(given)
        return measure(path)

    monkeypatch.setattr(correct, "measure", spy)
    tracking = ("--min_track", 7, "--facedet_scale", 0.5, "--detect_every", 2, "--batch_size", 3)
    assert script("--max_lag", 900, "--min_confidence", 2, "--audio_stream", 1, *tracking).code == 0
    assert len(seen) == 2
    for given in seen:
        assert (given["max_lag"], given["min_confidence"], given["audio_stream"]) == (900, 2, 1)
        settings = given["settings"]
        assert (settings.min_track, settings.facedet_scale, settings.detect_every, settings.batch_size) == (
            7,
            0.5,
            2,
            3,
        )


@pytest.mark.parametrize(
    "argv",
    [
        ("--max_lag", "0"),
        ("--max_lag", "nan"),
        ("--max_lag", "1e9"),
        ("--delay_audio", "inf"),
        ("--audio_stream", "-1"),
        ("--fix_drift", "--delay_audio", "9"),
        ("--fix_drift", "--audio_codec", "copy"),
    ],
)
def test_flags_that_cannot_work(argv, mover, video, script, tmp_path):
    ran = script(*argv)
    assert ran.code == 2 and argv[0] in ran.err[-1]
    assert mover.calls == [] and names(tmp_path) == ["in.mp4"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_input_is_never_overwritten(mover, video, script, tmp_path):
    before = digest(video)
    (tmp_path / "folder").mkdir()
    (tmp_path / "hard.mp4").hardlink_to(video)
    (tmp_path / "soft.mp4").symlink_to(video)
    for output in ("in.mp4", "./in.mp4", "folder/../in.mp4", video, "hard.mp4", "soft.mp4"):
        one_error(script("--overwrite", output=output), "never overwritten", "--output", code=2)
    one_error(script("--json", video), "never overwritten", "--json", code=2)
    assert mover.calls == [] and digest(video) == before
    assert script().code == 0 and digest(video) == before


def test_the_input_is_not_taken_for_what_a_killed_run_left(mover, script, tmp_path):
    path = make_video(tmp_path / "out.part.mp4")
    before = digest(path)
    one_error(script(video="out.part.mp4"), "out.mp4", "never overwritten", code=2)
    assert digest(path) == before


def test_an_output_that_exists(mover, video, script, tmp_path):
    (tmp_path / "out.mp4").write_text("old")
    one_error(script(), "out.mp4: exists already", "--overwrite", code=2)
    mover.gain = 0.0
    assert script("--overwrite").code == 1 and (tmp_path / "out.mp4").read_text() == "old"
    mover.gain = 1.0
    assert script("--overwrite").code == 0 and measure(tmp_path / "out.mp4").lag_ms == 0


def test_an_output_that_is_kept_keeps_its_json(mover, video, script, tmp_path):
    assert script("--json", "done.json").code == 0
    before = (tmp_path / "done.json").read_bytes()
    one_error(script("--json", "done.json"), "out.mp4: exists already", code=2)
    assert (tmp_path / "done.json").read_bytes() == before


def test_outputs_that_cannot_be(mover, video, script, tmp_path, monkeypatch):
    one_error(script(output=""), "--output is missing", code=2)
    one_error(script(output="gone/out.mp4"), "gone/out.mp4: in a folder that does not exist", code=2)
    one_error(script(output=tmp_path), "not a regular file", code=2)
    one_error(script(output="out.xyz"), "out.xyz", code=2)
    one_error(script("--audio_codec", "gone"), "--audio_codec gone: cannot be written into mp4", code=2)
    one_error(script("--json", "./out.mp4"), "is the --output", code=2)
    monkeypatch.setattr("os.access", lambda *_: False)
    one_error(script(), "cannot write into this folder", "--output")
    assert mover.calls == [] and names(tmp_path) == ["in.mp4"]


def test_a_full_disk(mover, video, script, tmp_path):
    mover.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    before = digest(video)
    one_error(script("--quiet"), "out.mp4: cannot write it (No space left on device)")
    assert names(tmp_path) == ["in.mp4"] and digest(video) == before


def test_a_run_that_is_killed_leaves_nothing_that_looks_complete(mover, video, script, tmp_path):
    before = digest(video)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "sys.path.insert(0, 'tests')\n"
        "from moving import measure\n"
        "from syncnet.steps import correct\n"
        "def kill(source, output, **_):\n"
        "    output.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "correct.move_sound = kill\n"
        "correct.run(*map(Path, sys.argv[1:]), measure=measure, settings=correct.CorrectionSettings())\n"
    )
    paths = [str(tmp_path / name) for name in ("in.mp4", "out.mp4")]
    assert subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT).returncode == -9
    assert names(tmp_path) == ["in.mp4", "out.part.mp4"] and digest(video) == before
    assert script().code == 0
    assert names(tmp_path) == ["in.mp4", "out.mp4"] and digest(video) == before


def test_inputs_that_cannot_be_measured(script, tmp_path):
    clips.make(tmp_path / "silent.mp4", clips.canvas(seconds=1.4))
    one_error(script("--quiet", video="silent.mp4"), "silent.mp4: no audio stream")
    clips.make(tmp_path / "empty.mp4", clips.canvas(seconds=1.4), clips.tone(seconds=1.4))
    one_error(script("--quiet", video="empty.mp4"), "empty.mp4: no face found", "--facedet_scale")
    (tmp_path / "text.mp4").write_text("no video")
    one_error(script("--quiet", video="text.mp4"), "text.mp4", "not a media file")
    one_error(script("--quiet", video="gone.mp4"), "gone.mp4: no such file")
    assert names(tmp_path) == ["empty.mp4", "silent.mp4", "text.mp4"]


def test_containers_are_checked_before_anything_is_measured(script, face_clip, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise AssertionError

    monkeypatch.setattr(correct, "measure", fail)
    one_error(script(video=face_clip, output="out.webm"), "face.mp4: webm cannot hold its picture", code=2)
    one_error(script("--audio_codec", "copy", video=face_clip, output="out.avi"), "no time stamps", code=2)
    assert names(tmp_path) == []


@pytest.mark.usefixtures("nothing_left_running")
def test_confidence_of_the_wrong_sound_is_too_low(script, face_clip, tmp_path):
    ran = script("--quiet", "--facedet_scale", 0.5, "--min_track", 10, video=face_clip)
    one_error(ran, "face.mp4: not corrected: confidence", "--min_confidence 3", code=3)
    assert names(tmp_path) == []


def test_from_python(mover, video, tmp_path):
    from syncnet import correct_offset as function

    done = function(video, tmp_path / "out.mp4")
    assert isinstance(done, Correction) and done.after.lag_ms == 0
    make_video(video, confidence=1.0)
    with pytest.raises(RefusedError) as caught:
        function(video, tmp_path / "out.mp4", overwrite=True)
    assert caught.value.measurement.confidence == 1.0


@pytest.mark.slow
def test_the_sample(run, tmp_path):
    """Its sound is moved by a known amount, and corrected with the starter weights."""
    late, output = tmp_path / "late.mp4", tmp_path / "out.mp4"
    weights = ("--initial_model", STARTER / "syncnet.pt", "--s3fd_weights", STARTER / "s3fd.pt")
    flags = ("--quiet", "--detect_every", 25, *weights)
    moved = run("correct_offset", "--videofile", SAMPLE, "--output", late, "--delay_audio", 215, *flags)
    assert moved.code == 0 and moved.out == ["audio moved 215 ms later, not measured"]
    before = digest(late)
    ran = run("correct_offset", "--videofile", late, "--output", output, "--json", tmp_path / "done.json", *flags)
    assert ran.code == 0, ran
    ms, side, lag, left, confidence, now = LINE.fullmatch(ran.out[-1]).groups()
    assert (side, int(lag)) == ("late", -int(ms)) and abs(int(ms) - 215) <= 6 and int(left) <= 6
    assert abs(float(confidence) - float(now)) < 3  # it depends on the fraction of a frame
    assert digest(late) == before
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["rounds"] == 1 and len(done["before"]["shots"]) == 3
    score = api.score_video(
        late, detect_every=25, initial_model=STARTER / "syncnet.pt", s3fd_weights=STARTER / "s3fd.pt", device="cpu"
    )
    assert done["before"]["confidence"] == pytest.approx(max(track.confidence for track in score.tracks), abs=1e-4)
    again = run("correct_offset", "--videofile", output, "--output", tmp_path / "again.mp4", *flags)
    assert again.code == 0 and "nothing to do" in again.out[-1]
    assert names(tmp_path) == ["done.json", "late.mp4", "out.mp4"]
