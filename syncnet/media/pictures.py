"""Pictures as the decoder gives them, of which only the needed part is converted to colours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from av.video.reformatter import ColorRange

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMAT = "yuv420p"
FULL_TURN, QUARTER_TURN = 360, 90  # degrees
# Pixels are taken to be square unless they are wider or higher by this factor: encoders round the ratio, and faces are
# found all the same. Beyond the other factor the ratio is damaged.
LEAST_STRETCH, LARGEST_STRETCH = 1.01, 8.0


@dataclass(frozen=True)
class Picture:
    """A picture in the format of most videos: full brightness, and colours at half the size.

    Colours become red, green and blue by BT.601, whatever the file declares, as in the published pipeline.

    Attributes:
        planes: 3H/2 x W array, uint8: H x W brightness, then two planes of H/2 x W/2 colours (I420, limited range).
    """

    planes: np.ndarray

    @property
    def height(self) -> int:
        return self.planes.shape[0] * 2 // 3

    @property
    def width(self) -> int:
        return self.planes.shape[1]

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the brightness, H x W, and both planes of colour, H/2 x W/2."""
        height, width = self.height, self.width
        u, v = self.planes[height:].reshape(2, height // 2, width // 2)
        return self.planes[:height], u, v

    def region(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Return a part of the picture.

        Args:
            top, bottom, left, right: its edges in pixels, inside the picture; bottom and right are exclusive.

        Returns:
            (bottom - top) x (right - left) x 3 array, uint8, BGR.
        """
        y0, x0 = top - top % 2, left - left % 2
        y1, x1 = bottom + bottom % 2, right + right % 2
        brightness, u, v = self.parts()
        inner = join(
            brightness[y0:y1, x0:x1],
            *(plane[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for plane in (u, v)),
        )
        return cv2.cvtColor(inner, cv2.COLOR_YUV2BGR_I420)[top - y0 : bottom - y0, left - x0 : right - x0]

    def bgr(self) -> np.ndarray:
        """Return the whole picture, H x W x 3 array, uint8, BGR."""
        return cv2.cvtColor(self.planes, cv2.COLOR_YUV2BGR_I420)

    def rgb(self) -> np.ndarray:
        """Return the whole picture, H x W x 3 array, uint8, RGB."""
        return cv2.cvtColor(self.planes, cv2.COLOR_YUV2RGB_I420)

    def resized(self, width: int, height: int) -> Picture:
        """Return the picture at another size, by linear interpolation as ``cv2.resize`` does.

        Args:
            width, height: even numbers of pixels.
        """
        if (width, height) == (self.width, self.height):
            return self
        brightness, u, v = self.parts()
        return Picture(
            join(
                cv2.resize(brightness, (width, height)),
                *(cv2.resize(plane, (width // 2, height // 2)) for plane in (u, v)),
            )
        )


@dataclass(frozen=True)
class Pixels:
    """A picture of which every pixel has its own colour, with the methods of ``Picture``.

    Attributes:
        pixels: H x W x 3 array, uint8, BGR.
    """

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def region(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Return a part of the picture, as ``Picture.region`` does."""
        return self.pixels[top:bottom, left:right]

    def bgr(self) -> np.ndarray:
        """Return the whole picture, H x W x 3 array, uint8, BGR."""
        return self.pixels

    def rgb(self) -> np.ndarray:
        """Return the whole picture, H x W x 3 array, uint8, RGB."""
        return cv2.cvtColor(self.pixels, cv2.COLOR_BGR2RGB)

    def resized(self, width: int, height: int) -> Pixels:
        """Return the picture at another size, by linear interpolation as ``cv2.resize`` does."""
        return Pixels(cv2.resize(self.pixels, (width, height)))


AnyPicture = Picture | Pixels


def join(brightness: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return three planes as ``Picture.planes``."""
    height, width = brightness.shape
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = brightness
    planes[height:].reshape(2, height // 2, width // 2)[:] = u, v
    return planes


def even(size: float) -> int:
    """Return the nearest even number of pixels, at least 2."""
    return max(2, 2 * round(size / 2))


def pixel_aspect(stream: VideoStream) -> float:
    """Return the width of a stream's pixels by their height; 1 also where they are nearly square."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if aspect > 0 and LEAST_STRETCH <= max(aspect, 1 / aspect) <= LARGEST_STRETCH else 1.0


def square_size(width: int, height: int, aspect: float) -> tuple[int, int]:
    """Return the size at which pixels are square, in even numbers; nothing gets smaller.

    Args:
        width, height: size of the picture, in pixels.
        aspect: width of a pixel, by its height.
    """
    across, down = square_scale(aspect)
    return even(width * across), even(height * down)


def square_scale(aspect: float) -> tuple[float, float]:
    """Return the factors by which ``square_size`` enlarges x and y, apart from rounding."""
    return max(aspect, 1), 1 / min(aspect, 1)


def face_scale(aspect: float) -> float:
    """Return the factor between the size of a face where pixels are square, and as found in the picture as stored.

    The detector takes a squeezed face for one that is lower, and a stretched one for one that is narrower, than it is:
    sizes are near the geometric mean.
    """
    across, down = square_scale(aspect)
    return math.sqrt(across * down)


def quarter_turns(frame: VideoFrame) -> int:
    """Return by how many quarters a player turns a frame, anticlockwise."""
    return round(frame.rotation / QUARTER_TURN) % (FULL_TURN // QUARTER_TURN)


def shown_aspect(aspect: float, frame: VideoFrame) -> float:
    """Return the width of a pixel by its height once a player has turned the frame."""
    return 1 / aspect if aspect != 1 and quarter_turns(frame) % 2 else aspect


def shown_size(frame: VideoFrame, aspect: float) -> tuple[int, int]:
    """Return width and height of a frame as a player shows it: turned, and with square pixels.

    Args:
        frame: the frame.
        aspect: from ``shown_aspect``.
    """
    sides = (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)
    return square_size(*sides, aspect)


def picture(frame: VideoFrame, *, size: tuple[int, int] | None = None) -> Picture:
    """Convert a decoded frame to a ``Picture``, turned as a player shows it.

    Args:
        frame: the frame.
        size: width and height of the result in pixels, even numbers; None for those of the frame. Within a video all
            pictures get the size of the first.
    """
    turns = quarter_turns(frame)
    if size is not None and turns % 2:
        size = size[1], size[0]
    width, height = size or (frame.width - frame.width % 2, frame.height - frame.height % 2)
    full_range = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    same_size = (frame.width, frame.height) == (width, height)
    if frame.format.name != FORMAT or full_range or not same_size:
        frame = frame.reformat(
            width=max(width, 2),
            height=max(height, 2),
            format=FORMAT,
            src_color_range=ColorRange.JPEG if full_range else None,
            dst_color_range=ColorRange.MPEG if full_range else None,
        )
    found = Picture(frame.to_ndarray())
    if not turns:
        return found
    return Picture(join(*(np.rot90(part, turns) for part in found.parts())))
