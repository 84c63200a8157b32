"""Streams of frames: order, errors, end of stream."""

import threading
import time

import numpy as np
import pytest

from syncnet.errors import MediaError
from syncnet.faces.detect import summarise
from syncnet.faces.tracks import Face
from syncnet.media.frames import batches, growing_files, read_ahead, read_frame
from syncnet.results.layout import frame_file

COMPLETE = b"a frame\xff\xd9"


class Writer:
    """Stand-in for an ffmpeg that writes frames."""

    def __init__(self):
        self.running, self.succeeded = True, False

    def end(self, *, succeeded=True):
        self.running, self.succeeded = False, succeeded


def test_growing_files(tmp_path):
    """A frame is yielded when the next one exists, or when ffmpeg has ended."""
    writer, got = Writer(), []
    for index in range(2):
        frame_file(tmp_path, index).write_bytes(COMPLETE)

    def collect():
        got.extend(growing_files(tmp_path, writer))

    thread = threading.Thread(target=collect)
    files = growing_files(tmp_path, writer)
    assert next(files) == frame_file(tmp_path, 0)
    thread.start()
    time.sleep(0.1)
    frame_file(tmp_path, 2).write_bytes(COMPLETE)
    time.sleep(0.1)
    writer.end()
    thread.join(5)
    assert got == [frame_file(tmp_path, index) for index in range(3)]


@pytest.mark.parametrize("content", [b"", b"\xd9", COMPLETE[:-1]])
def test_a_truncated_frame(tmp_path, content):
    """Some versions of ffmpeg continue when the disk is full."""
    writer = Writer()
    for index, data in enumerate([COMPLETE, content, COMPLETE]):
        frame_file(tmp_path, index).write_bytes(data)
    files = growing_files(tmp_path, writer)
    assert next(files) == frame_file(tmp_path, 0)
    with pytest.raises(MediaError, match=r"000002\.jpg: was not written to its end: is the disk full"):
        next(files)


def test_growing_files_without_frames(tmp_path):
    writer = Writer()
    writer.end()
    assert list(growing_files(tmp_path, writer)) == []


def test_last_frame_of_a_failed_ffmpeg_is_left_out(tmp_path):
    writer = Writer()
    for index in range(2):
        frame_file(tmp_path, index).write_bytes(COMPLETE)
    writer.end(succeeded=False)
    assert list(growing_files(tmp_path, writer)) == [frame_file(tmp_path, 0)]


def test_read_ahead_keeps_the_order():
    assert list(read_ahead(range(100), lambda n: n * n, ahead=3)) == [n * n for n in range(100)]


def test_read_ahead_of_an_empty_stream():
    assert list(read_ahead([], str)) == []


@pytest.mark.parametrize("where", ["function", "items"])
def test_read_ahead_raises_what_its_thread_raises(where):
    def items():
        yield 1
        if where == "items":
            raise ValueError("here")
        yield 0

    got = []
    with pytest.raises((ValueError, ZeroDivisionError)):
        for value in read_ahead(items(), lambda n: 1 // n):
            got.append(value)
    assert got == [1]


def test_read_ahead_ends_its_thread():
    before = threading.active_count()
    stream = read_ahead(iter(int, 1), str, ahead=2)  # without end
    assert next(stream) == "0"
    stream.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("count", "size", "overlap", "expected"),
    [
        (5, 2, 0, [[0, 1], [2, 3], [4]]),
        (4, 2, 0, [[0, 1], [2, 3]]),
        (8, 5, 2, [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]),
        (9, 5, 2, [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8]]),
        (0, 3, 1, []),
    ],
)
def test_batches(count, size, overlap, expected):
    frames = (np.array([index]) for index in range(count))
    assert [batch[:, 0].tolist() for batch in batches(frames, size, overlap=overlap)] == expected


def test_a_damaged_frame(tmp_path):
    (tmp_path / "000001.jpg").write_text("no image")
    with pytest.raises(MediaError, match=r"000001\.jpg"):
        read_frame(tmp_path / "000001.jpg")


def test_summary_of_faces():
    faces = [[Face(0, (0, 0, 30, 40), 1.0), Face(0, (0, 0, 20, 10), 1.0)], [], [Face(2, (0, 0, 25, 5), 1.0)]]
    summary = summarise(faces)
    assert (summary.frames, summary.frames_with_faces, summary.most_faces) == (3, 2, 2)
    assert (summary.smallest, summary.median, summary.largest) == (20, 25, 40)
    assert summarise([[], []]).largest is None
