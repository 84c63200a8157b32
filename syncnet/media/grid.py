"""The pictures of a video at 25 per second, by the container's own clock, without a conversion by ffmpeg."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import av

from syncnet import reasons
from syncnet.constants import FRAME_RATE
from syncnet.errors import MediaError
from syncnet.media.containers import (
    AVI,
    MICROSECONDS,
    detail_of,
    main_video,
    open_container,
    readable_packets,
    video_streams,
)
from syncnet.media.integrity import Inventory
from syncnet.media.pictures import Picture, picture, pixel_aspect, shown_aspect, shown_size

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import numpy as np
    from av.container import InputContainer
    from av.video.frame import VideoFrame

logger = logging.getLogger("syncnet")

Content = TypeVar("Content")
Frame = TypeVar("Frame")

DECODER_THREADS = 4
TIME_TOLERANCE = 1e-6  # seconds; time stamps are sums of binary fractions
LONGEST_STILL = 3600  # seconds that a picture or a hole in the sound may last; a later time stamp is damaged
SEEK_BEFORE = 1.0  # seconds: in some containers a seek does not end at a frame that can be decoded alone
FARTHEST_BACK = 1.0  # seconds by which a time stamp may go back unnoticed
REPAIRED = "the decoder had to guess a part of it"


@dataclass(frozen=True)
class GridPicture:
    """A picture of the grid.

    Attributes:
        picture: the ``Picture`` whose time stamp is nearest to the grid's time.
        late: seconds by which its time stamp is after the grid's time.
    """

    picture: Picture
    late: float


class Grid:
    """The pictures of a video at the times ``start``, ``start`` + 40 ms and so on.

    At every time it is the picture whose time stamp is nearest, so that on average none is early or late, whatever the
    frame rate. (The one that a player has on screen is up to a frame old.) A picture whose pixels are not square is
    scaled, as in a player.

    Args:
        path: the video.

    Attributes:
        start: time stamp of the first picture, in seconds.
        delay: time of the first picture in a player, whose clock starts with the container's first stream, in seconds.
        expected: number of pictures by the container's duration; 0 if unknown.
        aspect: width of a pixel by its height, in pictures that are turned but not scaled yet.
        inventory: what the container promises, and what of it cannot be read; complete after the last picture.

    Raises:
        MediaError: the file is not a media file, has no video stream, or no picture of it can be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.size: tuple[int, int] | None = None  # width and height of the pictures, once one is known
        self.container = open_container(path)
        try:
            if not video_streams(self.container):
                raise MediaError(f"{path}: has no video stream that can be decoded", code=reasons.NO_VIDEO)
            self.stream = main_video(self.container)
            self.inventory = Inventory(self.container, path)
            self.stream.thread_type = "AUTO"
            self.stream.codec_context.thread_count = DECODER_THREADS
            self.frames = self._timed()
            self.first = next(self.frames, None)
            if self.first is None:
                raise MediaError(f"{path}: no frame of it can be decoded", code=reasons.NOT_MEDIA)
        except BaseException:
            self.container.close()
            raise
        self.start = self.first[0]
        self.aspect = shown_aspect(pixel_aspect(self.stream), self.first[2])
        zero = (self.container.start_time or 0) / MICROSECONDS
        self.delay = max(0.0, self.start - zero)
        self.expected = round((self.container.duration or 0) / MICROSECONDS * FRAME_RATE)

    def __enter__(self) -> Grid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def complaint(self) -> str:
        """What the decoder could not read; empty if nothing."""
        return self.inventory.complaint

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def __iter__(self) -> Iterator[GridPicture]:
        """Yield the pictures of the grid."""

        def timed() -> Iterator[tuple[float, float, VideoFrame]]:
            assert self.first is not None
            yield self.first
            yield from self.frames

        for frame, late in nearest(timed(), start=self.start, convert=self._picture):
            yield GridPicture(frame, late)

    def at(self, frames: Iterable[int]) -> Iterator[Picture]:
        """Yield some pictures of the grid again, by seeking; where that fails, none.

        Args:
            frames: indices of pictures, ascending.
        """
        for index in frames:
            time = self.start + index / FRAME_RATE
            try:
                self.container.seek(max(0, int((time - SEEK_BEFORE) * MICROSECONDS)))
                nearest_frame = next((frame for at, usual, frame in self._timed() if at + usual / 2 > time), None)
            except (av.FFmpegError, OSError):
                return
            if nearest_frame is None:
                return
            yield self._picture(nearest_frame)

    def _picture(self, frame: VideoFrame) -> Picture:
        """Convert a frame; all get the size of the first."""
        if self.size is None and self.aspect != 1:
            self.size = shown_size(frame, self.aspect)
        found = picture(frame, size=self.size)
        self.size = self.size or (found.width, found.height)
        return found

    def _timed(self) -> Iterator[tuple[float, float, VideoFrame]]:
        """Yield time stamp and duration in seconds, and frame, in the order of their time stamps."""
        rate = self.stream.guessed_rate or self.stream.average_rate
        usual = float(1 / rate) if rate else 1 / FRAME_RATE
        last: float | None = None
        for frame in decoded(self.container, self.stream, self.inventory):
            found = seconds_of(frame, reordered=self.container.format.name == AVI)
            time = (last + usual if last is not None else 0.0) if found is None else found
            if last is not None and not last - FARTHEST_BACK <= time <= last + LONGEST_STILL:
                self.inventory.complain(f"time stamps jump from {last:.2f} to {time:.2f} s")
                if time > last:
                    return
            if last is not None and time <= last + TIME_TOLERANCE:
                continue  # a player does not show it
            last = time
            yield time, usual, frame


def seconds_of(frame: VideoFrame, *, reordered: bool) -> float | None:
    """Return the time stamp of a frame; None if it has none.

    Args:
        frame: the frame.
        reordered: the container stores no presentation times (AVI). Those that libavformat makes up for it go back
            and forth where frames are reordered (H.264), so decoding times count, as in ffmpeg and published mode.
    """
    if reordered:
        return None if frame.dts is None or frame.time_base is None else float(frame.dts * frame.time_base)
    return frame.time


def decoded(container: InputContainer, stream: Any, inventory: Inventory | None = None) -> Iterator[Any]:
    """Decode a stream, leaving out what is damaged.

    Args:
        container: the open file.
        stream: one of its streams.
        inventory: its ``Inventory``, which takes note of all packets, and of what cannot be decoded; None to read
            the packets of the stream alone.

    Yields:
        The frames.
    """

    def complain(detail: str) -> None:
        if inventory:
            inventory.complain(detail)

    for packet in readable_packets(container, *(() if inventory else (stream,)), complain=complain):
        if inventory:
            inventory.add(packet)
        if packet.stream.index != stream.index:
            continue
        try:
            found: Any = packet.decode()
        except (av.FFmpegError, OSError) as error:
            complain(detail_of(error))
            continue
        for frame in found:
            if frame.is_corrupt:
                complain(REPAIRED)
            yield frame


def nearest(
    frames: Iterable[tuple[float, float, Frame]], *, start: float, convert: Callable[[Frame], Content]
) -> Iterator[tuple[Content, float]]:
    """Yield, at every time of the grid, the frame whose time stamp is nearest.

    Args:
        frames: time stamp, duration and frame, in the order of the time stamps.
        start: first time of the grid, in seconds.
        convert: applied to each frame that is yielded, once.

    Yields:
        The converted frame, and the seconds by which its time stamp is after the grid's time.
    """
    index = 0
    last: tuple[float, float, Frame] | None = None

    def until(end: float, current: tuple[float, float, Frame]) -> Iterator[tuple[Content, float]]:
        nonlocal index
        content: Content | None = None
        while (time := start + index / FRAME_RATE) < end:
            content = convert(current[2]) if content is None else content
            yield content, current[0] - time
            index += 1

    for frame in frames:
        if last is not None:
            yield from until((last[0] + frame[0]) / 2 - TIME_TOLERANCE, last)
        last = frame
    if last is not None:
        yield from until(max(last[0] + last[1], start + 1 / FRAME_RATE) - TIME_TOLERANCE, last)


def nearest_indices(count: int, *, frame_rate: float) -> Iterator[tuple[int, float]]:
    """Yield, at every time of the grid, the index of the nearest of ``count`` frames, as ``nearest`` does."""
    timed = ((index / frame_rate, 1 / frame_rate, index) for index in range(count))
    return nearest(timed, start=0.0, convert=lambda index: index)


def read_bgr(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """Yield the pictures of the grid, H x W x 3 arrays, uint8, BGR."""
    with Grid(path) as grid:
        for found in grid:
            yield found.picture.bgr()
