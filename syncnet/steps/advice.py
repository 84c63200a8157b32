"""Advice on a video without a track: the flags that would have given one, found by trying them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, MIN_FRAMES
from syncnet.faces.detect import CONFIDENCE
from syncnet.faces.follow import size_of
from syncnet.faces.scenes import Scene, whole_scenes
from syncnet.faces.tracks import TRACK_IOU, Face, Track, Tracking, iou
from syncnet.reasons import LEAST_WINDOWS, SCENE_TOLERANCE

if TYPE_CHECKING:
    from syncnet.faces.detect import Detector
    from syncnet.steps.pipeline import PipelineSettings

SCALES = (0.05, 0.1, 0.5, 1.0)  # of facedet_scale
TRIED_FRAMES = 5
LEAST_SIZE = 18  # pixels of a face, after resizing: smaller ones are often found by chance
APART = 3  # frames between those of a pair: published mode repeats pictures of a video with few
MOST_PIXELS = 1920 * 1080  # of a detector's input: larger ones need gigabytes
FAILED_DET = (25, 50, 100)  # frames
THRESHOLDS = (35.0, 50.0, 75.0, 100.0, 150.0)  # of scenes
SAME_FACE = 0.8  # correlation of the brightness of a face's pictures before and after a cut
THUMBNAIL = 32  # pixels, side of the pictures that are correlated
MARGIN = 0.9  # of a measured size or length, for the value of a flag: they differ a little in the next run
ROUND_TO = 5  # frames
ENOUGH_FRAMES = LEAST_WINDOWS + MIN_FRAMES - 1  # of a track that has not too few windows
LARGE = 250  # pixels, shorter side of a detector's input from which it may take parts of a face for faces
TIMES_LARGER = 2  # a face is than what is a part of it


@dataclass(frozen=True)
class Evidence:
    """What was seen in a video, and ways to look at it again.

    Attributes:
        detector: ``Detector``.
        track: links the faces that were found to tracks; takes the scenes and the ``PipelineSettings``.
        faces: faces in a frame, or in the last one before it that was looked at.
        images: reads frames again, H x W x 3 arrays, uint8, RGB; those that cannot be read are left out.
        scenes: detects the scenes with another threshold.
    """

    detector: Detector
    track: Callable[[Sequence[Scene], PipelineSettings], Tracking]
    faces: Callable[[int], Sequence[Face]]
    images: Callable[[Sequence[int]], list[np.ndarray]]
    scenes: Callable[[float], list[Scene]]


@dataclass(frozen=True)
class Advice:
    """What gives a track.

    Attributes:
        flags: values of flags; empty if no flag helps.
        convert: True if the video must be converted first.
        measured: what was seen that speaks for the flags, or that nothing was; may be empty.
    """

    flags: dict[str, float]
    convert: bool = False
    measured: str = ""

    def __str__(self) -> str:
        flags = " ".join(f"--{name} {value:g}" for name, value in self.flags.items())
        steps = [
            f"convert it to {FRAME_RATE} frames per second first (ffmpeg -i IN -vf fps={FRAME_RATE} OUT) or use "
            "score_video.py or the filter with --mode direct"
        ] * self.convert + [f"try {flags}"] * bool(flags)
        return ": ".join(filter(None, [self.measured, ", and ".join(steps)]))


@dataclass(frozen=True)
class Trial:
    """Result of trying the detector at other scales.

    Attributes:
        frames: number of frames that were tried.
        before: number of these with a face at the scale of the run.
        scales: scales that were tried.
        best: the one with faces in most frames.
        seen: number of these frames.
        size: median size of the largest faces in them, in pixels.
    """

    frames: int
    before: int
    scales: Sequence[float] = ()
    best: float = 0.0
    seen: int = 0
    size: float = 0.0

    @property
    def better(self) -> bool:
        return self.seen > max(self.before, self.frames / 2)

    def __str__(self) -> str:
        if self.better:
            return f"at scale {self.best:g} there is a face in {self.seen} of {self.frames} frames"
        seen = f"at most {self.seen}" if self.seen else "none"
        least, most = min(self.scales), max(self.scales)
        return f"a face in {seen} of {self.frames} frames at any --facedet_scale from {least:g} to {most:g}"


def advise(
    evidence: Evidence, settings: PipelineSettings, *, scenes: Sequence[Scene], frames: int, audio_frames: int
) -> Advice:
    """Return what gives a track in a video that has none, and enough frames for a score.

    Args:
        evidence: ``Evidence``.
        settings: settings that gave none.
        scenes: scenes of the video.
        frames: number of frames.
        audio_frames: length of the audio, in frames.
    """
    found = next(options(evidence, settings, scenes=scenes, frames=frames, audio_frames=audio_frames), None)
    trial = try_scales(evidence, settings, frames=frames)
    if trial.better:
        flags: dict[str, float] = {"facedet_scale": trial.best}
        length = max(len_of(scene, frames) for scene in scenes) * trial.seen / trial.frames
        if length * MARGIN <= settings.min_track:
            flags["min_track"] = rounded(length * MARGIN)
        if trial.size * MARGIN <= settings.min_face_size:
            flags["min_face_size"] = int(trial.size * MARGIN)
        if length * MARGIN >= MIN_FRAMES:
            return Advice(flags, measured=str(trial))
    return found or Advice({}, measured=str(trial) if trial.scales else "no flag that was tried gives a track")


def options(
    evidence: Evidence, settings: PipelineSettings, *, scenes: Sequence[Scene], frames: int, audio_frames: int
) -> Iterator[Advice]:
    """Yield what would have given a track from the faces that were found, best first; arguments as in ``advise``.

    Tracks of so few frames that their scores mean little come last.
    """

    def best(of_scenes: Sequence[Scene], **changes: float) -> Track | None:
        tracks = evidence.track(of_scenes, replace(settings, **changes)).tracks  # type: ignore[arg-type]
        heard = [t for t in tracks if min(int(t.frame[-1]) + 1, audio_frames) - int(t.frame[0]) >= MIN_FRAMES]
        return max(heard, key=lambda track: track.found, default=None)

    whole = whole_scenes(scenes, frames=frames)
    cut_short = len_of(whole[-1], frames) > len_of(scenes[-1], frames) + SCENE_TOLERANCE
    if cut_short and best(whole, min_track=int(settings.min_track / MARGIN)):
        yield Advice({}, convert=True)
    across = best(joined(evidence, whole))
    if across and same_faces(evidence, across, whole):
        for threshold in THRESHOLDS:
            if threshold > settings.scene_threshold and best(evidence.scenes(threshold)):
                cuts = sum(scene.start in across.frame[1:] for scene in whole)
                yield Advice({"scene_threshold": threshold}, measured=f"{cuts} cut(s) inside the track of one face")
                break
    short = []
    shortest, smallest = {"min_track": MIN_FRAMES - 1}, {"min_face_size": 0}
    for of_scenes, convert in ((scenes, False), (whole, True))[: 1 + int(cut_short)]:
        longer = [{"num_failed_det": count} for count in FAILED_DET if count > settings.num_failed_det]
        both = [{**count, **smallest} for count in longer]
        for changes in (*longer, shortest, smallest, *both, {**shortest, **smallest}):
            if track := best(of_scenes, **changes):
                length = track.found * MARGIN if convert else track.found
                values = {"min_track": rounded(length - 1), "min_face_size": int(track.size * MARGIN)}
                flags: dict[str, float] = {name: values.get(name, value) for name, value in changes.items()}
                advice = Advice(flags, convert=convert)
                if length < ENOUGH_FRAMES:
                    short.append(advice)
                else:
                    yield advice
    yield from short


def rounded(length: float) -> int:
    """Return a number of frames for ``min_track``: the given one or a little less."""
    return int(length) if length < 2 * ROUND_TO else int(length) // ROUND_TO * ROUND_TO


def len_of(scene: Scene, frames: int) -> int:
    """Return the length of a scene in a video of so many frames."""
    return max(0, min(scene.end, frames) - scene.start)


def shares_with_faces(scenes: Sequence[Scene], faces: Callable[[int], Sequence[Face]]) -> list[float]:
    """Return the share of the frames of every scene in which there are faces; ``faces`` is as in ``Evidence``."""
    return [float(np.mean([bool(faces(f)) for f in range(s.start, s.end)] or [False])) for s in scenes]


def joined(evidence: Evidence, scenes: Sequence[Scene]) -> list[Scene]:
    """Join scenes if the last frame of one and the first of the next have a face at the same place."""
    found = [scenes[0]]
    for scene in scenes[1:]:
        before, after = evidence.faces(scene.start - 1), evidence.faces(scene.start)
        if any(iou(one.bbox, other.bbox) > TRACK_IOU for one in before for other in after):
            found[-1] = Scene(found[-1].start, scene.end)
        else:
            found.append(scene)
    return found


def same_faces(evidence: Evidence, track: Track, scenes: Sequence[Scene]) -> bool:
    """Return True if there are cuts inside a track, and its face looks the same before and after all of them."""
    cuts = [scene.start for scene in scenes if track.frame[0] < scene.start <= track.frame[-1]]
    for cut in cuts:
        pictures = evidence.images([cut - 1, cut])
        if len(pictures) < 2:
            return False
        boxes = track.bbox[cut - 1 - track.frame[0] :][:2]
        one, other = (thumbnail(picture, box) for picture, box in zip(pictures, boxes))
        with np.errstate(invalid="ignore"):  # plain pictures have no correlation
            if np.corrcoef(one.ravel(), other.ravel())[0, 1] < SAME_FACE:
                return False
    return bool(cuts)


def thumbnail(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the brightness of a small picture of a box's inner part, which does not show the background."""
    left, top, right, bottom = box
    across, down = (right - left) / 4, (bottom - top) / 4
    height, width = picture.shape[:2]
    x = np.clip([left + across, right - across], 0, width - 1).astype(int)
    y = np.clip([top + down, bottom - down], 0, height - 1).astype(int)
    part = picture[y[0] : y[1] + 1, x[0] : x[1] + 1]
    return cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def try_scales(evidence: Evidence, settings: PipelineSettings, *, frames: int) -> Trial:
    """Look for faces in a few frames at other scales, if there are some without a face at the scale of the run.

    It ends with the first scale at which all have a face: so there are at most len(SCALES) * TRIED_FRAMES detections.
    """
    numbers = tried_frames(frames)
    before = sum(bool(evidence.faces(number)) for number in numbers)
    images = evidence.images(numbers) if before < len(numbers) else []
    trial = Trial(len(images) or len(numbers), before)
    for scale in SCALES:
        if scale == settings.facedet_scale or not images or images[0][..., 0].size * scale**2 > MOST_PIXELS:
            continue
        found = [faces_inside(evidence.detector, image, scale) for image in images]
        sizes = [max(map(size_of, faces)) for faces in found if faces]
        trial = replace(trial, scales=[*trial.scales, scale])
        if len(sizes) > trial.seen and remains(numbers, found):
            trial = replace(trial, best=scale, seen=len(sizes), size=float(np.median(sizes)))
        if trial.seen == len(images):
            break
    return trial


def whole_face_scale(evidence: Evidence, settings: PipelineSettings, *, tracks: Sequence[Track]) -> float | None:
    """Return the scale at which a face is seen of which the longest track shows a part; None if there is none.

    The detector may take the eyes of a face that fills a large frame for faces. Smaller frames are not tried.

    Args:
        evidence: ``Evidence``.
        settings: settings that gave the tracks.
        tracks: tracks of the video.
    """
    longest = max(tracks, key=lambda track: len(track.frame))
    places = [len(longest.frame) // 2, min(len(longest.frame) // 2 + APART, len(longest.frame) - 1)]
    images = evidence.images([int(longest.frame[place]) for place in places])
    if len(images) < len(places) or min(images[0].shape[:2]) * settings.facedet_scale < LARGE:
        return None
    for scale in sorted(SCALES, reverse=True):
        if scale < settings.facedet_scale and all(
            any(is_part(longest.bbox[place], face) for face in faces_inside(evidence.detector, image, scale))
            for place, image in zip(places, images)
        ):
            return scale
    return None


def is_part(box: np.ndarray, face: Face) -> bool:
    """Return True if the middle of a box is inside a face that is much larger."""
    left, top, right, bottom = face.bbox
    x, y = (box[:2] + box[2:]) / 2
    return bool(
        left < x < right and top < y < bottom and size_of(face) > TIMES_LARGER * max(box[2] - box[0], box[3] - box[1])
    )


def tried_frames(frames: int) -> list[int]:
    """Return the frames to try: spread over a video of so many, in pairs that a face does not leave in between."""
    places = (TRIED_FRAMES + 1) // 2
    spread = [frames * (2 * index + 1) // (2 * places) for index in range(places)]
    return sorted({*spread, *(min(frame + APART, frames - 1) for frame in spread[: TRIED_FRAMES - places])})


def remains(numbers: Sequence[int], found: Sequence[Sequence[Face]]) -> bool:
    """Return True if a face is at the same place in both frames of the pairs, as chance detections are not."""
    pairs = [(found[i], found[i + 1]) for i in range(len(found) - 1) if numbers[i + 1] - numbers[i] <= APART]
    found_twice = [pair for pair in pairs if all(pair)]
    return bool(found_twice) and all(
        any(iou(a.bbox, b.bbox) > TRACK_IOU for a in one for b in other) for one, other in found_twice
    )


def faces_inside(detector: Detector, image: np.ndarray, scale: float) -> list[Face]:
    """Return the faces detected at a scale, of which the centre is inside the image."""
    height, width = image.shape[:2]
    [rows] = detector.detect_batch(image[None], conf_th=CONFIDENCE, scales=[scale])
    faces = [Face(frame=0, bbox=tuple(map(float, row[:4])), conf=float(row[4])) for row in rows]
    return [
        face
        for face in faces
        if size_of(face) * scale >= LEAST_SIZE
        and 0 < face.bbox[0] + face.bbox[2] < 2 * width
        and 0 < face.bbox[1] + face.bbox[3] < 2 * height
    ]
