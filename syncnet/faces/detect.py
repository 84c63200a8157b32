"""Faces of every frame of a video."""

import contextlib
import itertools
import statistics
from dataclasses import dataclass
from typing import Any, Protocol

import cv2

from syncnet.faces.tracks import Face
from syncnet.media.frames import batches, read_ahead, read_frame

CONFIDENCE = 0.9  # a detection must be surer than this
BATCH_PIXELS = 480 * 270  # of pictures that go through the network together
BATCH_FRAMES = 32  # at most, however small they become: they wait in full size


class Detector(Protocol):
    """What finds faces for the pipeline: the whole contract of a face detector.

    Attributes:
        device: torch device; batches are detected in parallel streams if it is the CPU.
        weights: ``models.weights.Weights`` for the recipe, or None.
    """

    device: Any
    weights: Any

    def detect_batch(self, images, conf_th, scales):
        """Find the faces of images of one size.

        Args:
            images: N x H x W x 3 array, uint8, RGB.
            conf_th: only faces with a higher score count.
            scales: list of factors by which the images are resized before detection.

        Returns:
            List of N arrays of faces x 5: x1, y1, x2, y2 in pixels of the image, and score; best first.
        """


def detect_faces(files, detector, *, facedet_scale):
    """Faces of a video's pictures.

    Args:
        files: iterable of paths, in order; all pictures are of one size.
        detector: a ``Detector``.
        facedet_scale: factor by which the pictures are made smaller for the detector.

    Yields:
        Per frame a list of ``Face``, best first.
    """
    from syncnet.models.devices import (
        in_lanes,  # and torch with it, which takes a second to load: ffmpeg runs meanwhile
    )

    pictures = read_ahead(files, lambda path: cv2.cvtColor(read_frame(path), cv2.COLOR_BGR2RGB))
    index = 0

    def detect(batch):
        return detector.detect_batch(batch, conf_th=CONFIDENCE, scales=[facedet_scale])

    with contextlib.closing(pictures):
        for found in in_lanes(detect, sized_batches(pictures, facedet_scale), detector.device):
            for rows in found:
                yield [Face(frame=index, bbox=tuple(map(float, row[:4])), conf=float(row[4])) for row in rows]
                index += 1


def sized_batches(pictures, facedet_scale):
    """Batches of as many pictures as ``BATCH_PIXELS`` allows at the scale."""
    first = next(pictures, None)
    if first is not None:
        size = batch_size(first.shape[0] * first.shape[1], facedet_scale)
        yield from batches(itertools.chain([first], pictures), size)


def batch_size(pixels, facedet_scale):
    """How many pictures of so many pixels go through the network together."""
    return min(max(1, round(BATCH_PIXELS / (pixels * facedet_scale**2))), BATCH_FRAMES)


@dataclass(frozen=True)
class Summary:
    """What a video's faces are like.

    Attributes:
        frames: frames of the video.
        frames_with_faces: frames in which at least one was found.
        most_faces: faces in the frame that has most.
        smallest, median, largest: the larger of width and height over all faces, in pixels; None without faces.
    """

    frames: int
    frames_with_faces: int
    most_faces: int
    smallest: float | None
    median: float | None
    largest: float | None


def summarise(faces):
    """The ``Summary`` of per-frame lists of ``Face``."""
    sizes = sorted(max(f.bbox[2] - f.bbox[0], f.bbox[3] - f.bbox[1]) for of_frame in faces for f in of_frame)
    return Summary(
        frames=len(faces),
        frames_with_faces=sum(map(bool, faces)),
        most_faces=max(map(len, faces), default=0),
        smallest=sizes[0] if sizes else None,
        median=statistics.median(sizes) if sizes else None,
        largest=sizes[-1] if sizes else None,
    )
