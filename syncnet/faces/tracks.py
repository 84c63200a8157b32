"""From faces of single frames to tracks of one face through time."""

from dataclasses import dataclass

import numpy as np

TRACK_IOU = 0.5  # overlap of a face with its track's last one


@dataclass(frozen=True)
class Face:
    """A face of one frame.

    Attributes:
        frame: index of the frame.
        bbox: x1, y1, x2, y2 in pixels.
        conf: the detector's score, 0 to 1.
    """

    frame: int
    bbox: tuple
    conf: float


@dataclass(frozen=True)
class Track:
    """One face through time, in every frame from the first to the last.

    Attributes:
        frame: N consecutive frame indices.
        bbox: N x 4 array, x1 y1 x2 y2 in pixels.
        found: in how many of the frames the face was detected.
    """

    frame: np.ndarray
    bbox: np.ndarray
    found: int

    @property
    def size(self):
        """The larger of mean width and mean height, in pixels."""
        return float((self.bbox[:, 2:] - self.bbox[:, :2]).mean(axis=0).max())


@dataclass(frozen=True)
class Path2D:
    """Where a track's crops lie, smoothed.

    Attributes:
        s: N half-sizes, in pixels.
        x, y: N centres, in pixels.
    """

    s: np.ndarray
    x: np.ndarray
    y: np.ndarray


def iou(a, b):
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (areas - both)


def link_faces(faces, *, num_failed_det):
    """Chains of faces that overlap from frame to frame.

    A chain begins with the first face that is left. It takes every face that overlaps its last one by an IoU above
    ``TRACK_IOU``, and ends where none did for more than ``num_failed_det`` frames. Quirk kept for comparability: the
    face that follows a taken one in its frame is passed over, and left for later chains.

    Args:
        faces: per frame a list of ``Face``.
        num_failed_det: frames that a face may be missing for.

    Returns:
        List of lists of ``Face``.
    """
    left = [list(of_frame) for of_frame in faces]
    chains = []
    for first in range(len(left)):
        while left[first]:
            chains.append(take_chain(left, first, num_failed_det=num_failed_det))
    return chains


def take_chain(left, first, *, num_failed_det):
    """Move one chain out of ``left``, from frame ``first`` on."""
    chain = []
    for of_frame in left[first:]:
        index = 0
        while index < len(of_frame):
            face = of_frame[index]
            if chain and face.frame - chain[-1].frame > num_failed_det:
                return chain
            if not chain or iou(face.bbox, chain[-1].bbox) > TRACK_IOU:
                chain.append(of_frame.pop(index))
            index += 1  # after a pop this passes over the next face
    return chain


def interpolate(chain):
    """A chain of faces as a ``Track``, linear where the face was missed."""
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
        tracks: the tracks that are kept.
        longest: faces in the longest chain, kept or not.
        largest: ``Track.size`` of the largest chain that was long enough, kept or not; None without one.
    """

    tracks: list
    longest: int
    largest: float | None


def track_faces(faces, scenes, *, min_track, num_failed_det, min_face_size):
    """Tracks of every scene of at least ``min_track`` frames.

    Args:
        faces: per frame a list of ``Face``.
        scenes: list of ``Scene``; one may end past the last frame.
        min_track: a track has more faces than this.
        num_failed_det: frames that a face may be missing for.
        min_face_size: a track's ``size`` is above this, in pixels.
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
