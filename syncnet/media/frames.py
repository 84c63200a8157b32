"""Frames of a video as streams: read as soon as ffmpeg has written them, and ahead of use by a thread."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np

from syncnet.errors import MediaError
from syncnet.results.layout import frame_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from syncnet.media.ffmpeg import Ffmpeg

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_SECONDS = 0.005
FRAMES_AHEAD = 16
END_OF_IMAGE = b"\xff\xd9"  # of a JPEG file


def read_frame(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a frame.

    Returns:
        H x W x 3 array, uint8, BGR.

    Raises:
        MediaError: the file cannot be read.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise MediaError(f"{path}: cannot read this frame: run run_pipeline.py again")
    return image


def decode_frames(video: Path) -> Iterator[np.ndarray]:
    """Decode a video with OpenCV.

    Yields:
        Each frame as H x W x 3 array, uint8, BGR.
    """
    capture = cv2.VideoCapture(str(video.absolute()), cv2.CAP_FFMPEG)
    try:
        while True:
            success, image = capture.read()
            if not success:
                return
            yield image
    finally:
        capture.release()


def growing_files(folder: Path, writer: Ffmpeg) -> Iterator[Path]:
    """Wait for the frames that an ffmpeg writes into a folder.

    Ends when ffmpeg ends, whether it succeeded or not; ``writer.finish()`` raises its error. The last frame of a failed
    ffmpeg is left out.

    Args:
        folder: the output folder of ffmpeg.
        writer: the running ffmpeg.

    Yields:
        The path of each frame, in order, as soon as it is complete.

    Raises:
        MediaError: a frame is truncated, although ffmpeg has started the next one.
    """
    index = 0
    while True:
        running = writer.running
        path = frame_file(folder, index)
        # a frame is complete when the next one exists, or when ffmpeg has ended
        if frame_file(folder, index + 1).exists() or (writer.succeeded and path.exists()):
            if not is_complete(path):
                raise MediaError(
                    f"{path}: was not written to its end: is the disk full? Free some space and run the command again"
                )
            yield path
            index += 1
        elif running:
            time.sleep(POLL_SECONDS)
        else:
            return


def is_complete(path: Path) -> bool:
    """Return True if a JPEG file has its end marker."""
    with path.open("rb") as file:
        file.seek(-min(len(END_OF_IMAGE), path.stat().st_size), os.SEEK_END)
        return file.read() == END_OF_IMAGE


def read_ahead(
    items: Iterable[Item], function: Callable[[Item], Result], *, ahead: int = FRAMES_AHEAD
) -> Generator[Result, None, None]:
    """Apply a function to items in a thread, ahead of use.

    Exceptions of the thread are raised here. Closing the generator ends the thread.

    Args:
        items: the function's arguments.
        function: takes an item.
        ahead: maximum number of results waiting to be used.

    Yields:
        ``function(item)`` for each item, in order.
    """
    results: queue.Queue[tuple[Result] | BaseException] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(result: tuple[Result] | BaseException) -> None:
        while not stopped.is_set():
            try:
                return results.put(result, timeout=POLL_SECONDS * 20)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                if stopped.is_set():
                    return
                put((function(item),))
            put(StopIteration())
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            result = results.get()
            if isinstance(result, StopIteration):
                return
            if isinstance(result, BaseException):
                raise result
            yield result[0]
    finally:
        stopped.set()
        thread.join()


def batches(frames: Iterable[np.ndarray], size: int, *, overlap: int = 0) -> Iterator[np.ndarray]:
    """Group frames of equal size into batches.

    Args:
        frames: H x W x 3 arrays.
        size: frames per batch; the last batch may be smaller.
        overlap: number of frames at the end of a batch that the next one repeats. A batch that would only repeat
            frames is left out.

    Yields:
        N x H x W x 3 arrays.
    """
    batch: list[np.ndarray] = []
    new = 0
    for frame in frames:
        batch.append(frame)
        new += 1
        if len(batch) == size:
            yield np.stack(batch)
            batch, new = batch[size - overlap :], 0
    if new:
        yield np.stack(batch)
