"""Take the lag out of a video: measure it, move the sound, measure the result."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncnet import defaults, reasons
from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.errors import MediaError, SyncNetError, UsageError
from syncnet.media.resync import COPY, Shift, move_sound
from syncnet.progress import Progress, silent
from syncnet.results.layout import new_file
from syncnet.sync import lag

if TYPE_CHECKING:
    from syncnet.faces.detect import Detector
    from syncnet.steps.direct import DirectSettings, Net

IN_STEP_MS = 10  # a lag within this is left alone, and so is a drift that changes the lag by no more
LARGEST_ERROR_MS = 15
MOST_ROUNDS = 2
SHIFTS = 2 * defaults.VSHIFT + 1  # over which a confidence is computed
MINUTE = 60


@dataclass(frozen=True)
class ShotLag:
    """Lag of one track, a face in one shot: ``start`` and ``end`` in seconds, ``confidence``, ``lag_ms``."""

    start: float
    end: float
    confidence: float
    lag_ms: float
    lag_error_ms: float


@dataclass(frozen=True)
class Measurement:
    """What direct mode says of a video.

    Attributes:
        lag_ms: milliseconds by which the sound is early; None if there is no single lag.
        lag_error_ms: half-width of its 95 % interval.
        confidence: of the most confident track, over the shifts of -15 to 15 frames, or if the lag lies outside, over
            the 31 shifts around it; None without a scored track.
        drift_ms_per_min, drift_error_ms_per_min: of the longest track with a drift; None without.
        at_s: time at which a drifting lag is ``lag_ms``, in seconds.
        shots: lags of the scored tracks.
        reasons: texts that say why there is no lag, or why it is not to be trusted.
        at_edge: True if the lag is at the edge of the search.
    """

    lag_ms: float | None
    lag_error_ms: float | None
    confidence: float | None
    drift_ms_per_min: float | None
    drift_error_ms_per_min: float | None
    at_s: float
    shots: tuple[ShotLag, ...]
    reasons: tuple[str, ...]
    at_edge: bool = False

    @property
    def drifts(self) -> bool:
        """True if the drift is significant, and changes the lag by more than ``IN_STEP_MS`` over all shots."""
        if self.drift_ms_per_min is None or self.drift_error_ms_per_min is None:
            return False
        minutes = (max(shot.end for shot in self.shots) - min(shot.start for shot in self.shots)) / MINUTE
        drift = abs(self.drift_ms_per_min)
        return drift > self.drift_error_ms_per_min and drift * minutes > IN_STEP_MS


@dataclass(frozen=True)
class CorrectionSettings:
    """Settings of ``run``, named like the flags of correct_offset.py."""

    max_lag: float = defaults.MAX_LAG
    min_confidence: float = reasons.SURE_CONFIDENCE
    fix_drift: bool = False
    delay_audio: float | None = None
    audio_codec: str | None = None
    always_write: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_lag < math.inf:
            raise UsageError(f"--max_lag {self.max_lag:g}: must be a number of milliseconds above 0")
        if not math.isfinite(self.delay_audio or 0.0):
            raise UsageError(f"--delay_audio {self.delay_audio}: must be a number of milliseconds")
        if self.fix_drift and self.audio_codec == COPY:
            raise UsageError(f"--fix_drift needs new samples: it does not work with --audio_codec {COPY}: drop one")
        if self.fix_drift and self.delay_audio is not None:
            raise UsageError("--fix_drift measures, --delay_audio does not: drop one")


@dataclass(frozen=True)
class Correction:
    """Result of ``run``.

    Attributes:
        before, after: measurements; ``after`` is None if nothing was written or measured.
        shift: by how much the sound was moved in all; None if nothing was to be done.
        written: True if there is an output.
        rounds: how often the sound was moved.
        notes: what could not be kept, one line each.
    """

    before: Measurement | None
    after: Measurement | None
    shift: Shift | None
    written: bool
    rounds: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the correction as a JSON object."""
        return asdict(self)


class RefusedError(SyncNetError):
    """A lag that is not to be trusted, so that nothing is corrected.

    Args:
        message: text for the user.
        measurement: what was measured.
    """

    exit_code = 3

    def __init__(self, message: str, measurement: Measurement | None = None) -> None:
        super().__init__(message)
        self.measurement = measurement


Measure = Callable[[Path], Measurement]


def search_range(max_lag: float) -> int:
    """Return the largest shift to try, in frames, so that a lag of ``max_lag`` milliseconds is not at the edge."""
    return max(defaults.VSHIFT, math.ceil(max_lag / MILLISECONDS_PER_FRAME) + 1)


def measure(
    videofile: str | Path,
    *,
    detector: Detector | None,
    net: Net,
    settings: DirectSettings,
    max_lag: float = defaults.MAX_LAG,
    min_confidence: float = reasons.SURE_CONFIDENCE,
    audio_stream: int | None = None,
    progress: Progress = silent,
) -> Measurement:
    """Measure the lag of a video in direct mode.

    Args:
        videofile, detector, net, audio_stream, progress: as in ``direct.run``.
        settings: ``DirectSettings``, whose ``vshift`` does not count.
        max_lag, min_confidence: as in ``measurement_of``.

    Raises:
        MediaError: the video cannot be used.
    """
    from syncnet.steps import direct  # loads torch, which --delay_audio does not need

    found = direct.run(
        videofile,
        detector=detector,
        net=net,
        settings=replace(settings, vshift=search_range(max_lag)),
        audio_stream=audio_stream,
        progress=progress,
    )
    return measurement_of(found.report, found.dists, max_lag=max_lag, min_confidence=min_confidence)


def measurement_of(
    report: dict[str, Any],
    dists: Sequence[np.ndarray] | None,
    *,
    max_lag: float = defaults.MAX_LAG,
    min_confidence: float = reasons.SURE_CONFIDENCE,
) -> Measurement:
    """Return the measurement that a result of direct mode contains.

    Args:
        report: content of scores.json.
        dists: per track its distances, windows x shifts; None to take the confidences of the report.
        max_lag: largest lag to believe, in milliseconds.
        min_confidence: confidence from which tracks count, if it is below ``SURE_CONFIDENCE``.
    """
    shots, at_edge = [], False
    least = min(min_confidence, reasons.SURE_CONFIDENCE)
    for index, record in enumerate(report["tracks"]):
        if record["confidence"] is None:
            continue
        if dists is None:
            confidence = record["confidence"]
            outermost = reasons.EDGE_OFFSET in [reason["code"] for reason in record["reasons"]]
        else:
            confidence, outermost = rate(dists[index])
        shot = ShotLag(record["start"], record["end"], confidence, record["lag_ms"], record["lag_error_ms"])
        shots.append((shot, record))
        at_edge = at_edge or (confidence >= least and (outermost or abs(shot.lag_ms) > max_lag))
    counting = [(shot, record) for shot, record in shots if shot.confidence >= least]
    lags = [lag.Lag(shot.lag_ms, shot.lag_error_ms) for shot, _ in counting]
    found = lag.of_video([(shot.confidence, each) for (shot, _), each in zip(counting, lags)], least=least)
    drifting = [record for _, record in counting if record["drift_ms_per_min"] is not None]
    longest = max(drifting, key=lambda record: record["windows"], default=None)
    middles = [(shot.start + shot.end) / 2 for shot, _ in counting]
    combined, why = (None, [found.text]) if isinstance(found, reasons.Reason) else (found, [])
    return Measurement(
        lag_ms=combined.ms if combined else None,
        lag_error_ms=combined.error_ms if combined else None,
        confidence=max((shot.confidence for shot, _ in shots), default=None),
        drift_ms_per_min=longest["drift_ms_per_min"] if longest else None,
        drift_error_ms_per_min=longest["drift_error_ms_per_min"] if longest else None,
        at_s=float(np.average(middles, weights=lag.weights(lags))) if lags else 0.0,
        shots=tuple(shot for shot, _ in shots),
        reasons=(*texts(report, scored=bool(shots)), *(why if shots else [])),
        at_edge=at_edge,
    )


def rate(dists: np.ndarray) -> tuple[float, bool]:
    """Return the confidence of a track over the shifts that score_video tries, or as many around a lag outside them.

    Args:
        dists: windows x (2 * vshift + 1) array of distances.

    Returns:
        Confidence, and True if the best shift is the outermost.
    """
    mean = dists.mean(axis=0)
    best, last, vshift = int(mean.argmin()), len(mean) - 1, len(mean) // 2
    first = vshift - defaults.VSHIFT
    if not first <= best <= vshift + defaults.VSHIFT:
        first = min(best - defaults.VSHIFT, len(mean) - SHIFTS)
    first = max(0, first)
    return float(np.median(mean[first : first + SHIFTS]) - mean[best]), best in (0, last)


def texts(report: dict[str, Any], *, scored: bool) -> list[str]:
    """Return what a report says of the video, and if no track is scored, of the tracks."""
    judged = (reasons.NO_CONFIDENT_TRACK, reasons.TRACKS_DISAGREE)  # anew, with other confidences
    found = [reason for reason in report["reasons"] if reason["code"] not in judged]
    if not scored:
        found += [reason for record in report["tracks"] for reason in record["reasons"]]
    return [reason["text"] for reason in found]


def run(
    videofile: Path, output: Path, *, measure: Measure, settings: CorrectionSettings, before: Measurement | None = None
) -> Correction:
    """Write a corrected copy of a video, which appears complete or not at all.

    Args:
        videofile: the video, which is not touched.
        output: the new file; its suffix gives the container. The caller has checked that it may be written.
        measure: measures a file.
        settings: settings.
        before: measurement of ``videofile``, if there is one.

    Raises:
        RefusedError: the lag is not to be trusted; the message says why.
        MediaError: the video cannot be used.
        DiskFullError: the disk is full.
        SyncNetError: the result is not in step, or cannot be written.
    """
    if settings.delay_audio is not None:
        shift = Shift(settings.delay_audio)
        notes = write(videofile, output, shift=shift, audio_codec=settings.audio_codec)
        return Correction(before=None, after=None, shift=shift, written=True, rounds=1, notes=notes)
    before = before or measure(videofile)
    if before.confidence is None:
        raise MediaError(f"{videofile}: {'; '.join(before.reasons) or 'nothing to measure'}")
    if why := distrust(before, settings) or too_vague(before):
        raise RefusedError(f"{videofile}: not corrected: {why}", before)
    first = shift_of(before, settings)
    if first is None:
        notes = ()
        if settings.always_write:
            notes = write(videofile, output, shift=None, audio_codec=settings.audio_codec)
        return Correction(before, after=None, shift=None, written=settings.always_write, rounds=0, notes=notes)
    shift, rounds = first, 0
    with new_file(output) as temporary:
        while True:
            rounds += 1
            moved = move_sound(videofile, temporary, shift=shift, audio_codec=settings.audio_codec)
            after = measure(temporary)
            if why := distrust(after, settings):
                raise RefusedError(f"{videofile}: not corrected: of the result, {why}", before)
            more = shift_of(after, settings)
            if more is None or rounds == MOST_ROUNDS:
                break
            shift = add(shift, more)
        if more is not None and not is_better(after, before):
            raise SyncNetError(failure(videofile, before, after))
    return Correction(before, after, shift, written=True, rounds=rounds, notes=moved.notes)


def write(videofile: Path, output: Path, *, shift: Shift | None, audio_codec: str | None) -> tuple[str, ...]:
    """Write a copy of a video whose sound is moved, or a plain copy, and return the notes of ``Moved``."""
    if shift is not None or videofile.suffix.lower() != output.suffix.lower():
        return move_sound(videofile, output, shift=shift or Shift(0.0), audio_codec=audio_codec).notes
    with new_file(output) as temporary:
        shutil.copyfile(videofile, temporary)
    return ()


def shift_of(found: Measurement, settings: CorrectionSettings) -> Shift | None:
    """Return the shift that takes a lag out; None if nothing is to be done. Sound that is early is delayed."""
    assert found.lag_ms is not None
    if settings.fix_drift and found.drifts:
        return Shift(found.lag_ms, drift_ms_per_min=found.drift_ms_per_min or 0.0, at_s=found.at_s)
    return Shift(found.lag_ms) if abs(found.lag_ms) > IN_STEP_MS else None


def add(first: Shift, more: Shift) -> Shift:
    """Return the shift that does what two do one after the other."""
    delay_ms = first.delay_ms + more.delay_ms + more.drift_ms_per_min * (first.at_s - more.at_s) / MINUTE
    return replace(first, delay_ms=delay_ms, drift_ms_per_min=first.drift_ms_per_min + more.drift_ms_per_min)


def distrust(found: Measurement, settings: CorrectionSettings) -> str | None:
    """Return why a measurement is not to be trusted, and what to do; None if it is."""
    if found.at_edge:
        return (
            f"the lag is beyond --max_lag {settings.max_lag:g} or at the edge of the search: widen it with --max_lag "
            f"{max(2 * settings.max_lag, defaults.MAX_LAG):g}"
        )
    if found.confidence is None or found.confidence < settings.min_confidence:
        return (
            f"confidence {found.confidence or 0:.2f} is below --min_confidence {settings.min_confidence:g}: check that "
            "the sound belongs to the picture, widen the search with --max_lag, or move it by hand with --delay_audio"
        )
    if found.lag_ms is None:
        return f"{'; '.join(found.reasons)}: correct each shot by itself, or move the sound by hand with --delay_audio"
    return None


def too_vague(found: Measurement) -> str | None:
    """Return why the error of a measurement is too large, and what to do; None if it is not."""
    if found.lag_error_ms is None or found.lag_error_ms <= LARGEST_ERROR_MS:
        return None
    return (
        f"the lag, {found.lag_ms:.0f} ms, is only known to +-{found.lag_error_ms:.0f} ms, more than "
        f"{LARGEST_ERROR_MS}: measure a longer video, or move the sound by hand with --delay_audio"
    )


def is_better(after: Measurement, before: Measurement) -> bool:
    """Return True if no lag is left, and less drift than before, if any."""
    assert after.lag_ms is not None
    smaller = abs(after.drift_ms_per_min or 0.0) < abs(before.drift_ms_per_min or 0.0)
    return abs(after.lag_ms) <= IN_STEP_MS and smaller


def failure(videofile: Path, before: Measurement, after: Measurement) -> str:
    """Return the message about a result that is not in step."""
    drift = f", and a drift of {after.drift_ms_per_min:.0f} ms per minute" if after.drifts else ""
    return (
        f"{videofile}: a lag of {after.lag_ms:.0f} ms{drift} is left of {before.lag_ms:.0f} ms after {MOST_ROUNDS} "
        "rounds: the output is removed; move the sound by hand with --delay_audio"
    )
