"""Clips of face tracks, 224x224 with audio: the input of SyncNet."""

import contextlib
import wave
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from syncnet.errors import SyncNetError
from syncnet.faces.tracks import Path2D, Track
from syncnet.media import conversions
from syncnet.media.ffmpeg import absolute
from syncnet.media.frames import read_ahead, read_frame
from syncnet.median import median_filter
from syncnet.progress import Progress, silent
from syncnet.results.layout import crop_audio_file, crop_file, frame_file, silent_crop_file

CROP_SIZE = 224  # pixels
SMOOTHING = 13  # frames of the median filter over the crops' sizes and centres
PADDING = 110  # grey level outside the frame
CODEC = "XVID"
MUXERS = 2  # ffmpeg processes in parallel


def smooth(track: Track) -> Path2D:
    """Return the smoothed crop positions of a track."""
    x1, y1, x2, y2 = track.bbox.T
    half = np.maximum(x2 - x1, y2 - y1) / 2
    return Path2D(*(median_filter(v, SMOOTHING) for v in (half, (x1 + x2) / 2, (y1 + y2) / 2)))


def crop_face(image: np.ndarray, *, s: float, x: float, y: float, crop_scale: float) -> np.ndarray:
    """Cut the face out of a frame.

    The result is the same as padding the frame with grey by ``s * (1 + 2 * crop_scale)`` pixels on every side, then
    slicing and resizing; to save time only the crop is padded. A crop that extends beyond the padding is clipped to it
    and therefore stretched by the resizing; this is kept for comparability.

    Args:
        image: H x W x 3 array, uint8, BGR.
        s: half of the face's size, in pixels.
        x, y: centre of the face, in pixels.
        crop_scale: margin around the face, relative to its size.

    Returns:
        224 x 224 x 3 array, uint8, BGR.
    """
    height, width = image.shape[:2]

    def region(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return image[top:bottom, left:right]

    return crop_region(region, height=height, width=width, s=s, x=x, y=y, crop_scale=crop_scale)


def crop_region(
    region: Callable[[int, int, int, int], np.ndarray],
    *,
    height: int,
    width: int,
    s: float,
    x: float,
    y: float,
    crop_scale: float,
) -> np.ndarray:
    """Cut the face out of a frame of which only the needed part is converted; otherwise as ``crop_face``.

    Args:
        region: returns a part of the frame, given its top, bottom, left and right edge.
        height, width: size of the frame, in pixels.
        s, x, y, crop_scale: as in ``crop_face``.
    """
    bounds = crop_bounds(height=height, width=width, s=s, x=x, y=y, crop_scale=crop_scale)
    cut = np.full((bounds.height, bounds.width, 3), PADDING, np.uint8)
    top, bottom, left, right = bounds.inside
    if top < bottom and left < right:
        part = region(top, bottom, left, right)
        y0, x0 = bounds.corner
        cut[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]] = part
    return cv2.resize(cut, (CROP_SIZE, CROP_SIZE))


class Bounds(NamedTuple):
    """Place of a crop before it is resized.

    Attributes:
        height, width: its size, in pixels.
        inside: top, bottom, left and right edge of its part inside the frame; empty if top is not above bottom or left
            not before right.
        corner: row and column of that part in the crop.
    """

    height: int
    width: int
    inside: tuple[int, int, int, int]
    corner: tuple[int, int]


def crop_bounds(*, height: int, width: int, s: float, x: float, y: float, crop_scale: float) -> Bounds:
    """Return the ``Bounds`` of a crop; arguments as in ``crop_region``."""
    border = int(s * (1 + 2 * crop_scale))
    top, bottom = int(y + border - s), int(y + border + s * (1 + 2 * crop_scale))
    left, right = int(x + border - s * (1 + crop_scale)), int(x + border + s * (1 + crop_scale))
    rows = max(top, 0), min(bottom, height + 2 * border)
    columns = max(left, 0), min(right, width + 2 * border)
    inside = max(rows[0] - border, 0), min(rows[1] - border, height)
    across = max(columns[0] - border, 0), min(columns[1] - border, width)
    return Bounds(
        height=max(rows[1] - rows[0], 1),
        width=max(columns[1] - columns[0], 1),
        inside=(*inside, *across),
        corner=(inside[0] + border - rows[0], across[0] + border - columns[0]),
    )


@contextlib.contextmanager
def video_writer(path: Path, *, frame_rate: int, width: int, height: int) -> Iterator[cv2.VideoWriter]:
    """Open a ``cv2.VideoWriter`` for an XVID AVI file and yield it.

    Args:
        path: path of the file.
        frame_rate: frames per second.
        width, height: size of the frames, in pixels.

    Raises:
        SyncNetError: the file cannot be written.
    """
    writer = cv2.VideoWriter(
        absolute(path),
        cv2.CAP_FFMPEG,
        cv2.VideoWriter_fourcc(*CODEC),  # type: ignore[attr-defined]  # not in OpenCV's stubs
        frame_rate,
        (width, height),
    )
    try:
        if not writer.isOpened():
            raise SyncNetError(f"{path}: OpenCV cannot write this video: is the disk full?")
        yield writer
    finally:
        writer.release()


def cut_audio(audio: Path, output: Path, *, first: int, last: int, frame_rate: int) -> None:
    """Copy the audio of some frames into another WAV file.

    Times are rounded to milliseconds, as in the published pipeline's call of ffmpeg.

    Args:
        audio: WAV file of the video's audio.
        output: WAV file to write.
        first, last: first and last frame, inclusive.
        frame_rate: frames per second.
    """
    with wave.open(str(audio), "rb") as source:
        rate, total = source.getframerate(), source.getnframes()
        start, end = (min(round(round(t / frame_rate, 3) * rate), total) for t in (first, last + 1))
        source.setpos(start)
        samples = source.readframes(end - start)
        with wave.open(str(output), "wb") as cut:
            cut.setparams(source.getparams())
            cut.writeframes(samples)


def write_crops(
    tracks: Sequence[Track],
    *,
    frames: Path,
    audio: Path,
    folder: Path,
    crop_scale: float,
    frame_rate: int,
    progress: Progress = silent,
) -> list[Path2D]:
    """Write a clip of every track: 00000.avi and so on.

    Args:
        tracks: list of ``Track``.
        frames: folder with the frames of the video.
        audio: WAV file of the video's audio.
        folder: output folder.
        crop_scale: as in ``crop_face``.
        frame_rate: frames per second.
        progress: as in ``syncnet.progress``.

    Returns:
        Crop positions of every track.
    """
    paths = [smooth(track) for track in tracks]
    write_silent_crops(
        tracks, paths, frames=frames, folder=folder, crop_scale=crop_scale, frame_rate=frame_rate, progress=progress
    )

    def add_audio(index: int) -> None:
        silent_crop, crop_audio = silent_crop_file(folder, index), crop_audio_file(folder, index)
        frame = tracks[index].frame
        cut_audio(audio, crop_audio, first=frame[0], last=frame[-1], frame_rate=frame_rate)
        conversions.mux(silent_crop, crop_audio, crop_file(folder, index), frames=len(frame))
        silent_crop.unlink()
        crop_audio.unlink()

    with ThreadPoolExecutor(MUXERS) as pool:
        list(pool.map(add_audio, range(len(tracks))))
    return paths


def write_silent_crops(
    tracks: Sequence[Track],
    paths: Sequence[Path2D],
    *,
    frames: Path,
    folder: Path,
    crop_scale: float,
    frame_rate: int,
    progress: Progress,
) -> None:
    """Write the frames of all clips, without audio, in one pass over the video; arguments as in ``write_crops``."""
    needed = sorted(set().union(*(track.frame.tolist() for track in tracks)))
    writers = {}
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(
            contextlib.closing(read_ahead((frame_file(frames, index) for index in needed), read_frame))
        )
        for index, image in zip(progress(needed, total=len(needed), desc="crops"), images):
            for number, (track, path) in enumerate(zip(tracks, paths)):
                if not track.frame[0] <= index <= track.frame[-1]:
                    continue
                if index == track.frame[0]:
                    writer = video_writer(
                        silent_crop_file(folder, number), frame_rate=frame_rate, width=CROP_SIZE, height=CROP_SIZE
                    )
                    writers[number] = stack.enter_context(writer)
                at = index - track.frame[0]
                crop = crop_face(image, s=path.s[at], x=path.x[at], y=path.y[at], crop_scale=crop_scale)
                writers[number].write(crop)
                if index == track.frame[-1]:
                    writers.pop(number).release()
