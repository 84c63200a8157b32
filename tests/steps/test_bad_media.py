"""Inputs that are not a video or cannot be scored."""

import json
import os
from dataclasses import replace

import clips
import numpy as np
import pytest
from checks import nothing_half_finished, nothing_to_use, one_error, scored_without_track

from detectors import S3FD
from syncnet.faces.detect import Summary
from syncnet.faces.scenes import Scene
from syncnet.faces.tracks import Tracking
from syncnet.media import conversions
from syncnet.media.fingerprint import behaviour
from syncnet.steps.pipeline import PipelineSettings, explain

pytestmark = pytest.mark.usefixtures("nothing_left_running")

KEEP = ("-c", "copy")


@pytest.fixture
def damaged(face_clip, tmp_path):
    """The clip without its second half."""
    data = face_clip.read_bytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data[: len(data) // 2])
    return path


def test_missing_file(pipeline, tmp_path):
    ran, layout = pipeline(tmp_path / "no.mp4")
    one_error(ran, tmp_path / "no.mp4", "no such file", "--videofile")
    assert not layout.data_dir.exists()


def test_folder(pipeline, tmp_path):
    ran, layout = pipeline(tmp_path)
    one_error(ran, tmp_path, "is a folder", "--videofile")
    assert not layout.data_dir.exists()


def test_named_pipe(pipeline, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    ran, layout = pipeline(tmp_path / "pipe.mp4")
    one_error(ran, tmp_path / "pipe.mp4", "--videofile")
    assert not layout.data_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read a file of root's")
def test_unreadable_file(results, face_clip, tmp_path, pipeline):
    clip = tmp_path / "mine.mp4"
    clip.write_bytes(face_clip.read_bytes())
    clip.chmod(0)
    before = results.scores.read_text()
    for folder in tmp_path.resolve().parents:
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 1:
            folder.chmod(folder.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)
    results.data_dir.chmod(0o777)
    os.seteuid(65534)
    try:
        ran, layout = pipeline(clip)
    finally:
        os.seteuid(0)
    one_error(ran, clip, "Permission denied")
    assert layout.scores.read_text() == before


@pytest.mark.parametrize(
    "text", [b"", b"Once upon a time.\n" * 200, b"\0" * 5000, np.random.default_rng(0).bytes(3000)]
)
def test_not_media(pipeline, tmp_path, text):
    (tmp_path / "a.mp4").write_bytes(text)
    ran, layout = pipeline(tmp_path / "a.mp4")
    one_error(ran, tmp_path / "a.mp4")
    nothing_to_use(layout, "not_media")


def test_truncated(pipeline, damaged):
    ran, layout = pipeline(damaged)
    one_error(ran, damaged)
    nothing_to_use(layout, "not_media")


def test_truncated_with_its_index_in_front(pipeline, face_clip, tmp_path):
    whole = tmp_path / "whole.mp4"
    clips.Ffmpeg(["-i", face_clip, *KEEP, "-movflags", "+faststart", whole], source=whole).finish()
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 6 // 10])
    ran, layout = pipeline(cut)
    assert ran.code == 0
    [warning] = [line for line in ran.err if "damaged?" in line]
    assert str(cut) in warning
    assert not [line for line in ran.err if "Traceback" in line or ": error: " in line]
    nothing_half_finished(layout)
    assert 0 < json.loads(layout.pipeline.read_text())["faces"]["frames"] < 36


def test_header_without_a_frame(pipeline, face_clip, tmp_path):
    whole = tmp_path / "whole.mp4"
    clips.Ffmpeg(["-i", face_clip, *KEEP, "-movflags", "+faststart", whole], source=whole).finish()
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: data.index(b"mdat") + 8])
    ran, layout = pipeline(cut)
    one_error(ran, cut)
    nothing_half_finished(layout)
    assert not layout.crops.exists()


def test_audio_only(pipeline, tmp_path):
    clip = clips.make(tmp_path / "a.m4a", clips.tone(seconds=1))
    ran, layout = pipeline(clip)
    one_error(ran, clip, "no video stream")
    nothing_to_use(layout, "no_video")


def test_audio_with_a_cover_image(pipeline, tmp_path):
    clip = tmp_path / "a.mp3"
    cover = ("-frames:v", "1", "-c:v", "mjpeg", "-disposition:v", "attached_pic")
    clips.make(clip, clips.tone(seconds=1), clips.canvas(seconds=1), flags=cover)
    ran, layout = pipeline(clip)
    one_error(ran, clip, "no video stream")
    nothing_to_use(layout, "no_video")


def test_without_audio(pipeline, run, tmp_path):
    clip = clips.face_clip(tmp_path / "a.mp4", audio="")
    ran, layout = pipeline(clip)
    scored_without_track(ran, layout, "no_audio")
    assert ran.out == []
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    scored_without_track(ran, layout, "no_audio")
    drawn = run("run_visualise", "--data_dir", layout.data_dir, "--reference", layout.reference)
    one_error(drawn, "nothing to draw", "no audio stream")


def test_no_face(pipeline, run, tmp_path):
    clip = clips.make(tmp_path / "a.mp4", clips.canvas(seconds=1), clips.tone(seconds=1))
    ran, layout = pipeline(clip)
    scored_without_track(ran, layout, "no_face")
    assert ran.err[-1].endswith("no face found: a face in none of 5 frames at any --facedet_scale from 0.05 to 1")
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    scored_without_track(ran, layout, "no_face")
    assert layout.offsets.read_text() == ""
    assert run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me").code == 0


def test_faces_too_small(pipeline, face_clip):
    ran, layout = pipeline(face_clip, "--min_face_size", "200")
    scored_without_track(ran, layout, "faces_too_small")
    assert "--min_face_size 200" in ran.err[-1]
    assert "128 pixels" in ran.err[-1]


def test_large_face_for_a_short_time_and_a_small_one_for_long():
    """The reason names the size of the long track, not that of the largest face."""
    summary = Summary(frames=50, frames_with_faces=50, most_faces=2, smallest=93.0, median=98.0, largest=192.0)
    settings = PipelineSettings(min_track=20, min_face_size=100, facedet_scale=0.25)
    limits = {"scenes": [Scene(0, 50)], "settings": settings}
    [reason] = explain(Tracking(tracks=[], longest=50, largest=97.4), summary, audio_frames=50, **limits)
    assert reason.code == "faces_too_small"
    assert "those in tracks of more than --min_track 20 frames" in reason.text and "97.4 pixels" in reason.text
    summary = replace(summary, largest=99.8)
    [reason] = explain(Tracking(tracks=[], longest=50, largest=99.8), summary, audio_frames=50, **limits)
    assert "all at most --min_face_size 100: the largest measures 99.8 pixels" in reason.text


def test_damaged_input_leaves_a_reason_and_nothing_old(pipeline, face_clip, monkeypatch):
    """The input is recognised as media, but ffmpeg cannot convert it."""
    pipeline(face_clip)
    monkeypatch.setattr(conversions, "rate_flags", lambda *_, **__: ("-r", "x"))
    ran, layout = pipeline(face_clip)
    assert ran.code == 1 and len(ran.err) == 1
    report = json.loads(layout.scores.read_text())
    assert [reason["code"] for reason in report["reasons"]] == ["not_media"]
    assert report["recipe"]["pipeline"]["versions"]["ffmpeg"] == behaviour().version
    assert not layout.crops.exists()


def test_tracks_too_short(pipeline, face_clip):
    ran, layout = pipeline(face_clip, "--min_track", "36")
    scored_without_track(ran, layout, "tracks_too_short")
    assert "--min_track 36" in ran.err[-1]
    assert "the longest track has 36" in ran.err[-1]


@pytest.mark.parametrize("frames", [1, 3])
def test_a_few_frames(pipeline, run, tmp_path, frames):
    clip = clips.face_clip(tmp_path / "a.mp4", seconds=frames / 25)
    ran, layout = pipeline(clip)
    scored_without_track(ran, layout, "too_short", "tracks_too_short")
    ran, layout = pipeline(clip, "--min_track", "0")
    assert ran.code == 0
    assert len(layout.crop_files()) == 1
    ran = run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    assert ran.code == 0
    assert "too short" in ran.err[-1]
    assert layout.offsets.read_text() == ""
    [track] = json.loads(layout.scores.read_text())["tracks"]
    assert track["offset"] is None
    [reason] = track["reasons"]
    assert reason["code"] == "too_short" and reason["text"].startswith("too short to score: ")  # and no file's name
    assert run("run_visualise", "--data_dir", layout.data_dir, "--reference", "me").code == 0


@pytest.mark.parametrize("size", ["64x64", "16x16", "2x2", "322x1000"])
def test_small_and_narrow_frames(pipeline, tmp_path, size):
    clip = clips.make(tmp_path / "a.mp4", clips.canvas(seconds=0.6, size=size), clips.tone(seconds=0.6))
    ran, layout = pipeline(clip, "--facedet_scale", "0.25")
    scored_without_track(ran, layout, "no_face")


@pytest.mark.parametrize("size", [(1, 1), (20, 400), (27, 27)])
def test_detector_on_images_too_small_for_it(weights, size):
    image = np.zeros((*size, 3), np.uint8)
    assert S3FD("cpu", weights=weights["--s3fd_weights"]).detect_faces(image, scales=[1, 0.3]).shape == (0, 5)
