"""Face tracking in a stream of frames, of which only some are looked at; the rules are those of ``tracks``."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from syncnet.faces.crops import SMOOTHING, smooth
from syncnet.faces.tracks import TRACK_IOU, Face, Path2D, Track, Tracking, iou

if TYPE_CHECKING:
    from syncnet.faces.scenes import Scene

STILL_IOU = 0.85  # faces that overlap by more have hardly moved
MARGIN = SMOOTHING // 2  # frames before and after a frame that its crop's position depends on


@dataclass
class Chain:
    """The faces of one person in a scene, found so far.

    Attributes:
        scene: index of the scene.
        faces: the found faces, one per frame that was looked at and has it.
        found: number of frames with the face: those in which it was found, and those between two such frames if no
            frame between them was looked at.
        cropped: first frame that has not been cropped yet.
        ended: True once the face is lost or the scene has ended.
    """

    scene: int
    faces: list[Face]
    found: int = 1
    cropped: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.cropped = self.first

    @property
    def first(self) -> int:
        return self.faces[0].frame

    @property
    def last(self) -> int:
        return self.faces[-1].frame

    def track(self) -> Track:
        """Return the chain as a ``Track``."""
        boxes, numbers = np.array([f.bbox for f in self.faces]), np.array([f.frame for f in self.faces])
        return between(numbers, boxes, self.first, self.last + 1, found=self.found)

    def ready(self) -> int:
        """Return the first frame whose crop's position may still change."""
        return self.last + 1 if self.ended else max(self.cropped, self.last - MARGIN + 1)

    def path(self, first: int, last: int) -> Path2D:
        """Return the smoothed crop positions of frames ``first`` to ``last`` (exclusive), before ``ready``."""
        start, end = max(self.first, first - MARGIN), min(self.last + 1, last + MARGIN)
        # the faces whose positions these frames are interpolated from
        low = next(i for i in range(len(self.faces) - 1, -1, -1) if self.faces[i].frame <= start)
        faces = self.faces[low:]
        part = between(np.array([f.frame for f in faces]), np.array([f.bbox for f in faces]), start, end)
        found = smooth(part)
        here = slice(first - start, last - start)
        return Path2D(s=found.s[here], x=found.x[here], y=found.y[here])


def between(numbers: np.ndarray, boxes: np.ndarray, first: int, last: int, *, found: int = 0) -> Track:
    """Return frames ``first`` to ``last`` (exclusive) of a track, by linear interpolation between found boxes.

    Args:
        numbers: N frame indices in which the face was found.
        boxes: N x 4 array, its boxes there.
        first, last: frames of the result.
        found: as in ``Track``.
    """
    frames = np.arange(first, last)
    return Track(frame=frames, bbox=np.stack([np.interp(frames, numbers, side) for side in boxes.T], 1), found=found)


@dataclass
class Follower:
    """Links the faces of one frame after another to chains, as ``tracks.link_faces`` does.

    That function completes one chain after another. The result is the same, because a chain only sees the faces that
    earlier chains have left, and those of a frame are known when the frame is.

    Attributes:
        num_failed_det: number of frames for which a face may be missing.
        chains: all chains, in the order in which they began.
        open: chains that have not ended.
        looked: frames that were looked at since the scene began; the last one only.
    """

    num_failed_det: int
    chains: list[Chain] = field(default_factory=list)
    open: list[Chain] = field(default_factory=list)
    scene: int = 0
    looked: int | None = None

    def add(self, frame: int, faces: Sequence[Face]) -> None:
        """Add the faces of the next frame that was looked at."""
        left = list(faces)
        self._close(lambda chain: frame - chain.last > self.num_failed_det)
        for chain in self.open:
            self._take(chain, left)
        while left:
            chain = Chain(self.scene, [left.pop(0)])
            # as everywhere, the face after a taken one is left for later chains
            self._take(chain, left, skip=True)
            self.chains.append(chain)
            self.open.append(chain)
        self.looked = frame

    def end_scene(self) -> None:
        """End all chains: the next frame belongs to another scene."""
        self._close(lambda chain: True)
        self.scene += 1
        self.looked = None

    def still(self, faces: Sequence[Face], *, least_size: float) -> bool:
        """Return True if the faces of a frame are those of the frame looked at before, and have hardly moved.

        Args:
            faces, least_size: as in ``unsettled``.
        """
        before = [chain.faces[-1] for chain in self.open if chain.last == self.looked]

        def all_near(these: Sequence[Face], those: Sequence[Face]) -> bool:
            large = (face for face in these if size_of(face) >= least_size)
            return all(any(iou(face.bbox, other.bbox) > STILL_IOU for other in those) for face in large)

        return all_near(faces, before) and all_near(before, faces)

    def unsettled(self, faces: Sequence[Face], *, least_size: float) -> bool:
        """Return True if a face of a frame begins a chain, or one of the frame looked at before is missing in it.

        Args:
            faces: faces of the next frame that is looked at.
            least_size: smaller faces do not count, in pixels.
        """
        if self.looked is None:
            return False
        # one that is missing for too long may have come back in time, in a frame between
        before = [c.faces[-1] for c in self.open if all(f.frame - c.last <= self.num_failed_det for f in faces)]
        new = (f for f in faces if not any(iou(f.bbox, b.bbox) > TRACK_IOU for b in before))
        lost = (b for b in before if b.frame == self.looked and not any(iou(f.bbox, b.bbox) > TRACK_IOU for f in faces))
        return any(size_of(face) >= least_size for several in (new, lost) for face in several)

    def _take(self, chain: Chain, left: list[Face], *, skip: bool = False) -> None:
        """Move the faces that belong to a chain from ``left`` to it."""
        index = int(skip)
        while index < len(left):
            if iou(left[index].bbox, chain.faces[-1].bbox) > TRACK_IOU:
                face = left.pop(index)
                chain.found += 1 if chain.last != self.looked else face.frame - chain.last
                chain.faces.append(face)
            index += 1

    def _close(self, is_over: Callable[[Chain], bool]) -> None:
        """End the chains for which ``is_over`` returns True."""
        for chain in self.open:
            chain.ended = is_over(chain)
        self.open = [chain for chain in self.open if not chain.ended]


def follow_faces(
    faces: Mapping[int, Sequence[Face]],
    scenes: Iterable[Scene],
    *,
    min_track: int,
    num_failed_det: int,
    min_face_size: int,
) -> Tracking:
    """Find the face tracks of every scene, as ``tracks.track_faces`` does.

    Args:
        faces: faces by the index of the frame, of the frames that were looked at.
        scenes: list of ``Scene``.
        min_track, num_failed_det, min_face_size: as in ``tracks.track_faces``.
    """
    follower = Follower(num_failed_det)
    looked = sorted(faces)
    for scene in scenes:
        for frame in looked[bisect.bisect_left(looked, scene.start) : bisect.bisect_left(looked, scene.end)]:
            follower.add(frame, faces[frame])
        follower.end_scene()
    tracks = [chain.track() for chain in follower.chains if chain.found > min_track]
    return Tracking(
        tracks=[track for track in tracks if track.size > min_face_size],
        longest=max((chain.found for chain in follower.chains), default=0),
        largest=max((track.size for track in tracks), default=None),
    )


def size_of(face: Face) -> float:
    """Return the larger of a face's width and height, in pixels."""
    return max(face.bbox[2] - face.bbox[0], face.bbox[3] - face.bbox[1])
