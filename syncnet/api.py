"""Score videos from Python: the functions that score_video.py calls."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet import defaults
from syncnet.errors import UsageError
from syncnet.progress import Progress, silent
from syncnet.reasons import SURE_CONFIDENCE, Reason

if TYPE_CHECKING:
    import numpy as np

    from detectors import S3FD
    from syncnet.faces.tracks import Path2D
    from syncnet.results.layout import Layout
    from syncnet.steps.correct import Correction
    from SyncNetInstance import SyncNetInstance


@dataclass(frozen=True)
class TrackScore:
    """Score of a face track.

    Attributes:
        track: index of the track.
        first_frame, last_frame: its first and last frame, at 25 fps.
        start, end: when it begins and ends, in seconds.
        box: median x, y, width and height of the face, in pixels of the frame as shown; None if unknown.
        mean_face_size: the larger of the face's mean width and height, in pixels; None if unknown.
        offset: frames by which the audio is early; None, like all numbers below, if the track has no score.
        offset_ms: the same in milliseconds.
        confidence: how sure the offset is.
        min_dist: mean distance at the offset.
        lse_c, lse_d: ``confidence`` and ``min_dist`` if the weights and the mode are the published ones, else None.
        lag_ms: milliseconds by which the audio is early, negative if it is late; None in published mode.
        lag_error_ms: half-width of its 95 % interval.
        drift_ms_per_min: milliseconds by which the lag grows in a minute; None for tracks of at most 20 s.
        drift_error_ms_per_min: half-width of its 95 % interval.
        windows: number of windows that were scored.
        speaking_s: time for which the face speaks, in seconds; None if the track has no score.
        speaking_offset, speaking_confidence, speaking_min_dist: ``offset``, ``confidence`` and ``min_dist`` of the
            windows in which the face speaks; None if it never does.
        reasons: why there is no score, or why it is not reliable.
        path: smoothed position of the face, ``s`` (half of its size), ``x`` and ``y`` (its centre): arrays with a
            value per frame, in pixels, which ``Score.to_dict`` leaves out; None of face crops.
        dists: windows x (2 * vshift + 1) array of distances, which ``Score.to_dict`` leaves out; None of face crops in
            published mode.
    """

    track: int
    first_frame: int
    last_frame: int
    start: float
    end: float
    box: tuple[int, int, int, int] | None
    mean_face_size: float | None
    offset: int | None
    offset_ms: int | None
    confidence: float | None
    min_dist: float | None
    lse_c: float | None
    lse_d: float | None
    lag_ms: float | None
    lag_error_ms: float | None
    drift_ms_per_min: float | None
    drift_error_ms_per_min: float | None
    windows: int
    speaking_s: float | None
    speaking_offset: int | None
    speaking_confidence: float | None
    speaking_min_dist: float | None
    reasons: tuple[Reason, ...]
    path: Path2D | None = field(repr=False, compare=False)
    dists: np.ndarray | None = field(repr=False, compare=False)


@dataclass(frozen=True)
class Speaker:
    """A time in which a face speaks.

    Attributes:
        start, end: in seconds.
        track: index of the face's track.
        confidence: posterior probability, from 0 to 1, averaged over this time.
    """

    start: float
    end: float
    track: int
    confidence: float


@dataclass(frozen=True)
class SpeechWithoutFace:
    """A time in which somebody speaks whose face is not visible.

    Attributes:
        start, end: in seconds.
    """

    start: float
    end: float


@dataclass(frozen=True)
class Score:
    """Score of a video.

    Attributes:
        videofile: its path; None of frames in memory.
        mode: ``direct`` or ``published``.
        lag_ms: milliseconds by which the audio is early, negative if it is late; None in published mode, and if
            the tracks disagree or none is confident.
        lag_error_ms: half-width of its 95 % interval.
        lag_zero: lag that these weights measure where sound and picture are in step, which is subtracted already, in
            milliseconds; ``unmeasured`` if unknown; None in published mode.
        tracks: the face tracks.
        speakers: who speaks when.
        speech_without_face: when somebody speaks whose face is not visible.
        reasons: why there is no track or no lag, or why the scores are not reliable.
        faces: statistics of the detected faces; None without detection.
        recipe: everything that the scores depend on.
    """

    videofile: str | None
    mode: str
    lag_ms: float | None
    lag_error_ms: float | None
    lag_zero: float | str | None
    tracks: tuple[TrackScore, ...]
    speakers: tuple[Speaker, ...]
    speech_without_face: tuple[SpeechWithoutFace, ...]
    reasons: tuple[Reason, ...]
    faces: dict[str, Any] | None = field(repr=False)
    recipe: dict[str, Any] = field(repr=False)
    report: dict[str, Any] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the score in the form of scores.json, ready for ``json.dumps``."""
        return copy.deepcopy(self.report)


def make_score(report: dict[str, Any], dists: Sequence[np.ndarray], paths: Sequence[Path2D]) -> Score:
    """Return a ``Score``.

    Args:
        report: content of scores.json.
        dists: distances of every track.
        paths: crop positions of every track; none of face crops.
    """

    def typed(records: list[dict[str, Any]]) -> tuple[Reason, ...]:
        return tuple(Reason(**record) for record in records)

    names = [item.name for item in fields(TrackScore) if item.name not in ("box", "reasons", "path", "dists")]
    tracks = [
        TrackScore(
            **{name: record[name] for name in names},
            box=tuple(record["box"]) if record["box"] else None,
            reasons=typed(record["reasons"]),
            path=path,
            dists=of_track,
        )
        for record, path, of_track in itertools.zip_longest(report["tracks"], paths, dists)
    ]
    same = ("videofile", "mode", "lag_ms", "lag_error_ms", "lag_zero", "faces", "recipe")
    return Score(
        **{name: report[name] for name in same},
        tracks=tuple(tracks),
        speakers=tuple(Speaker(**record) for record in report["speakers"]),
        speech_without_face=tuple(SpeechWithoutFace(**record) for record in report["speech_without_face"]),
        reasons=typed(report["reasons"]),
        report=report,
    )


@functools.lru_cache(maxsize=4)
def load_detector(device: str, weights: str | Path | None, precision: str) -> S3FD:
    """Load the face detector, once per process, device, weights and precision."""
    from detectors import S3FD

    return S3FD(device, weights=weights, precision=precision)


@functools.lru_cache(maxsize=4)
def load_net(device: str, weights: str | Path | None, precision: str) -> SyncNetInstance:
    """Load SyncNet, once per process, device, weights and precision."""
    from SyncNetInstance import SyncNetInstance

    net = SyncNetInstance(device, precision=precision)
    net.loadParameters(weights)
    return net


def score_video(
    path: str | Path,
    *,
    audio: str | Path | None = None,
    audio_stream: int | None = None,
    mode: str = defaults.DIRECT,
    face_crops: bool = False,
    detect_every: int = defaults.DETECT_EVERY,
    precision: str = defaults.FLOAT32,
    facedet_scale: float = defaults.FACEDET_SCALE,
    crop_scale: float = defaults.CROP_SCALE,
    min_track: int = defaults.FILTER_MIN_TRACK,
    num_failed_det: int = defaults.NUM_FAILED_DET,
    min_face_size: int = defaults.FILTER_MIN_FACE_SIZE,
    scene_threshold: float = defaults.SCENE_THRESHOLD,
    vshift: int = defaults.VSHIFT,
    batch_size: int = defaults.BATCH_SIZE,
    min_speaking: float = defaults.MIN_SPEAKING,
    initial_model: str | Path | None = None,
    s3fd_weights: str | Path | None = None,
    device: str = "auto",
    layout: Layout | None = None,
    progress: Progress = silent,
) -> Score:
    """Say by how much sound and picture of a video are apart, how sure that is, and which face speaks.

        score = score_video("in.mp4")
        print(score.lag_ms, [track.confidence for track in score.tracks])

    The networks are loaded once per process and device. A video without a face or without sound is not an error:
    ``Score.reasons`` says why there is nothing.

    Args:
        path: the video.
        audio: media file whose sound replaces the video's own; both start together.
        audio_stream: index among the audio streams of the file that gives the sound; None for the one a player takes.
        mode: ``direct``, or ``published`` for the numbers of run_pipeline and run_syncnet.
        face_crops: the video is a face crop already; it is resized, and no face is looked for.
        detect_every: faces are looked for in every n-th frame (direct mode).
        precision: ``float32`` or, in direct mode where the processor supports it, ``bfloat16``.
        facedet_scale, crop_scale, min_track, num_failed_det, min_face_size, scene_threshold, vshift, batch_size,
            min_speaking: like the flags of the same names.
        initial_model, s3fd_weights: weights files; None for the published ones if they exist, else the starter.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        layout: ``Layout`` in which the results stay, for run_visualise; None to leave no files behind.
        progress: as in ``syncnet.progress``.

    Raises:
        UsageError: arguments are invalid or do not work together.
        MediaError: the video or the audio cannot be used.
        SyncNetError: the weights cannot be used.
    """
    from syncnet.steps.direct import DirectSettings

    check_mode(mode, precision=precision)
    settings = DirectSettings(
        facedet_scale=facedet_scale,
        crop_scale=crop_scale,
        min_track=min_track,
        num_failed_det=num_failed_det,
        min_face_size=min_face_size,
        scene_threshold=scene_threshold,
        detect_every=detect_every,
        face_crops=face_crops,
        vshift=vshift,
        batch_size=batch_size,
        min_speaking=min_speaking,
    )
    detector = None if face_crops else functools.partial(load_detector, device, s3fd_weights, precision)
    net = load_net(device, initial_model, precision)
    sound: dict[str, Any] = {"audio": Path(audio) if audio else None, "audio_stream": audio_stream}
    if layout is not None:
        for file in (path, audio):
            if file:
                layout.check_outside(file)
    if mode == defaults.PUBLISHED:
        return published(path, settings, net=net, load=detector, sound=sound, kept=layout, progress=progress)
    from syncnet.steps import direct

    found = direct.run(
        path, detector=detector() if detector else None, net=net, settings=settings, progress=progress, **sound
    )
    if layout is not None:
        direct.save(found, layout)
    return make_score(found.report, found.dists, [] if face_crops else found.paths)


def score_frames(
    frames: Any,
    audio: Any,
    *,
    frame_rate: float,
    sample_rate: int,
    boxes: Any = None,
    face_crops: bool = False,
    precision: str = defaults.FLOAT32,
    vshift: int = defaults.VSHIFT,
    batch_size: int = defaults.BATCH_SIZE,
    min_speaking: float = defaults.MIN_SPEAKING,
    crop_scale: float = defaults.CROP_SCALE,
    initial_model: str | Path | None = None,
    s3fd_weights: str | Path | None = None,
    device: str = "auto",
) -> Score:
    """Score frames and sound in memory, without a file, in direct mode.

        score = score_frames(frames, samples, frame_rate=25, sample_rate=16000, face_crops=True)
        print(score.tracks[0].confidence)

    Args:
        frames: N x H x W x 3 array or tensor, uint8, RGB.
        audio: array or tensor of samples, or channels x samples, that starts with the first frame: int16, or float from
            -1 to 1.
        frame_rate: frames per second.
        sample_rate: samples per second.
        boxes: N x 4 array of the face in every frame, x, y, width and height in pixels; None to find the faces.
        face_crops: every frame is a face crop already; it is resized, and no face is looked for.
        precision, vshift, batch_size, min_speaking, crop_scale, initial_model, s3fd_weights, device: as in
            ``score_video``.

    Raises:
        UsageError: the arrays do not have these shapes and types.
        SyncNetError: the weights cannot be used.
    """
    from syncnet.steps import memory
    from syncnet.steps.direct import DirectSettings

    check_mode(defaults.DIRECT, precision=precision)
    if boxes is not None and face_crops:
        raise UsageError("boxes: a face crop has none: give either boxes or face_crops=True")
    given = memory.check(frames, audio, frame_rate=frame_rate, sample_rate=sample_rate, boxes=boxes)
    settings = DirectSettings(
        crop_scale=crop_scale,
        face_crops=face_crops,
        vshift=vshift,
        batch_size=batch_size,
        min_speaking=min_speaking,
    )
    found = memory.run(
        given,
        detector=None if face_crops or boxes is not None else load_detector(device, s3fd_weights, precision),
        net=load_net(device, initial_model, precision),
        settings=settings,
    )
    return make_score(found.report, found.dists, [] if face_crops else found.paths)


def correct_offset(
    path: str | Path,
    output: str | Path,
    *,
    max_lag: float = defaults.MAX_LAG,
    min_confidence: float = SURE_CONFIDENCE,
    fix_drift: bool = False,
    delay_audio: float | None = None,
    audio_codec: str | None = None,
    always_write: bool = False,
    overwrite: bool = False,
    audio_stream: int | None = None,
    face_crops: bool = False,
    detect_every: int = defaults.DETECT_EVERY,
    precision: str = defaults.FLOAT32,
    facedet_scale: float = defaults.FACEDET_SCALE,
    crop_scale: float = defaults.CROP_SCALE,
    min_track: int = defaults.FILTER_MIN_TRACK,
    num_failed_det: int = defaults.NUM_FAILED_DET,
    min_face_size: int = defaults.FILTER_MIN_FACE_SIZE,
    scene_threshold: float = defaults.SCENE_THRESHOLD,
    batch_size: int = defaults.BATCH_SIZE,
    initial_model: str | Path | None = None,
    s3fd_weights: str | Path | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Correction:
    """Write a copy of a video without its lag: measure it, move the sound, and measure the result.

        done = correct_offset("in.mp4", "out.mp4")
        print(done.before.lag_ms, done.after and done.after.lag_ms)

    The output appears complete or not at all. A lag within 10 ms is left alone: then there is no output, unless
    ``always_write``.

    Args:
        path: the video, which is not touched.
        output: the new file; its suffix gives the container.
        max_lag: largest lag to look for in both directions, in milliseconds.
        min_confidence: refuse a lag that is measured with a confidence below this.
        fix_drift: also take a drift out: resample the sound.
        delay_audio: move the sound by this many milliseconds, negative to an earlier time, without measuring.
        audio_codec: codec of the sound, as ffmpeg calls it, or ``copy`` to move time stamps alone; None for the
            video's own.
        always_write: also write an output, a copy, if there is nothing to do.
        overwrite: replace an output that exists.
        audio_stream: index of the audio stream to measure; all are moved.
        face_crops, detect_every, precision, facedet_scale, crop_scale, min_track, num_failed_det, min_face_size,
            scene_threshold, batch_size, initial_model, s3fd_weights, device, progress: as in ``score_video``.

    Raises:
        UsageError: arguments are invalid or do not work together, or the output is refused.
        RefusedError: the lag is not to be trusted; ``measurement`` has the lags of the shots.
        MediaError: the video cannot be used, such as one without a face or without sound.
        SyncNetError: the output cannot be written, or is not in step, or the weights cannot be used.
    """
    from syncnet.media.resync import check_holds, check_target
    from syncnet.results.layout import check_input, check_output
    from syncnet.steps import correct

    check_mode(defaults.DIRECT, precision=precision)
    settings = correct.CorrectionSettings(
        max_lag=max_lag,
        min_confidence=min_confidence,
        fix_drift=fix_drift,
        delay_audio=delay_audio,
        audio_codec=audio_codec,
        always_write=always_write,
    )
    videofile = check_input(path)
    output = check_output(output, videofile=videofile, overwrite=overwrite)
    check_holds(videofile, format=check_target(output, audio_codec=audio_codec), audio_codec=audio_codec)

    def measure(file: Path) -> correct.Measurement:
        from syncnet.steps.direct import DirectSettings  # loads torch, which ``delay_audio`` does not need

        scoring = DirectSettings(
            facedet_scale=facedet_scale,
            crop_scale=crop_scale,
            min_track=min_track,
            num_failed_det=num_failed_det,
            min_face_size=min_face_size,
            scene_threshold=scene_threshold,
            detect_every=detect_every,
            face_crops=face_crops,
            batch_size=batch_size,
        )
        return correct.measure(
            file,
            detector=None if face_crops else load_detector(device, s3fd_weights, precision),
            net=load_net(device, initial_model, precision),
            settings=scoring,
            max_lag=max_lag,
            min_confidence=min_confidence,
            audio_stream=audio_stream,
            progress=progress,
        )

    return correct.run(videofile, output, measure=measure, settings=settings)


def split_speakers(
    score: Score,
    folder: str | Path,
    *,
    min_span: float = defaults.MIN_SPAN,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write every time in which a face speaks as a clip of its own: its crop, 224x224, and its sound; and index.csv.

    Args:
        score: from ``score_video``; the video is read again.
        folder: new folder for the clips.
        min_span: shortest clip, in seconds.
        overwrite: replace the clips that an earlier run wrote to the folder.
        progress: as in ``syncnet.progress``.

    Returns:
        Paths of the clips, by time.

    Raises:
        UsageError: something in the folder would be lost, or the score is not of a file.
        MediaError: the video or its sound cannot be read any more.
        SyncNetError: the clips cannot be written.
    """
    from syncnet.steps import split

    if score.videofile is None:
        raise UsageError("split_speakers: needs the score of a file: these frames are in memory")
    paths = [track.path for track in score.tracks]
    return split.run(score.report, paths, folder, min_span=min_span, overwrite=overwrite, progress=progress)


def check_mode(mode: str, *, precision: str) -> None:
    """Raise an error for an unknown mode or precision, or for two that do not work together.

    Raises:
        UsageError: they do not.
    """
    if mode not in defaults.MODES:
        raise UsageError(f"--mode {mode}: not a mode: choose one of {', '.join(defaults.MODES)}")
    if precision not in defaults.PRECISIONS:
        raise UsageError(f"--precision {precision}: choose one of {', '.join(defaults.PRECISIONS)}")
    if mode == defaults.PUBLISHED and precision != defaults.FLOAT32:
        raise UsageError(f"--precision {precision}: published scores need {defaults.FLOAT32}: use --mode direct")


def published(
    path: str | Path,
    settings: Any,
    *,
    net: SyncNetInstance,
    load: functools.partial[S3FD] | None,
    sound: dict[str, Any],
    kept: Layout | None,
    progress: Progress,
) -> Score:
    """Score a video as run_pipeline and run_syncnet do; arguments as in ``score_video``."""
    from syncnet.results.step_files import load_json
    from syncnet.steps import pipeline, single
    from syncnet.steps import score as score_step

    same = ("batch_size", "vshift", "min_speaking")
    scoring = {**{name: getattr(settings, name) for name in same}, "print_line": lambda line: None}
    with contextlib.ExitStack() as stack:
        layout = kept or stack.enter_context(scratch())
        if load is None:
            report = single.run(path, layout, net, **sound, **scoring)
            return make_score(report, [], [])
        names = [item.name for item in fields(pipeline.PipelineSettings)]
        found = pipeline.run(
            path,
            layout,
            pipeline.PipelineSettings(**{name: getattr(settings, name) for name in names}),
            load_detector=load,
            progress=progress,
            **sound,
        )
        if found.tracks:
            result = score_step.run(layout, net, progress=progress, **scoring)
            report, scores = result.report, result.scores
        else:
            report, scores = load_json(layout.scores, made_by="run_pipeline.py"), []
        dists = [score_step.distances(score, vshift=settings.vshift) for score in scores]
        return make_score({**report, "reference": None}, dists, found.paths)


@contextlib.contextmanager
def scratch() -> Iterator[Layout]:
    """Make a ``Layout`` in a temporary folder, which is removed afterwards."""
    from syncnet.results.layout import Layout

    with tempfile.TemporaryDirectory(prefix="syncnet-") as folder:
        yield Layout(Path(folder), "video")
