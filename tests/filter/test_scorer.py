"""Tests of what a worker does with a video in every mode, with steps that take the place of the real ones."""

import errno
import json
import sys
import types
from dataclasses import fields
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from moving import Mover, make_video, measure

import filter_videos_by_sync_score as script
from syncnet import reasons
from syncnet.errors import DiskFullError, MediaError, ToolError, UsageError
from syncnet.filter import ray_engine, recipe, scorer
from syncnet.filter.correction import Order, Uncorrected
from syncnet.filter.inputs import Sound, Video
from syncnet.filter.layout import FilterLayout
from syncnet.results.step_files import save_json
from syncnet.steps import correct, direct, pipeline, single, visualise
from syncnet.steps import score as score_step

TRACK = {"track": 0, "offset": 1, "confidence": 7.0, "min_dist": 8.0, "lse_c": None, "reasons": []}
TURNS = {
    "speakers": [{"start": 0.0, "end": 2.0, "track": 0, "confidence": 0.9}],
    "speech_without_face": [{"start": 3.0, "end": 4.0}],
}
REPORT = {"tracks": [TRACK], "reasons": [], "faces": {"frames": 5}, "lag_ms": 37.5, "lag_error_ms": 4.0, **TURNS}


@pytest.fixture
def networks(monkeypatch):
    """Replace the networks; return a list of the calls that make them."""
    made = []

    class Network:
        weights = None

        def __init__(self, device, **options):
            made.append((device, options))

        def loadParameters(self, path):
            made.append(path)

    monkeypatch.setitem(sys.modules, "detectors", types.SimpleNamespace(S3FD=Network))
    monkeypatch.setitem(sys.modules, "SyncNetInstance", types.SimpleNamespace(SyncNetInstance=Network))
    return made


@pytest.fixture
def score(networks, tmp_path):
    """Return a function that scores a file by flags."""
    video = tmp_path / "a.mp4"
    video.write_text("a video")

    def call(*flags, sound=None, output_dir=None):
        args = script.get_parser().parse_args(["--output_dir", "out", "--device", "cpu", *map(str, flags)])
        made = scorer.Scorer(script.parameters_of(args), scratch=tmp_path / "scratch", output_dir=output_dir)
        found = made(str(video), "a.mp4", sound)
        assert not (tmp_path / "scratch").exists()
        return found

    return call


@pytest.fixture
def direct_run(monkeypatch, tmp_path):
    """Replace the direct pass; return a dict with its arguments, where ``report`` can be replaced."""
    seen = {"report": REPORT}

    def run(path, **more):
        assert not (tmp_path / "scratch").exists(), "direct mode has scratch files"
        seen.update(more, path=path)
        return types.SimpleNamespace(report=seen["report"])

    monkeypatch.setattr(direct, "run", run)
    return seen


def test_direct_mode(score, direct_run, networks, tmp_path):
    flags = ("--detect_every", 3, "--min_track", 9, "--vshift", 7, "--min_speaking", 0.7)
    found = score("--mode", "direct", *flags, sound="/s/a.wav")
    assert (found.speakers, found.speech_without_face) == (TURNS["speakers"], TURNS["speech_without_face"])
    assert found.min_speaking == direct_run["settings"].min_speaking == 0.7
    assert (found.status, found.tracks, found.faces) == ("success", [TRACK], {"frames": 5})
    assert (found.lag_ms, found.lag_error_ms, found.error) == (37.5, 4.0, None)
    assert direct_run["path"] == str(tmp_path / "a.mp4") and direct_run["audio"] == "/s/a.wav"
    settings = direct_run["settings"]
    assert (settings.detect_every, settings.min_track, settings.vshift, settings.face_crops) == (3, 9, 7, False)
    assert direct_run["detector"] is not None
    assert [options for _, options in networks[:2]] == [{"weights": "detectors/s3fd/weights/sfd_face.pth"}, {}]


def test_every_setting_of_direct_mode_is_a_parameter():
    """So that no flag is lost on the way."""
    parameters = {field.name for field in fields(recipe.Parameters)}
    for kind in (direct.DirectSettings, pipeline.PipelineSettings):
        assert {field.name for field in fields(kind)} - parameters == {"frame_rate"}


def test_precision_reaches_both_networks(score, direct_run, networks):
    score("--mode", "direct", "--precision", "bfloat16")
    assert [options["precision"] for _, options in networks[:2]] == ["bfloat16", "bfloat16"]


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_face_crops_load_no_detector(score, direct_run, networks, monkeypatch, mode):
    seen = {}

    def run(videofile, layout, net, **more):
        seen.update(more, videofile=videofile)
        return {"tracks": [TRACK], "reasons": [], "faces": None}

    monkeypatch.setitem(sys.modules, "syncnet.steps.single", types.SimpleNamespace(run=run))
    monkeypatch.setattr("syncnet.steps.single", types.SimpleNamespace(run=run), raising=False)
    found = score("--mode", mode, "--face_crops", "--vshift", 7, sound="/s/a.wav")
    assert found.status == "success" and len(networks) == 2  # SyncNet and its weights
    if mode == "direct":
        assert direct_run["detector"] is None and direct_run["settings"].face_crops
    else:
        assert (seen["audio"], seen["vshift"], seen["batch_size"]) == (Path("/s/a.wav"), 7, 20)


def test_published_mode_takes_the_sound_into_the_pipeline(score, monkeypatch):
    seen = []

    def run(path, layout, settings, **more):
        seen.append(more.get("audio"))
        return pipeline.PipelineResult(recipe={}, reasons=[reasons.no_face(facedet_scale=0.25)])

    monkeypatch.setattr(pipeline, "run", run)
    assert score().status == score(sound="/s/a.wav").status == "no_faces"
    assert [str(audio) for audio in seen] == ["None", "/s/a.wav"]


@pytest.mark.parametrize("flags", [("--mode", "direct"), ("--mode", "published"), ("--face_crops",)])
def test_reasons_of_the_video_reach_its_line(score, direct_run, monkeypatch, flags):
    """Also if it has a score, and what it was checked for."""
    damaged = {"code": reasons.DAMAGED, "text": "damaged: x"}
    report = direct_run["report"] = {**REPORT, "reasons": [damaged]}
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: types.SimpleNamespace(tracks=[object()]))
    monkeypatch.setattr(score_step, "run", lambda *_, **__: types.SimpleNamespace(report=report))
    monkeypatch.setattr(single, "run", lambda *_, **__: report)
    found = score(*flags)
    assert (found.status, found.reasons, found.checks) == ("success", [damaged], list(scorer.CHECKS))


def test_no_sound_in_the_folder(score, direct_run, tmp_path):
    for mode in ("direct", "published"):
        found = score("--mode", mode, "--audio_dir", tmp_path / "sounds")
        assert found.status == "failed"
        advice = "no such file with the suffix of an audio or video file: add its sound there"
        assert found.error == f"{tmp_path}/sounds/a: {advice}"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (reasons.NO_VIDEO, "no_video"),
        (reasons.NO_AUDIO, "no_audio"),
        (reasons.TOO_SHORT, "no_faces"),
        (reasons.NOT_MEDIA, "failed"),
        (None, "failed"),
    ],
)
def test_videos_that_cannot_be_analysed(score, monkeypatch, tmp_path, code, status):
    def run(path, **_):
        raise MediaError(f"{path}: it is so", code=code)

    monkeypatch.setattr(direct, "run", run)
    found = score("--mode", "direct")
    assert found.status == status
    assert found.error == ("it is so" if status == "failed" else None)
    assert [reason["code"] for reason in found.reasons] == ([code] if code else [])


@pytest.mark.parametrize(("code", "status"), [(reasons.NO_AUDIO, "no_audio"), (reasons.NO_FACE, "no_faces")])
def test_direct_mode_without_a_track(score, direct_run, code, status):
    direct_run["report"] = {"tracks": [], "reasons": [{"code": code, "text": "x"}], "faces": None}
    found = score("--mode", "direct")
    assert (found.status, found.lag_ms) == (status, None)


def test_outputs_of_direct_mode(score, direct_run, monkeypatch, tmp_path):
    """They are written only if they are kept."""
    drawn = []

    def save(result, layout):
        layout.scores.parent.mkdir(parents=True)
        save_json(result.report, layout.scores)

    monkeypatch.setattr(direct, "save", save, raising=False)
    monkeypatch.setattr(visualise, "run", lambda layout, **_: drawn.append(layout))
    score("--mode", "direct")
    assert drawn == []
    score("--mode", "direct", output_dir=tmp_path / "out")
    assert (FilterLayout(tmp_path / "out").outputs("a.mp4") / "analysis/scores.json").is_file() and len(drawn) == 1


def test_ray_s_actors_get_the_sound(monkeypatch, tmp_path):
    """From the driver, which sends it, to the function that scores a video."""
    monkeypatch.setattr(ray_engine.logger, "propagate", ray_engine.logger.propagate)  # an actor changes it
    actor = ray_engine.Actor(lambda **_: lambda *arguments: arguments, tmp_path, 0, 1)
    handle = MagicMock()
    handle.work.options.return_value.remote = actor.work
    slot = ray_engine.Slot(0, handle)
    for sound, path in ((Sound("/s/a.wav", 1, 2), "/s/a.wav"), (None, None)):
        slot.give(Video("/v/a.mp4", "a.mp4", 1, 2, sound))
        assert slot.task == (("/v/a.mp4", "a.mp4", path), False)
    order = Order(600.0, None, "/out/.work")
    slot.give(Uncorrected("/v/a.mp4", "a.mp4", 1, 2, order=order))
    assert slot.task == (("/v/a.mp4", "a.mp4", None, order), False)


@pytest.fixture
def correction(networks, monkeypatch, tmp_path):
    """Return a function that corrects a video with stand-ins of what measures and moves."""

    def call(video, mover, *, max_lag=600.0, known=None):
        monkeypatch.setattr(correct, "move_sound", mover)
        monkeypatch.setattr(correct, "measure", measure)
        args = script.get_parser().parse_args(["--output_dir", "out", "--device", "cpu", "--mode", "direct"])
        made = scorer.Scorer(script.parameters_of(args), scratch=tmp_path / "scratch")
        return made(str(video), video.name, None, Order(max_lag, known, str(tmp_path / "work")))

    return call


def test_a_correction(correction, tmp_path):
    """The lag is that of the score, or is measured; the new file lies in a folder of the worker."""
    video, mover = make_video(tmp_path / "ü.MKV", -215.0), Mover()
    track = {"start": 0.0, "end": 4.0, "confidence": 7.0, "lag_ms": -215.0, "lag_error_ms": 3.0, "windows": 95}
    track |= {"drift_ms_per_min": None, "drift_error_ms_per_min": None, "reasons": []}
    for known, confidence in ((None, 7.2), (json.dumps({"tracks": [track], "reasons": []}), 7.0)):
        found = correction(video, mover, known=known)
        assert found.file == str(tmp_path / "work/scratch-corrected/video.MKV") and Path(found.file).exists()
        assert (found.state, found.lag_before_ms, found.lag_after_ms, found.delay_ms) == ("corrected", -215, 0, -215)
        assert (found.confidence_before, found.confidence_after, found.notes) == (confidence, 7.2, ("a note",))
        assert "file" not in found.record() and found.processing_time >= 0
    assert json.loads(video.read_text())["lag_ms"] == -215


@pytest.mark.parametrize(
    ("lag_ms", "mover", "state", "error"),
    [
        (4.0, Mover(), "in_step", None),
        (-215.0, Mover(error=UsageError("{folder}/video.part.xyz: cannot be written")), "refused", "cannot be written"),
        (-215.0, Mover(error=ToolError("no ffmpeg")), "failed", "no ffmpeg"),
        (-215.0, Mover(gain=-1.0), "refused", "a lag of "),
        (-215.0, Mover(changes={"confidence": 1.0}), "refused", "not corrected: of the result, confidence 1.00"),
    ],
)
def test_corrections_that_make_no_file(correction, tmp_path, lag_ms, mover, state, error):
    if isinstance(mover.error, UsageError):
        mover = Mover(error=UsageError(str(mover.error).format(folder=tmp_path / "work/scratch-corrected")))
    found = correction(make_video(tmp_path / "a.mp4", lag_ms), mover)
    assert (found.state, found.file) == (state, "") and (found.error or "").startswith(error or "")
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


def test_disk_that_is_full_of_corrections(correction, tmp_path):
    with pytest.raises(DiskFullError):
        correction(make_video(tmp_path / "a.mp4"), Mover(error=DiskFullError("full")))
    with pytest.raises(DiskFullError):
        correction(make_video(tmp_path / "a.mp4"), Mover(error=OSError(errno.ENOSPC, "No space left on device")))
