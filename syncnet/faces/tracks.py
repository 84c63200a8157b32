"""Face tracking: links the faces of single frames to tracks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from syncnet.faces.scenes import Scene

TRACK_IOU = 0.5  # a face must overlap the last face of its track by more


@dataclass(frozen=True)
class Face:
    """A detected face in a frame.

    Attributes:
        frame: index of the frame.
        bbox: x1, y1, x2, y2 in pixels.
        conf: score of the detector, 0 to 1.
    """

    frame: int
    bbox: tuple[float, ...]
    conf: float


@dataclass(frozen=True)
class Track:
    """A face in consecutive frames.

    Attributes:
        frame: N consecutive frame indices.
        bbox: N x 4 array, x1 y1 x2 y2 in pixels.
        found: number of frames in which the face was detected; its position in the others is interpolated.
    """

    frame: np.ndarray
    bbox: np.ndarray
    found: int

    @property
    def size(self) -> float:
        """Larger of the mean width and the mean height, in pixels."""
        return float((self.bbox[:, 2:] - self.bbox[:, :2]).mean(axis=0).max())


@dataclass(frozen=True)
class Path2D:
    """Smoothed positions of the crops of a track.

    Attributes:
        s: N half-sizes of the face, in pixels.
        x, y: N coordinates of its centre, in pixels.
    """

    s: np.ndarray
    x: np.ndarray
    y: np.ndarray


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes x1, y1, x2, y2."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def link_faces(faces: Sequence[Sequence[Face]], *, num_failed_det: int) -> list[list[Face]]:
    """Link faces that overlap from frame to frame to chains.

    A chain starts with the first face that is not in a chain yet. It takes every face whose IoU with the chain's last
    face is above ``TRACK_IOU``, and ends when the face is missing for more than ``num_failed_det`` frames. Quirk kept
    for comparability: after a face is taken, the next one in the same frame is skipped and left for later chains.

    Args:
        faces: per frame a list of ``Face``.
        num_failed_det: number of frames for which a face may be missing.

    Returns:
        List of chains, each a list of ``Face``.
    """
    left = [list(of_frame) for of_frame in faces]
    chains = []
    for first in range(len(left)):
        while left[first]:
            chains.append(take_chain(left, first, num_failed_det=num_failed_det))
    return chains


def take_chain(left: list[list[Face]], first: int, *, num_failed_det: int) -> list[Face]:
    """Remove the faces of one chain, which starts in frame ``first``, from ``left`` and return them."""
    chain: list[Face] = []
    for of_frame in left[first:]:
        index = 0
        while index < len(of_frame):
            face = of_frame[index]
            if chain and face.frame - chain[-1].frame > num_failed_det:
                return chain
            if not chain or iou(face.bbox, chain[-1].bbox) > TRACK_IOU:
                chain.append(of_frame.pop(index))
            index += 1  # after a pop this skips the next face
    return chain


def interpolate(chain: list[Face]) -> Track:
    """Convert a chain of faces to a ``Track``; positions in frames without a detection are interpolated linearly."""
    found = np.array([face.frame for face in chain])
    boxes = np.array([face.bbox for face in chain])
    frames = np.arange(found[0], found[-1] + 1)
    return Track(
        frame=frames, bbox=np.stack([np.interp(frames, found, side) for side in boxes.T], axis=1), found=len(chain)
    )


@dataclass(frozen=True)
class Tracking:
    """Result of ``track_faces``.

    Attributes:
        tracks: tracks that are long and large enough.
        longest: number of faces in the longest chain, including rejected ones.
        largest: ``Track.size`` of the largest face among the chains that are long enough; None without such a chain.
    """

    tracks: list[Track]
    longest: int
    largest: float | None


def track_faces(
    faces: Sequence[Sequence[Face]], scenes: Iterable[Scene], *, min_track: int, num_failed_det: int, min_face_size: int
) -> Tracking:
    """Find the face tracks of every scene.

    Args:
        faces: per frame a list of ``Face``.
        scenes: list of ``Scene``; the last one may end after the last frame.
        min_track: a track must have more detected faces than this; scenes with fewer frames are skipped.
        num_failed_det: number of frames for which a face may be missing.
        min_face_size: ``Track.size`` must be above this, in pixels.
    """
    kept, sizes, longest = [], [], 0
    for scene in scenes:
        for chain in link_faces(faces[scene.start : scene.end], num_failed_det=num_failed_det):
            longest = max(longest, len(chain))
            if scene.end - scene.start < min_track or len(chain) <= min_track:
                continue
            track = interpolate(chain)
            sizes.append(track.size)
            if track.size > min_face_size:
                kept.append(track)
    return Tracking(tracks=kept, longest=longest, largest=max(sizes, default=None))
