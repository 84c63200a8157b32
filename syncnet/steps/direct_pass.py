"""The stream of the direct pass: decoder, detector, cropper and SyncNet work at the same time, on a few frames."""

from __future__ import annotations

import bisect
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import torch

from syncnet.constants import WINDOW_FRAMES
from syncnet.faces.crops import CROP_SIZE, crop_region, smooth
from syncnet.faces.detect import CONFIDENCE, Detector, batch_size
from syncnet.faces.follow import Chain, Follower
from syncnet.faces.on_device import DevicePicture
from syncnet.faces.scenes import Cuts, small_size
from syncnet.faces.tracks import Face, Path2D, Track
from syncnet.media.pictures import AnyPicture, Picture, even
from syncnet.models.devices import batch_factor, new_pool, worker_count
from syncnet.sync import scoring
from syncnet.sync.stream import AudioFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syncnet.models.fast import FastSyncNet

QUEUED = 2  # jobs that wait for each worker
SPARSE = 2  # where faces hardly move they are looked for this many times less often
LARGEST_BATCH = 4  # frames of a detection batch; those between them stay in memory as well
GPU_BATCH = 8  # frames of a detection batch on a GPU
UNCONFIRMED = 250  # frames of a face that wait for ``min_track``; longer ones are scored before it is reached
NEARLY = 0.7  # of ``min_face_size``: faces from this size on are looked for in every frame where they come and go
OVERLAP = WINDOW_FRAMES - 1


Crop = np.ndarray | torch.Tensor


def stacked(crops: Sequence[Crop]) -> Crop:
    """Return crops as one array or tensor."""
    return torch.stack(list(crops)) if isinstance(crops[0], torch.Tensor) else np.stack(crops)  # type: ignore[arg-type]


class Workers:
    """Threads that run networks, each with an equal share of torch's threads; ``run`` waits while they are busy.

    Args:
        device: device of the networks.
    """

    def __init__(self, device: torch.device) -> None:
        self.count, self.pool = worker_count(device), new_pool(device)
        self.free = threading.BoundedSemaphore(self.count + QUEUED)

    def run(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        """Call a function in one of the threads."""
        self.free.acquire()
        future = self.pool.submit(function, *arguments)
        future.add_done_callback(lambda done: self.free.release())
        return future

    def close(self) -> None:
        """End the threads; functions that have not begun are not called."""
        self.pool.shutdown(cancel_futures=True)


@dataclass
class Windows:
    """The windows of one face, on their way through SyncNet.

    Attributes:
        first: frame of the first window that has not been given to the network.
        crops: frames from ``first`` on.
        waiting: distances that are being computed: first window, and the future.
        done: distances, N x (2 * vshift + 1) each.
    """

    first: int
    crops: list[Crop] = field(default_factory=list)
    waiting: deque[tuple[int, Future[np.ndarray]]] = field(default_factory=deque)
    done: list[np.ndarray] = field(default_factory=list)

    @property
    def needed(self) -> int:
        """First window whose audio features are still needed."""
        return self.waiting[0][0] if self.waiting else self.first

    def settle(self, *, wait: bool = False) -> None:
        """Take over the distances that are known, or all."""
        while self.waiting and (wait or self.waiting[0][1].done()):
            self.done.append(self.waiting.popleft()[1].result())


class Lips:
    """Computes the distances of all faces.

    Args:
        net: SyncNet.
        audio: audio features of the video.
        workers: ``Workers``.
        vshift, batch_size: as in ``SyncNetInstance.score``.
    """

    def __init__(
        self, net: FastSyncNet, audio: AudioFeatures, workers: Workers, *, vshift: int, batch_size: int
    ) -> None:
        self.net, self.audio, self.workers, self.vshift = net, audio, workers, vshift
        self.size = max(1, batch_size * batch_factor(net.device) // net.group) * net.group + OVERLAP

    def submit(self, windows: Windows, *, rest: bool = False) -> None:
        """Give complete batches of a face to the network.

        Args:
            windows: the ``Windows`` of the face.
            rest: also give it the frames that do not fill a batch: the face has no more.
        """
        while len(windows.crops) >= (OVERLAP + 1 if rest else self.size):
            batch = stacked(windows.crops[: self.size])
            windows.waiting.append((windows.first, self.workers.run(self._distances, batch, windows.first)))
            windows.first += len(batch) - OVERLAP
            del windows.crops[: len(batch) - OVERLAP]
        if rest:
            windows.crops.clear()
        windows.settle()

    def dists(self, windows: Windows) -> np.ndarray:
        """Return all distances of a face, windows x (2 * vshift + 1), once they are computed."""
        windows.settle(wait=True)
        return np.concatenate([np.zeros((0, 2 * self.vshift + 1), np.float32), *windows.done])

    def _distances(self, crops: np.ndarray | torch.Tensor, first: int) -> np.ndarray:
        video = self.net.video_features(crops)
        audio = self.audio.span(first - self.vshift, first + len(video) + self.vshift)
        return scoring.shifted_distances(video, audio).cpu().numpy()


@dataclass(frozen=True)
class Prepared:
    """A picture with all that its turn needs.

    Attributes:
        small: the picture at ``small_size``, H x W x 3 array, uint8, BGR.
        picture: the picture.
    """

    small: np.ndarray
    picture: AnyPicture | DevicePicture


@dataclass(frozen=True)
class ScoredTrack:
    """A face track with its distances.

    Attributes:
        track: the ``Track``.
        dists: windows x (2 * vshift + 1) array of distances; of a track without a full window, no rows.
    """

    track: Track
    dists: np.ndarray


@dataclass
class Seen:
    """What was seen of the faces in all frames.

    Attributes:
        faces: faces by the index of the frame, of the frames that were looked at.
        cuts: frames that begin a scene.
        frames: number of frames.
        longest: number of frames with the face that was found in most, among all, kept or not.
        largest: ``Track.size`` of the largest face among those in enough frames; None without such a face.
    """

    faces: dict[int, list[Face]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    frames: int = 0
    longest: int = 0
    largest: float | None = None


class Stream(Protocol):
    """Interface of ``CropPass`` and ``DirectPass``, which make different things of a picture before its turn."""

    @property
    def lips(self) -> Lips: ...

    @property
    def seen(self) -> Seen: ...

    def prepare(self, picture: AnyPicture) -> Any: ...

    def add(self, prepared: Any) -> None: ...

    def finish(self) -> list[ScoredTrack]: ...


class CropPass:
    """Scores one face in a stream of pictures, whose place in all of them is known.

    Args:
        lips: ``Lips``.
        boxes: N x 4 array, the face's box in every picture, x1 y1 x2 y2 in pixels; None if every picture is a face
            crop already, which is only resized.
        crop_scale: as in ``crop_face``.

    Attributes:
        seen: ``Seen``.
    """

    def __init__(self, lips: Lips, *, boxes: np.ndarray | None = None, crop_scale: float = 0.0) -> None:
        self.lips, self.crop_scale = lips, crop_scale
        self.seen = Seen()
        self.windows = Windows(0)
        self.size = (0, 0)
        self.boxes = boxes
        self.path = None if boxes is None else smooth(Track(np.arange(len(boxes)), boxes, len(boxes)))

    def prepare(self, picture: AnyPicture) -> AnyPicture:
        """Return the picture: nothing can be done with it before its turn."""
        return picture

    def add(self, prepared: AnyPicture) -> None:
        """Add the next picture."""
        self.size = prepared.width, prepared.height
        crop: Crop
        if self.path is None:
            crop = cv2.resize(prepared.bgr(), (CROP_SIZE, CROP_SIZE))
        else:
            crop = cut_out(prepared, self.path, self.seen.frames, crop_scale=self.crop_scale)
        self.windows.crops.append(crop)
        self.seen.frames += 1
        self.lips.submit(self.windows)
        self.lips.audio.forget(self.windows.needed - self.lips.vshift)

    def finish(self) -> list[ScoredTrack]:
        """End the stream, and return the only track; none if there was no picture."""
        self.lips.submit(self.windows, rest=True)
        count = self.seen.frames
        boxes = np.tile([0.0, 0.0, *self.size], (count, 1)) if self.boxes is None else self.boxes
        track = Track(np.arange(count), boxes, count)
        return [ScoredTrack(track, self.lips.dists(self.windows))] if count else []


def prepare(picture: AnyPicture, device: torch.device | None) -> Prepared:
    """Do what can be done with a picture before its turn: this runs in the decoder's thread.

    Args:
        picture: the picture.
        device: GPU to copy it to; None to leave it in main memory.
    """
    on_device = DevicePicture.of(picture, device) if device and isinstance(picture, Picture) else picture
    return Prepared(small_image(picture), on_device)


def small_image(picture: AnyPicture) -> np.ndarray:
    """Return a picture at ``small_size``, H x W x 3 array, uint8, BGR."""
    return picture.resized(*map(even, small_size(picture.width, picture.height))).bgr()


def cut_out(picture: AnyPicture | DevicePicture, path: Path2D, index: int, *, crop_scale: float) -> Crop:
    """Return a face's crop, 224 x 224 x 3, uint8, BGR, at a position of its path."""
    if isinstance(picture, DevicePicture):
        return picture.crop(s=path.s[index], x=path.x[index], y=path.y[index], crop_scale=crop_scale)
    return crop_region(
        picture.region,
        height=picture.height,
        width=picture.width,
        s=path.s[index],
        x=path.x[index],
        y=path.y[index],
        crop_scale=crop_scale,
    )


class DirectPass:
    """Finds and scores the faces in a stream of pictures.

    Args:
        detector: ``Detector``.
        lips: ``Lips``.
        workers: ``Workers``.
        settings: ``steps.direct.DirectSettings``.
        device: GPU to copy pictures to; None to leave them in main memory.

    Attributes:
        seen: ``Seen``.
    """

    def __init__(
        self,
        detector: Detector,
        lips: Lips,
        workers: Workers,
        settings: Any,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.detector, self.lips, self.workers, self.settings = detector, lips, workers, settings
        self.device = device
        self.seen = Seen()
        self.pictures: dict[int, AnyPicture | DevicePicture] = {}
        self.cuts = Cuts(threshold=settings.scene_threshold)
        self.follower = Follower(num_failed_det=settings.num_failed_det)
        self.windows: dict[int, Windows] = {}  # of the chains that are tracks, by their index in the follower
        self.live: dict[int, Windows] = {}  # of the chains that have not ended
        self.finishing: list[Windows] = []  # of those that have, while distances are computed
        self.scene = self.next_look = 0
        self.last_look = self.linked = -1
        self.begun = self.oldest = 0
        self.batch: list[int] = []
        self.looks: deque[tuple[list[int], Future[list[list[Face]]]] | None] = deque()  # None: the scene ends

    def prepare(self, picture: AnyPicture) -> Prepared:
        """Return a picture with all that its turn needs; another thread may do this ahead of it."""
        return prepare(picture, self.device)

    def add(self, prepared: Prepared) -> None:
        """Add the next picture."""
        self.pictures[self.seen.frames] = prepared.picture
        self.seen.frames += 1
        self.cuts.add(prepared.small)
        self._plan()
        while self.looks and (len(self.looks) > self.workers.count + QUEUED or self._known()):
            self._look_done()

    def finish(self) -> list[ScoredTrack]:
        """End the stream, and return the tracks in the published order: by scene and first frame."""
        self.cuts.finish()
        self._plan(final=True)
        while self.looks:
            self._look_done()
        self.seen.cuts = self.cuts.known
        found = []
        for index in sorted(self.windows):
            chain, windows = self.follower.chains[index], self.windows[index]
            found.append(ScoredTrack(chain.track(), self.lips.dists(windows)))
        return found

    def _known(self) -> bool:
        """Return True if the next result of the detector, or the next end of a scene, waits for nothing."""
        return self.looks[0] is None or self.looks[0][1].done()

    def _plan(self, *, final: bool = False) -> None:
        """Plan in which frames to look for faces, as far as the scenes are known.

        These are every n-th frame of a scene, and its last one; ``_follow`` adds others where faces move, come or go.
        """
        step = self.settings.detect_every * (SPARSE if self.settings.detect_every > 1 else 1)
        while True:
            known = self.cuts.known
            after = bisect.bisect_right(known, self.scene)
            cut = known[after] if after < len(known) else self.seen.frames if final else None
            end = cut if cut is not None and (final or cut <= self.cuts.settled) else None
            if end is not None and self.next_look >= end:
                if self.last_look < end - 1:
                    self._look(end - 1)
                self._look_now()
                self.looks.append(None)
                self.scene = self.next_look = end
                if end >= self.seen.frames:
                    return
            elif self.next_look < self.cuts.settled:
                self._look(self.next_look)
                self.next_look += step
            else:
                return

    def _look(self, frame: int) -> None:
        """Look for faces in a frame, together with a few others."""
        self.batch.append(frame)
        self.last_look = frame
        if len(self.batch) >= self._batch_size(self.pictures[frame]):
            self._look_now()

    def _batch_size(self, picture: AnyPicture | DevicePicture) -> int:
        """Return the number of pictures of a batch of the detector."""
        fitting = min(LARGEST_BATCH, batch_size(picture.width * picture.height, self.settings.facedet_scale))
        return max(fitting, GPU_BATCH if isinstance(picture, DevicePicture) else 1)

    def _look_now(self) -> None:
        if self.batch:
            self.looks.append((self.batch, self._detect(self.batch)))
            self.batch = []

    def _detect(self, frames: Sequence[int]) -> Future[list[list[Face]]]:
        return self.workers.run(self._faces, list(frames), [self.pictures[frame] for frame in frames])

    def _faces(self, frames: Sequence[int], pictures: Sequence[AnyPicture | DevicePicture]) -> list[list[Face]]:
        """Detect the faces in pictures, at the size given by ``facedet_scale``."""
        scale = self.settings.facedet_scale
        width, height = pictures[0].width, pictures[0].height
        small = even(width * scale), even(height * scale)
        factors = np.array([width / small[0], height / small[1]] * 2)
        found = self._detected(pictures, small)
        return [
            [Face(frame=frame, bbox=tuple(map(float, row[:4] * factors)), conf=float(row[4])) for row in rows]
            for frame, rows in zip(frames, found)
        ]

    def _detected(self, pictures: Sequence[AnyPicture | DevicePicture], size: tuple[int, int]) -> list[np.ndarray]:
        """Detect the faces in pictures at a size: per picture an array, faces x 5, in pixels of that size."""
        if isinstance(pictures[0], DevicePicture):
            tensors = [picture.rgb(*size) for picture in pictures if isinstance(picture, DevicePicture)]
            return self.detector.detect_tensor(torch.stack(tensors), conf_th=CONFIDENCE)  # type: ignore[attr-defined]
        images = [picture.resized(*size).rgb() for picture in pictures if not isinstance(picture, DevicePicture)]
        return self.detector.detect_batch(np.stack(images), conf_th=CONFIDENCE, scales=[1.0])

    def _look_done(self) -> None:
        """Take over the next result of the detector, or the end of a scene."""
        item = self.looks.popleft()
        if item is None:
            self.follower.end_scene()
            self._crop()
            return
        frames, future = item
        for frame, faces in zip(frames, future.result()):
            self._follow(frame, faces)

    def _follow(self, frame: int, faces: list[Face]) -> None:
        """Link the faces of a frame to tracks, after looking at frames before it if faces moved, came or went."""
        least = self.settings.min_face_size * NEARLY
        before, every = self.follower.looked, self.settings.detect_every
        if before is not None and before + every < frame and not self.follower.still(faces, least_size=least):
            self._follow(before + every, self._look_at([before + every])[0])
            before = self.follower.looked
        if before is not None and before < frame - 1 and self.follower.unsettled(faces, least_size=least):
            between = range(before + 1, frame)
            for index, of_frame in zip(between, self._look_at(between)):
                self._link(index, of_frame)
        self._link(frame, faces)
        self._crop()

    def _look_at(self, frames: Sequence[int]) -> list[list[Face]]:
        """Look for faces in frames at once: they depend on what was found around them."""
        size = self._batch_size(self.pictures[frames[0]])
        batches = [self._detect(frames[at : at + size]) for at in range(0, len(frames), size)]
        return [faces for batch in batches for faces in batch.result()]

    def _link(self, frame: int, faces: list[Face]) -> None:
        self.seen.faces[frame] = faces
        self.follower.add(frame, faces)
        self.linked = frame

    def _crop(self) -> None:
        """Crop what is known well enough, score it, and forget what nobody needs any more."""
        chains = self.follower.chains
        for index in range(self.begun, len(chains)):
            self.live[index] = Windows(chains[index].first)
        self.begun = len(chains)
        for index, windows in list(self.live.items()):
            self._crop_chain(chains[index], windows)
            if chains[index].ended:
                self._conclude(index, self.live.pop(index))
        oldest = min([self.linked + 1, *(chains[index].cropped for index in self.live)])
        for frame in range(self.oldest, oldest):
            del self.pictures[frame]
        self.oldest = max(self.oldest, oldest)
        for windows in self.finishing:
            windows.settle()
        self.finishing = [windows for windows in self.finishing if windows.waiting]
        needed = (windows.needed for windows in (*self.live.values(), *self.finishing))
        self.lips.audio.forget(min([self.oldest, *needed]) - self.lips.vshift)

    def _crop_chain(self, chain: Chain, windows: Windows) -> None:
        """Crop a face in the frames in which its position is known, and score the windows that are complete."""
        first, last = chain.cropped, chain.ready()
        if first < last:
            path = chain.path(first, last)
            for at, frame in enumerate(range(first, last)):
                crop = cut_out(self.pictures[frame], path, at, crop_scale=self.settings.crop_scale)
                windows.crops.append(crop)
            chain.cropped = last
        if chain.found > self.settings.min_track or len(windows.crops) > UNCONFIRMED:
            self.lips.submit(windows)

    def _conclude(self, index: int, windows: Windows) -> None:
        """Decide whether a face that is lost was there for long enough, and is large enough, to be a track."""
        chain = self.follower.chains[index]
        self.seen.longest = max(self.seen.longest, chain.found)
        if chain.found <= self.settings.min_track:
            return
        size = chain.track().size
        self.seen.largest = max(size, self.seen.largest or 0.0)
        if size > self.settings.min_face_size:
            self.lips.submit(windows, rest=True)
            self.windows[index] = windows
            self.finishing.append(windows)
