"""Lag in milliseconds: how far sound and picture are apart, far below a frame, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncnet.reasons import Reason


@dataclass(frozen=True)
class Lag:
    """Lag of a track.

    Attributes:
        ms: milliseconds by which the audio is early; negative if it is late.
        error_ms: half-width of the 95 % interval of ``ms``.
        drift_ms_per_min: milliseconds by which ``ms`` grows in a minute; None for a track of at most 20 s.
        drift_error_ms_per_min: half-width of the 95 % interval of the drift; None without drift.
    """

    ms: float
    error_ms: float
    drift_ms_per_min: float | None = None
    drift_error_ms_per_min: float | None = None


def measure(dists: np.ndarray, *, audio: range | None = None, zero_ms: float = 0.0, picture_ms: float = 0.0) -> Lag:
    """Measure the lag of a track.

    Args:
        dists: windows x (2 * vshift + 1) array of distances, as in ``SyncScore``: column k compares window i of the
            video with window i + k - vshift of the audio.
        audio: windows of the audio that exist, relative to the track's first window; None for all that ``dists``
            compares with. Others are zero or silence and must not count.
        zero_ms: what these weights measure where sound and picture are in step.
        picture_ms: mean time by which the pictures in the windows lie after the windows' own times.
    """
    raise NotImplementedError


def of_video(lags: Sequence[tuple[float, Lag]]) -> Lag | Reason:
    """Combine the lags of a video's tracks, or return the ``Reason`` why it has no single lag.

    Args:
        lags: confidence and ``Lag`` of every scored track.
    """
    raise NotImplementedError
