"""The direct pass: score the faces of a video from what the decoder gives, in one pass, in memory.

Nothing is converted on the way: pictures and sound lie on the container's own clock. Published mode changes a lag by up
to a frame, because its conversions delay picture and sound; this does not.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from syncnet import defaults, reasons
from syncnet.constants import MILLISECONDS_PER_FRAME, MIN_FRAMES, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.errors import UsageError, WeightsError
from syncnet.faces.crops import smooth
from syncnet.faces.detect import Detector, Summary
from syncnet.faces.follow import follow_faces, size_of
from syncnet.faces.scenes import Cuts, Scene, timecodes
from syncnet.faces.tracks import Face, Path2D, Track, Tracking
from syncnet.media.containers import no_sound
from syncnet.media.frames import read_ahead
from syncnet.media.grid import Grid
from syncnet.media.pictures import AnyPicture
from syncnet.media.sound import Sound, single_channels
from syncnet.models.weights import lag_zero
from syncnet.progress import Progress, silent
from syncnet.reasons import Reason
from syncnet.results.layout import Layout, check_input, new_file
from syncnet.results.scores_json import (
    SECONDS_DIGITS,
    box_record,
    empty_record,
    pipeline_report,
    score_record,
    scores_report,
    track_record,
    weights_record,
)
from syncnet.results.step_files import faces_record, save_json, save_pickle, tracks_record
from syncnet.steps import doubts, faults, speaking
from syncnet.steps import score as score_step
from syncnet.steps.advice import Evidence
from syncnet.steps.direct_pass import CropPass, DirectPass, Lips, ScoredTrack, Seen, Stream, Workers, small_image
from syncnet.steps.pipeline import PipelineResult, PipelineSettings, explain
from syncnet.steps.versions import versions
from syncnet.sync import lag, scoring
from syncnet.sync.stream import AudioFeatures, Samples

if TYPE_CHECKING:
    import torch

    from syncnet.models.fast import FastSyncNet
    from syncnet.models.weights import Weights

logger = logging.getLogger("syncnet")

UNMEASURED = "unmeasured"
LEAST = {"detect_every": 1, "vshift": 1, "batch_size": 1, "min_track": 0, "num_failed_det": 0, "min_face_size": 0}
MILLISECONDS = 1000
# Pictures are compared with the sound of this much later. The conversions of published mode have about this effect on
# videos of 24 and 25 frames per second that are in step, and a confidence is lower the farther the lag is from whole
# frames: so the confidences of both modes agree. The lag is corrected for it.
PHASE_SAMPLES = SAMPLE_RATE * 16 // MILLISECONDS
PHASE_MS = PHASE_SAMPLES * MILLISECONDS / SAMPLE_RATE


@dataclass(frozen=True)
class DirectSettings(PipelineSettings):
    """Settings of the direct pass, named like the flags; their fields are also keys of the recipe.

    Attributes:
        facedet_scale, crop_scale, min_track, num_failed_det, min_face_size, scene_threshold: as in
            ``PipelineSettings``; lengths are in frames, whatever ``detect_every`` is.
        detect_every: faces are looked for in every n-th frame.
        face_crops: every frame is a face crop already; it is resized, and no face is looked for.
        vshift: largest offset to try in both directions, in frames.
        batch_size: windows per batch.
        min_speaking: shortest time for which a face speaks, in seconds.
    """

    min_track: int = defaults.FILTER_MIN_TRACK
    min_face_size: int = defaults.FILTER_MIN_FACE_SIZE
    detect_every: int = defaults.DETECT_EVERY
    face_crops: bool = False
    vshift: int = defaults.VSHIFT
    batch_size: int = defaults.BATCH_SIZE
    min_speaking: float = defaults.MIN_SPEAKING

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise UsageError(f"{name}: {value!r} must be a whole number of at least {least}")
        if not self.facedet_scale > 0 or not self.crop_scale >= 0:
            raise UsageError(f"facedet_scale, crop_scale: {self.facedet_scale}, {self.crop_scale}: must be positive")


DEFAULT_SETTINGS = DirectSettings()


@dataclass(frozen=True)
class DirectResult:
    """Result of ``run``.

    Attributes:
        report: content of scores.json.
        pipeline: what run_pipeline would return, without the crops' positions.
        scores: per track its ``SyncScore``, or the ``Reason`` why it has none.
        seen: what was seen of the faces; None if no frame was analysed.
    """

    report: dict[str, Any]
    pipeline: PipelineResult
    scores: Sequence[scoring.SyncScore | Reason] = ()
    seen: Seen | None = None

    @property
    def dists(self) -> list[np.ndarray]:
        """Per track an array of distances, windows x shifts; of a track without a score, 0 rows."""
        shifts = 2 * self.report["recipe"]["syncnet"]["vshift"] + 1
        return [s.dists if isinstance(s, scoring.SyncScore) else np.zeros((0, shifts), np.float32) for s in self.scores]

    @property
    def paths(self) -> list[Path2D]:
        """Crop positions of the tracks."""
        return [smooth(track) for track in self.pipeline.tracks]


class Net(score_step.Net, Protocol):
    """Interface of ``SyncNetInstance``."""

    @property
    def net(self) -> FastSyncNet | None: ...

    @property
    def weights(self) -> Weights | None: ...

    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class Recipes:
    """Recipes of the two steps that scores.json has one of each.

    Attributes:
        pipeline: everything that the tracks depend on.
        syncnet: everything that scores depend on besides.
    """

    pipeline: dict[str, Any]
    syncnet: dict[str, Any]


@dataclass
class Clock:
    """Where the pictures lie.

    Attributes:
        delay: time of the first picture in a player, in seconds.
        late: per picture the seconds by which its time stamp is after the grid's time.
    """

    delay: float = 0.0
    late: list[float] = field(default_factory=list)

    def time(self, seconds: float) -> float:
        """Return the time in a player that is so many seconds after the first picture."""
        return round(seconds + self.delay, SECONDS_DIGITS)

    def mean_late_ms(self, track: Track) -> float:
        """Return the mean of ``late`` over a track, in milliseconds."""
        return float(np.mean(self.late[track.frame[0] : track.frame[-1] + 1])) * MILLISECONDS


def run(
    videofile: str | Path,
    *,
    detector: Detector | None,
    net: Net,
    settings: DirectSettings = DEFAULT_SETTINGS,
    audio: str | Path | None = None,
    audio_stream: int | None = None,
    progress: Progress = silent,
) -> DirectResult:
    """Score the faces of a video. A video without a track, or without audio, is not an error: reasons say why.

    Args:
        videofile: path of the video.
        detector: ``Detector``; None with ``face_crops``.
        net: ``SyncNetInstance`` with loaded weights.
        settings: ``DirectSettings``.
        audio: media file whose sound replaces the video's own; both start together.
        audio_stream: index among the audio streams of the file that gives the sound; None for the one a player takes.
        progress: as in ``syncnet.progress``.

    Raises:
        MediaError: the input cannot be used.
        UsageError: the input is missing.
    """
    videofile = check_input(videofile)
    source = check_input(audio, advice=": check --audio") if audio else videofile
    recipes = make_recipe(settings, detector=detector, net=net, audio=audio, audio_stream=audio_stream)
    clock = Clock()
    with contextlib.ExitStack() as stack:
        grid = stack.enter_context(Grid(videofile))
        clock.delay = grid.delay
        sound = Sound(
            source,
            zero=None if audio else grid.start + PHASE_SAMPLES / SAMPLE_RATE,
            after=grid.delay + PHASE_SAMPLES / SAMPLE_RATE,
            stream=audio_stream,
            before=settings.vshift * SAMPLES_PER_FRAME,
        )
        stack.callback(sound.close)
        if not sound.exists:
            if audio:
                raise no_sound(source)
            return without_tracks(reasons.no_audio(), videofile=videofile, recipes=recipes)
        stream = stack.enter_context(open_pass(sound, detector=detector, net=net, settings=settings))
        pictures = stack.enter_context(
            contextlib.closing(read_ahead(grid, lambda found: (found.late, stream.prepare(found.picture))))
        )
        for late, prepared in progress(pictures, total=grid.expected or None, desc="frames"):
            clock.late.append(late)
            stream.add(prepared)
        tracks, seen = stream.finish(), stream.seen
        of_input = faults.of_pass(grid, sound, other=source if audio else None)
        if grid.complaint:
            logger.warning("%s: damaged? using what can be read of it (%s)", videofile, grid.complaint)
        length = sound.length(seen.frames * SAMPLES_PER_FRAME) + PHASE_SAMPLES
        audio_frames = min(seen.frames, max(0, length) // SAMPLES_PER_FRAME)
        windows = stream.lips.audio.windows(seen.frames + settings.vshift)
        levels = stream.lips.audio.levels(seen.frames)
    return conclude(
        tracks,
        seen,
        videofile=videofile,
        clock=clock,
        audio_frames=audio_frames,
        windows=windows,
        levels=levels,
        channels=single_channels(source, stream=audio_stream),
        net=net,
        settings=settings,
        recipes=recipes,
        of_input=of_input,
        evidence=gather(
            seen, detector, pictures=lambda: all_of(videofile), some=lambda frames: some_of(videofile, frames)
        ),
    )


def all_of(videofile: Path) -> Iterator[AnyPicture]:
    """Yield all pictures of a video again."""
    with Grid(videofile) as grid:
        yield from (found.picture for found in grid)


def some_of(videofile: Path, frames: Sequence[int]) -> list[AnyPicture]:
    """Read some pictures of a video again."""
    with Grid(videofile) as grid:
        return list(grid.at(frames))


def gather(
    seen: Seen,
    detector: Detector | None,
    *,
    pictures: Callable[[], Iterable[AnyPicture]],
    some: Callable[[Sequence[int]], list[AnyPicture]],
) -> Evidence | None:
    """Return the ``Evidence`` for advice; None if no face was looked for.

    Args:
        seen: what was seen.
        detector: ``Detector``.
        pictures: yields all pictures again.
        some: returns the pictures of some indices.
    """
    if detector is None:
        return None
    looked = sorted(seen.faces)

    def track(scenes: Sequence[Scene], settings: PipelineSettings) -> Tracking:
        return follow_faces(
            seen.faces,
            scenes,
            min_track=settings.min_track,
            num_failed_det=settings.num_failed_det,
            min_face_size=settings.min_face_size,
        )

    def scenes(threshold: float) -> list[Scene]:
        cuts = Cuts(threshold=threshold)
        for picture in pictures():
            cuts.add(small_image(picture))
        return scenes_between(cuts.known, seen.frames)

    return Evidence(
        detector,
        track=track,
        faces=lambda frame: seen.faces[looked[bisect.bisect_right(looked, frame) - 1]],
        images=lambda frames: [picture.rgb() for picture in some(frames)],
        scenes=scenes,
    )


def scenes_between(cuts: Sequence[int], frames: int) -> list[Scene]:
    """Return the scenes of a video of so many frames, from the frames that begin one."""
    return [Scene(start, end) for start, end in zip([0, *cuts], [*cuts, frames])]


def device_of(detector: Detector | None, net: Net) -> torch.device | None:
    """Return the GPU on which pictures are resized and cropped; None for main memory."""
    on_gpu = detector is not None and detector.device.type == "cuda" and detector.device == net.device
    return net.device if on_gpu and hasattr(detector, "detect_tensor") else None


@contextlib.contextmanager
def open_pass(
    sound: Samples,
    *,
    detector: Detector | None,
    net: Net,
    settings: DirectSettings,
    boxes: np.ndarray | None = None,
) -> Iterator[Stream]:
    """Make the stream that finds and scores the faces, and its threads, which end with the block.

    Args:
        sound: the sound; sample 0 belongs to the first picture.
        detector, net, settings: as in ``run``.
        boxes: as in ``CropPass``.
    """
    if net.net is None:
        raise WeightsError("SyncNetInstance: no weights loaded: call loadParameters() first")
    features = AudioFeatures(sound, net.net.audio_features)
    with contextlib.closing(Workers(net.device)) as workers:
        lips = Lips(net.net, features, workers, vshift=settings.vshift, batch_size=settings.batch_size)
        if detector is None:
            yield CropPass(lips, boxes=boxes, crop_scale=settings.crop_scale)
        else:
            yield DirectPass(detector, lips, workers, settings, device=device_of(detector, net))


def conclude(
    scored: list[ScoredTrack],
    seen: Seen,
    *,
    videofile: str | Path | None,
    clock: Clock,
    audio_frames: int,
    windows: range,
    levels: np.ndarray,
    channels: Iterable[Samples],
    net: Net,
    settings: DirectSettings,
    recipes: Recipes,
    evidence: Evidence | None,
    of_input: Sequence[Reason] = (),
) -> DirectResult:
    """Compute scores and lags, and return the result.

    Args:
        scored: the tracks.
        seen: what was seen.
        videofile: path of the video; None if it has none.
        clock: where the pictures lie.
        audio_frames: length of the sound from the first picture on, in frames.
        windows: audio windows that the sound covers.
        levels: frames x K array, from ``stream.Levels``.
        channels: the sound of every channel, if there are several; only read if a track is silent.
        net: the network.
        settings: ``DirectSettings``.
        recipes: from ``make_recipe``.
        of_input: reasons that concern the whole file.
        evidence: from ``gather``.
    """
    zero = lag_zero(net.weights) if net.weights else None
    tracks = [found.track for found in scored]
    scores = [score_track(found, audio_frames=audio_frames, net=net) for found in scored]
    turns = speaking.find(
        scores,
        [(int(track.frame[0]), len(track.frame)) for track in tracks],
        levels=levels,
        cuts=seen.cuts,
        min_speaking=settings.min_speaking,
    )
    cancelled = doubts.cancelled_channels(turns.heard, [int(track.frame[0]) for track in tracks], channels)
    records, lags = [], []
    for index, (track, score, spoken) in enumerate(zip(tracks, scores, turns.speaking)):
        first, last = int(track.frame[0]), int(track.frame[-1])
        place = track_record(index, first, last, track.size, box=box_record(track.bbox))
        place = {**place, "start": clock.time(place["start"]), "end": clock.time(place["end"])}
        if isinstance(score, Reason):
            records.append({**place, **empty_record(score), **speaking.numbers(score, spoken)})
            continue
        found = lag.measure(
            score.dists,
            audio=range(windows.start - first, windows.stop - first),
            zero_ms=(zero or 0.0) + PHASE_MS,
            picture_ms=clock.mean_late_ms(track),
        )
        if abs(score.offset) < settings.vshift:  # else the true lag is not known
            lags.append((score.confidence, found))
        corrected = whole_frames(found, near=score.offset) - score.offset
        scores[index] = score = replace(score, offset=score.offset + corrected)
        numbers = score_record(
            score,
            vshift=settings.vshift,
            weights=net.weights,
            mode=defaults.DIRECT,
            lag=found,
            found=doubts.of_track(
                score,
                turns.heard[index],
                start=place["start"],
                cancelled=cancelled.get(index),
                lag=found,
            ),
            has_speech=turns.has_speech[index],
        )
        records.append({**place, **numbers, **speaking.numbers(score, spoken, corrected=corrected)})
    faces = summarise(seen) if seen.faces else None  # None: none was looked for
    scenes = scenes_between(seen.cuts, seen.frames)
    why = [*of_input]
    why += explain(
        Tracking(tracks=tracks, longest=seen.longest, largest=seen.largest),
        faces or Summary(seen.frames, seen.frames, 1, None, None, None),
        scenes=scenes,
        audio_frames=audio_frames,
        settings=settings,
        evidence=evidence,
        confident=any(isinstance(s, scoring.SyncScore) and s.confidence >= reasons.SURE_CONFIDENCE for s in scores),
    )
    pipeline = PipelineResult(recipe=recipes.pipeline, faces=faces, scenes=scenes, tracks=tracks, paths=[], reasons=why)
    report = make_report(
        pipeline,
        videofile=videofile,
        recipes=recipes,
        tracks=records,
        turns=speaking.records(turns, delay=clock.delay),
        of_video=lag.of_video(lags) if tracks else None,
        zero=UNMEASURED if zero is None else zero,
    )
    return DirectResult(report, pipeline, scores=scores, seen=seen)


def whole_frames(found: lag.Lag, *, near: int) -> int:
    """Return a lag in whole frames, at most one frame from the offset with the smallest mean distance."""
    return min(max(round(found.ms / MILLISECONDS_PER_FRAME), near - 1), near + 1)


def score_track(found: ScoredTrack, *, audio_frames: int, net: Net) -> scoring.SyncScore | Reason:
    """Return the score of a track, or the ``Reason`` why it has none.

    Args:
        found: the track.
        audio_frames: length of the sound from the first picture on, in frames.
        net: the network.

    Raises:
        WeightsError: the weights produce NaN or infinite values.
    """
    frames = len(found.track.frame)
    audible = max(0, min(frames, audio_frames - int(found.track.frame[0])))
    count = scoring.window_count(frames, audible)
    if not count:
        return reasons.too_short(frames=audible, needed=MIN_FRAMES)
    dists = found.dists[:count]
    if not np.isfinite(dists).all():
        name = net.weights.name if net.weights else "SyncNet"
        raise WeightsError(f"{name}: produces NaN or infinite values: name other weights with --initial_model")
    return scoring.score(dists, video_frames=frames, audio_frames=audible)


def without_tracks(reason: Reason, *, videofile: str | Path, recipes: Recipes) -> DirectResult:
    """Return the result of a video that was not analysed."""
    pipeline = PipelineResult(recipe=recipes.pipeline, reasons=[reason])
    report = make_report(pipeline, videofile=videofile, recipes=recipes, tracks=[], of_video=None)
    return DirectResult(report, pipeline)


def make_report(
    pipeline: PipelineResult,
    *,
    videofile: str | Path | None,
    recipes: Recipes,
    tracks: list[dict[str, Any]],
    turns: dict[str, Any] | None = None,
    of_video: lag.Lag | Reason | None,
    zero: float | str | None = None,
) -> dict[str, Any]:
    """Return the content of scores.json."""
    report = scores_report(
        pipeline_report(pipeline, videofile=videofile or "", reference=""),
        reference=None,
        tracks=tracks,
        **(turns or {"speakers": []}),
        recipe=recipes.syncnet,
        mode=defaults.DIRECT,
        lag=of_video,
        lag_zero=zero,
    )
    return {**report, "videofile": str(videofile) if videofile else None}


def make_recipe(
    settings: DirectSettings,
    *,
    detector: Detector | None,
    net: Net,
    audio: str | Path | None = None,
    audio_stream: int | None = None,
) -> Recipes:
    """Return everything that a score depends on, in the two parts of scores.json."""
    detection = {"s3fd_weights": weights_record(detector.weights), "device": str(detector.device)} if detector else {}
    sound = {"audio": str(audio) if audio else None, "audio_stream": audio_stream}
    return Recipes(
        pipeline={
            **asdict(settings),
            **detection,
            **sound,
            "mode": defaults.DIRECT,
            "versions": versions(defaults.DIRECT),
        },
        syncnet={
            **score_step.scoring_recipe(
                net, batch_size=settings.batch_size, vshift=settings.vshift, mode=defaults.DIRECT
            ),
            "mode": defaults.DIRECT,
            "precision": net.precision,
            **sound,
            "min_speaking": settings.min_speaking,
        },
    )


def summarise(seen: Seen) -> Summary:
    """Return the statistics of the faces; a frame that was not looked at is like the last one that was."""
    looked = sorted(seen.faces)
    lengths = np.diff([*looked, seen.frames])
    sizes = sorted(size_of(face) for faces in seen.faces.values() for face in faces)
    return Summary(
        frames=seen.frames,
        frames_with_faces=int(sum(length for frame, length in zip(looked, lengths) if seen.faces[frame])),
        most_faces=max(map(len, seen.faces.values()), default=0),
        smallest=sizes[0] if sizes else None,
        median=float(np.median(sizes)) if sizes else None,
        largest=sizes[-1] if sizes else None,
    )


def save(result: DirectResult, layout: Layout) -> None:
    """Write the files of pywork, as run_pipeline and run_syncnet do, so that run_visualise works on them.

    Args:
        result: result of ``run``.
        layout: ``Layout``; its folders are replaced.
    """
    layout.clear()
    report = {**result.report, "reference": layout.reference}
    if result.seen is not None:
        faces: list[list[Face]] = [result.seen.faces.get(frame, []) for frame in range(result.seen.frames)]
        save_pickle(faces_record(faces), layout.faces)
        save_pickle(timecodes(result.pipeline.scenes), layout.scenes)
    if result.pipeline.tracks:
        tracks = result.pipeline.tracks
        save_pickle(tracks_record(tracks, result.paths), layout.tracks)
        save_pickle(result.dists, layout.distances)
        with new_file(layout.offsets) as temporary:
            temporary.write_text("".join(score_step.offset_lines(result.scores)), encoding="utf-8")
    pipeline = pipeline_report(result.pipeline, videofile=report["videofile"], reference=layout.reference)
    save_json(pipeline, layout.pipeline)
    save_json(report, layout.scores)
