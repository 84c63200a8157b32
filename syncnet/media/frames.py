"""Pictures of a video as a stream: read ahead by a thread, and as soon as ffmpeg has finished each."""

import os
import queue
import threading
import time

import cv2
import numpy as np

from syncnet.errors import MediaError
from syncnet.results.layout import frame_file

POLL_SECONDS = 0.005
FRAMES_AHEAD = 16
END_OF_IMAGE = b"\xff\xd9"  # of a JPEG file


def read_frame(path):
    """A picture as H x W x 3 array, uint8, BGR.

    Raises:
        MediaError: it cannot be read.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise MediaError(f"{path}: cannot read this picture: run run_pipeline.py again")
    return image


def decode_frames(video):
    """Yield the pictures of a video as OpenCV decodes them, H x W x 3 arrays, uint8, BGR."""
    capture = cv2.VideoCapture(str(video.absolute()), cv2.CAP_FFMPEG)
    try:
        while True:
            there, image = capture.read()
            if not there:
                return
            yield image
    finally:
        capture.release()


def growing_files(folder, writer):
    """Paths of a folder's frames in order, each as soon as ``writer`` (an ``Ffmpeg``) has finished it.

    Ends when ffmpeg ends, well or not: ``writer.finish()`` tells. The last picture of a failed one is left out.

    Raises:
        MediaError: a picture is cut off, though ffmpeg has gone on to the next.
    """
    index = 0
    while True:
        running = writer.running
        path = frame_file(folder, index)
        # the picture is complete when the next one has been begun, or when there will be no more
        if frame_file(folder, index + 1).exists() or (writer.succeeded and path.exists()):
            if not is_whole(path):
                raise MediaError(f"{path}: was not written to its end: is the disk full?")
            yield path
            index += 1
        elif running:
            time.sleep(POLL_SECONDS)
        else:
            return


def is_whole(path):
    """Whether a JPEG file has its end."""
    with path.open("rb") as file:
        file.seek(-min(len(END_OF_IMAGE), path.stat().st_size), os.SEEK_END)
        return file.read() == END_OF_IMAGE


def read_ahead(items, function, *, ahead=FRAMES_AHEAD):
    """Yield ``function(item)`` of every item, in order, computed by a thread up to ``ahead`` items in advance.

    What the thread raises is raised here. Closing the generator ends the thread.
    """
    results = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(result):
        while not stopped.is_set():
            try:
                return results.put(result, timeout=POLL_SECONDS * 20)
            except queue.Full:
                continue

    def work():
        try:
            for item in items:
                if stopped.is_set():
                    return
                put((function(item), None))
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            result, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield result
    finally:
        stopped.set()
        thread.join()


def batches(frames, size, *, overlap=0):
    """Group equally large frames into arrays N x H x W x 3 of ``size`` frames (the last may be smaller).

    Args:
        overlap: how many frames of a batch come again at the start of the next; batches without a new one are left out.
    """
    batch, new = [], 0
    for frame in frames:
        batch.append(frame)
        new += 1
        if len(batch) == size:
            yield np.stack(batch)
            batch, new = batch[size - overlap :], 0
    if new:
        yield np.stack(batch)
