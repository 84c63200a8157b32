"""Take the lag out of a video: measure it, move the sound, measure the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syncnet.errors import SyncNetError
from syncnet.media.resync import Shift


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


@dataclass(frozen=True)
class CorrectionSettings:
    """Settings of ``run``, named like the flags of correct_offset.py."""

    max_lag: float = 600.0
    min_confidence: float = 3.0
    fix_drift: bool = False
    delay_audio: float | None = None
    audio_codec: str | None = None
    always_write: bool = False


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
        raise NotImplementedError


class RefusedError(SyncNetError):
    """A lag that is not to be trusted, so that nothing is corrected."""

    exit_code = 3


Measure = Callable[[Path], Measurement]


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
    raise NotImplementedError
