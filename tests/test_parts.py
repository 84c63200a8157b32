"""Small units: batch sizes, speaker spans, errors that name their file, reasons, devices."""

import errno
import gc
import io
import itertools
import json
import os
import pickle
import threading
import time

import cv2
import numpy as np
import pytest
import torch

from syncnet import errors, reasons
from syncnet.errors import DiskFullError, SyncNetError, UsageError
from syncnet.faces import detect, scenes
from syncnet.faces.scenes import Scene
from syncnet.faces.tracks import Tracking
from syncnet.media import frames
from syncnet.models.devices import select_device
from syncnet.results.layout import Layout, crop_file, crop_number, frame_file, frame_files, new_file
from syncnet.results.scores_json import score_warnings
from syncnet.results.step_files import load_json, load_pickle, save_json, save_pickle
from syncnet.steps.pipeline import PipelineSettings, explain
from syncnet.sync.scoring import SyncScore
from syncnet.sync.speakers import NOBODY, Span, spans, speaking_tracks

pytestmark = pytest.mark.usefixtures("nothing_left_running")


def test_read_ahead_runs_ahead_as_far_as_it_may():
    begun = []
    stream = frames.read_ahead(range(50), lambda item: begun.append(item) or item * 2, ahead=8)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(begun) < 9 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 9 <= len(begun) <= 11, "as far as it may and no further"
    assert list(stream) == [2 * item for item in range(1, 50)]


def test_forgotten_read_ahead_ends_its_thread():
    before = threading.active_count()
    stream = frames.read_ahead(range(10**6), str)
    next(stream)
    del stream
    gc.collect()
    assert threading.active_count() == before


def test_batches_of_faces_stay_small():
    """The number of images per batch is limited when they are small or resized to be small."""
    assert detect.batch_size(64 * 64, 0.25) == detect.BATCH_FRAMES
    assert detect.batch_size(3840 * 2160, 0.01) == detect.BATCH_FRAMES
    assert detect.batch_size(3840 * 2160, 1) == 1


@pytest.mark.parametrize(
    ("starts", "confidences", "expected"),
    [
        ([], [], []),
        ([0], [[1, 3, 3, 1, 5]], [Span(1, 2, 0), Span(4, 4, 0)]),
        ([0, 2], [[3, 3, 3, 3, 3], [4, 1, 4]], [Span(0, 1, 0), Span(2, 2, 1), Span(3, 3, 0), Span(4, 4, 1)]),
        ([0, 1], [[2, 2], [2.0, 2.1]], [Span(2, 2, 1)]),
        ([5], [[9]], [Span(5, 5, 0)]),
        ([0, 0], [[], [7]], [Span(0, 0, 1)]),
    ],
)
def test_speakers(starts, confidences, expected):
    speaker = speaking_tracks(starts, [np.array(values, float) for values in confidences], threshold=2.0)
    assert spans(speaker) == expected
    spoken = {frame for span in expected for frame in range(span.first, span.last + 1)}
    assert all((value != NOBODY) == (frame in spoken) for frame, value in enumerate(speaker))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", [None, "/other/file"])
def test_new_file_names_the_file_that_failed(tmp_path, number, name):
    with pytest.raises(SyncNetError) as raised, new_file(tmp_path / "a"):
        raise OSError(number, os.strerror(number), name)
    assert str(raised.value).startswith(name or str(tmp_path / "a"))
    assert isinstance(raised.value, DiskFullError) == (number != errno.EIO)


def test_timecodes_of_a_video_survive(face_clip, tmp_path):
    found = scenes.detect_scenes(face_clip, scenes.new_manager())
    save_pickle(found, tmp_path / "scene.pckl")
    read = load_pickle(tmp_path / "scene.pckl", made_by="x")
    assert scenes.frame_numbers(read) == scenes.frame_numbers(found)
    assert [(start.get_timecode(), end.get_timecode()) for start, end in read] == [
        (start.get_timecode(), end.get_timecode()) for start, end in found
    ]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_any_protocol(tmp_path, protocol):
    (tmp_path / "a.pckl").write_bytes(pickle.dumps([np.eye(3), np.float64(2)], protocol=protocol))
    np.testing.assert_array_equal(load_pickle(tmp_path / "a.pckl", made_by="x")[0], np.eye(3))


@pytest.mark.parametrize("value", [os.system, eval, io.BytesIO, print])
def test_pickles_with_anything_else_are_refused(tmp_path, value):
    (tmp_path / "a.pckl").write_bytes(pickle.dumps({"x": value}))
    with pytest.raises(SyncNetError, match="run_x"):
        load_pickle(tmp_path / "a.pckl", made_by="run_x")


def test_json_of_any_name(tmp_path):
    value = {"name": os.fsdecode(b"caf\xe9 \xc3\xbc"), "number": np.float32(0.5), "count": np.int64(3)}
    save_json(value, tmp_path / "a.json")
    assert load_json(tmp_path / "a.json", made_by="x") == {"name": value["name"], "number": 0.5, "count": 3}
    assert json.loads((tmp_path / "a.json").read_bytes())["count"] == 3


@pytest.mark.parametrize("text", ["", "{", "[1,"])
def test_damaged_json(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SyncNetError, match="run_x"):
        load_json(tmp_path / "a.json", made_by="run_x")


def summary(frames, with_faces, largest):
    return detect.Summary(frames, with_faces, min(with_faces, 1), largest, largest, largest)


@pytest.mark.parametrize(
    ("tracking", "found", "audio_frames", "codes"),
    [
        (Tracking([object()], 200, 150.0), summary(205, 200, 150), 205, []),
        (Tracking([object()], 200, 150.0), summary(206, 200, 150), 206, ["scene_cut_short"]),
        (Tracking([object()], 200, 150.0), summary(200, 200, 150), 200, []),
        (Tracking([object()], 200, 150.0), summary(200, 200, 150), 195, []),
        (Tracking([object()], 200, 150.0), summary(200, 200, 150), 194, ["audio_short"]),
        (Tracking([], 0, None), summary(200, 0, None), 200, ["no_face"]),
        (Tracking([], 150, 80.0), summary(200, 150, 90), 200, ["faces_too_small"]),
        (Tracking([], 40, None), summary(200, 40, 150), 200, ["tracks_too_short"]),
        (Tracking([], 40, None), summary(200, 40, 90), 200, ["faces_too_small", "tracks_too_short"]),
        (Tracking([], 5, None), summary(5, 5, 150), 200, ["too_short", "tracks_too_short"]),
        (Tracking([], 40, None), summary(40, 40, 150), 5, ["too_short", "tracks_too_short", "audio_short"]),
    ],
)
def test_reasons(tracking, found, audio_frames, codes):
    reasons_found = explain(
        tracking,
        found,
        scenes=[Scene(0, 90), Scene(90, 200)],
        audio_frames=audio_frames,
        settings=PipelineSettings(min_track=100, min_face_size=100, facedet_scale=0.25),
    )
    assert [reason.code for reason in reasons_found] == codes
    for reason in reasons_found:
        if reason.code in (reasons.NO_FACE, reasons.FACES_TOO_SMALL, reasons.TRACKS_TOO_SHORT):
            assert " --" in reason.text, "names the flag to change"


@pytest.mark.parametrize(
    ("offset", "confidence", "audio_frames", "codes"),
    [
        (14, 2.0, 99, []),
        (15, 2.0, 99, ["edge_offset"]),
        (-15, 2.0, 93, ["edge_offset", "audio_short"]),
        (0, 2.0, 94, []),
        (0, 1.999, 99, ["low_confidence"]),
        (15, -0.5, 93, ["low_confidence", "edge_offset", "audio_short"]),
    ],
)
def test_score_warnings(offset, confidence, audio_frames, codes):
    score = SyncScore(np.zeros((9, 31)), offset, 5.0, confidence, video_frames=99, audio_frames=audio_frames)
    assert [reason.code for reason in score_warnings(score, vshift=15)] == codes


def test_devices():
    assert select_device("cpu").type == "cpu"
    assert select_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("tpu", "meta", "cpu:7", "cuda:99", ""):
        with pytest.raises(UsageError, match="--device"):
            select_device(name)


def test_memory_errors_are_recognised():
    assert errors.out_of_memory(MemoryError())
    assert errors.out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not errors.out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert errors.out_of_memory(raised.value)


def test_numbered_files_beyond_their_digits(tmp_path):
    """Files are in numerical order, also beyond a million; other files are ignored."""
    numbers = [0, 8, 9_998, 999_998, 999_999, 1_000_000, 12_345_678]
    for path in [*(frame_file(tmp_path, n) for n in numbers), tmp_path / "x.jpg", tmp_path / "000001.part.jpg"]:
        path.touch()
    assert frame_files(tmp_path) == [frame_file(tmp_path, n) for n in numbers]
    layout = Layout(tmp_path, "me")
    layout.crops.mkdir(parents=True)
    for number in (0, 7, 9_999, 10_000, 123_456):
        crop_file(layout.crops, number).touch()
    (layout.crops / "00001.part.avi").touch()
    assert list(map(crop_number, layout.crop_files())) == [0, 7, 9_999, 10_000, 123_456]


def test_reading_thread_ends_when_the_detector_fails(tmp_path):
    """The thread ends even while the error, with its traceback, is kept."""
    for index in range(3):
        cv2.imwrite(str(frame_file(tmp_path, index)), np.zeros((20, 20, 3), np.uint8))
    before = threading.active_count()

    class Broken:
        device = torch.device("cpu")

        def detect_batch(self, *_, **__):
            raise ValueError("broken")

    found = detect.detect_faces(itertools.cycle(frame_files(tmp_path)), Broken(), facedet_scale=1)
    with pytest.raises(ValueError, match="broken") as kept:
        next(found)
    assert threading.active_count() == before, kept
