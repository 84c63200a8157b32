"""Face detection in the frames of a video."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from syncnet.faces.tracks import Face
from syncnet.media.frames import batches, read_ahead, read_frame

if TYPE_CHECKING:
    import torch

    from syncnet.results.protocols import Weights

CONFIDENCE = 0.9  # detections must have a higher score
BATCH_PIXELS = 480 * 270  # per batch, after resizing
BATCH_FRAMES = 32  # upper limit for small frames, which are held in memory at full size


class Detector(Protocol):
    """Interface of a face detector.

    Attributes:
        device: torch device; on a CPU several batches are processed in parallel.
        weights: ``models.weights.Weights`` for the recipe, or None.
    """

    device: torch.device
    weights: Weights | None

    def detect_batch(self, images: np.ndarray, conf_th: float, scales: Sequence[float]) -> list[np.ndarray]:
        """Detect the faces in images of one size.

        Args:
            images: N x H x W x 3 array, uint8, RGB.
            conf_th: only faces with a higher score are returned.
            scales: factors by which the images are resized before detection.

        Returns:
            N arrays, faces x 5: x1, y1, x2, y2 in pixels of the image, and score; highest score first.
        """


def detect_faces(files: Iterable[Path], detector: Detector, *, facedet_scale: float) -> Iterator[list[Face]]:
    """Detect the faces in the frames of a video.

    Args:
        files: paths of the frames, in order; all frames have the same size.
        detector: ``Detector``.
        facedet_scale: factor by which frames are resized for detection.

    Yields:
        Per frame a list of ``Face``, highest score first.
    """
    # imported here because this loads torch, which takes a second, while ffmpeg is already running
    from syncnet.models.devices import in_parallel

    images = read_ahead(files, lambda path: cv2.cvtColor(read_frame(path), cv2.COLOR_BGR2RGB))
    index = 0

    def detect(batch: np.ndarray) -> list[np.ndarray]:
        return detector.detect_batch(batch, conf_th=CONFIDENCE, scales=[facedet_scale])

    with contextlib.closing(images):
        for found in in_parallel(detect, sized_batches(images, facedet_scale), detector.device):
            for rows in found:
                yield [Face(frame=index, bbox=tuple(map(float, row[:4])), conf=float(row[4])) for row in rows]
                index += 1


def sized_batches(images: Iterator[np.ndarray], facedet_scale: float) -> Iterator[np.ndarray]:
    """Group images into batches of the size that ``BATCH_PIXELS`` allows: N x H x W x 3 arrays."""
    first = next(images, None)
    if first is not None:
        size = batch_size(first.shape[0] * first.shape[1], facedet_scale)
        yield from batches(itertools.chain([first], images), size)


def batch_size(pixels: int, facedet_scale: float) -> int:
    """Return the number of images per batch.

    Args:
        pixels: number of pixels of an image.
        facedet_scale: factor by which images are resized for detection.
    """
    return min(max(1, round(BATCH_PIXELS / (pixels * facedet_scale**2))), BATCH_FRAMES)


@dataclass(frozen=True)
class Summary:
    """Statistics of the faces in a video.

    Attributes:
        frames: number of frames.
        frames_with_faces: number of frames with at least one face.
        most_faces: largest number of faces in one frame.
        smallest, median, largest: size of the faces (the larger of width and height), in pixels; None without faces.
    """

    frames: int
    frames_with_faces: int
    most_faces: int
    smallest: float | None
    median: float | None
    largest: float | None


def summarise(faces: Sequence[Sequence[Face]]) -> Summary:
    """Return the ``Summary`` of a video's faces.

    Args:
        faces: per frame a list of ``Face``.
    """
    sizes = sorted(max(f.bbox[2] - f.bbox[0], f.bbox[3] - f.bbox[1]) for of_frame in faces for f in of_frame)
    return Summary(
        frames=len(faces),
        frames_with_faces=sum(map(bool, faces)),
        most_faces=max(map(len, faces), default=0),
        smallest=sizes[0] if sizes else None,
        median=statistics.median(sizes) if sizes else None,
        largest=sizes[-1] if sizes else None,
    )
