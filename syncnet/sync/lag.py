"""Lag in milliseconds: how far sound and picture are apart, far below a frame, and how sure that is.

The mean squared distance is a constant minus the correlation of the two streams, whose peak over the shifts is close to
a Gaussian: its logarithm is a parabola, and three columns around the minimum give its place. A parabola through mean
distances instead is drawn towards whole frames, by up to 3 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, WINDOW_FRAMES
from syncnet.reasons import Reason

REACH = 2  # columns on either side of the minimum in which a resampled curve may have its own
BLOCK_WINDOWS = 8  # neighbouring windows share frames and phones, so they are resampled in blocks
FEWEST_BLOCKS = 3
# Windows share frames, so blocks are not independent: the covariance between blocks, relative to the variance of a
# block's sum, times the length of a block.
SHARED_WINDOWS = (WINDOW_FRAMES**2 - 1) / (3 * WINDOW_FRAMES)
MOST_BLOCKS = 200  # longer tracks have longer blocks
RESAMPLES = 400
SURE = 0.975  # quantile that bounds a two-sided interval of 95 %

DRIFT_SECONDS = 20  # longer tracks have a drift
DRIFT_BLOCK_WINDOWS = FRAME_RATE
LARGEST_DRIFT_MS_PER_MIN = 600
NEWTON_STEPS = 10
MINUTE_WINDOWS = 60 * FRAME_RATE
LEAST_ERROR_MS = 0.1  # in weights


@dataclass(frozen=True)
class Lag:
    """Lag of a track.

    Attributes:
        ms: milliseconds by which the audio is early; negative if it is late. If it drifts, in the middle of the track.
        error_ms: half-width of the 95 % interval of ``ms``; of the whole search if ``ms`` is at its edge, or if
            hardly any window has audio.
        drift_ms_per_min: milliseconds by which ``ms`` grows in a minute; None for a track of at most 20 s, and at the
            edge of the search.
        drift_error_ms_per_min: half-width of the 95 % interval of the drift; None without drift.
    """

    ms: float
    error_ms: float
    drift_ms_per_min: float | None = None
    drift_error_ms_per_min: float | None = None


class Line(NamedTuple):
    """Line along which the squared distances are smallest, in columns.

    Attributes:
        column: its place in the middle of the track.
        slope: columns per window.
        error: half-width of the 95 % interval of the slope.
    """

    column: float
    slope: float
    error: float


class Tolerance(NamedTuple):
    """Limits in milliseconds up to which a recommendation lets sound be early or late."""

    name: str
    early: int
    late: int

    def allows(self, lag_ms: float) -> bool:
        return -self.late <= lag_ms <= self.early


TOLERANCES = (Tolerance("EBU R37", early=40, late=60), Tolerance("ATSC IS-191", early=15, late=45))
DETECTABLE = Tolerance("ITU-R BT.1359", early=45, late=125)  # where viewers begin to notice


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
    count, columns = dists.shape
    vshift = columns // 2
    squares = np.square(dists)
    best = int(dists.mean(axis=0).argmin())  # that of ``scoring.score``, so that lag and offset agree

    def existing(first: int, last: int) -> slice:
        """Return the windows whose audio exists at all columns from ``first`` to ``last``."""
        if audio is None:
            return slice(0, count)
        start = min(count, max(0, audio.start + vshift - first))
        return slice(start, max(start, min(count, audio.stop + vshift - last)))

    def milliseconds(column: float) -> float:
        return float((vshift - column) * MILLISECONDS_PER_FRAME - zero_ms + picture_ms)

    near = np.arange(max(0, best - REACH), min(columns, best + REACH + 1))
    curves = squares[existing(near[0], near[-1]), near[0] : near[-1] + 1]
    if not 0 < best < columns - 1 or len(curves) < FEWEST_BLOCKS:
        return Lag(milliseconds(best), float(vshift * MILLISECONDS_PER_FRAME))
    complete = squares[existing(0, columns - 1)]
    if len(complete) > DRIFT_SECONDS * FRAME_RATE:
        blocks = block_means(complete, DRIFT_BLOCK_WINDOWS)
        blocks -= np.median(blocks.mean(axis=0))
        times = np.arange(len(blocks)) * len(complete) / len(blocks)
        times -= times.mean()
        line = fit_line(blocks, times, windows=len(complete))
        if line is not None:
            near = round(line.column) + np.arange(-REACH, REACH + 1)
            aligned = np.stack([interpolate(blocks, column + line.slope * times) for column in near], axis=1)
            place, error = locate(aligned, 0.0, windows=len(complete))
            return Lag(
                milliseconds(near[0] + place),
                error * MILLISECONDS_PER_FRAME,
                -line.slope * MINUTE_WINDOWS * MILLISECONDS_PER_FRAME,
                line.error * MINUTE_WINDOWS * MILLISECONDS_PER_FRAME,
            )
    usable = [squares[existing(k, k), k] for k in range(columns)]
    base = float(np.median([column.mean() for column in usable if len(column)]))
    place, error = locate(block_means(curves, BLOCK_WINDOWS), base, windows=len(curves))
    # without a match the squared distances can have their minimum elsewhere: lag and offset must not contradict
    column = min(max(near[0] + place, best - 1), best + 1)
    return Lag(milliseconds(column), error * MILLISECONDS_PER_FRAME)


def block_means(values: np.ndarray, length: int) -> np.ndarray:
    """Return the means of ``MOST_BLOCKS`` consecutive blocks of rows, or of fewer, of at least ``length`` rows each."""
    count = min(MOST_BLOCKS, max(FEWEST_BLOCKS, len(values) // length), len(values))
    edges = np.arange(count + 1) * len(values) // count
    return np.add.reduceat(values, edges[:-1], axis=0, dtype=np.float64) / np.diff(edges)[:, None]


def resampled(blocks: np.ndarray) -> np.ndarray:
    """Return the means of ``RESAMPLES`` samples of the rows, drawn with replacement; always the same draw."""
    count = len(blocks)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return drawn @ blocks / count


def half_width(estimates: np.ndarray, *, blocks: int, windows: int, parameters: int) -> float:
    """Return the half-width of the 95 % interval of a value, from its estimates on resampled blocks.

    Args:
        estimates: the estimates.
        blocks: number of blocks; few of them need a correction.
        windows: number of windows in all blocks.
        parameters: number of values estimated from them.
    """
    free = max(1, blocks - parameters)
    apart = 1 - SHARED_WINDOWS * blocks / windows if windows > SHARED_WINDOWS * blocks else 1.0
    return float(estimates.std() * np.sqrt(blocks / free / apart) * stdtrit(free, SURE))


def locate(blocks: np.ndarray, base: float, *, windows: int) -> tuple[float, float]:
    """Find the minimum of a curve of squared distances.

    Args:
        blocks: the curve's blocks, blocks x columns.
        base: mean squared distance far from the minimum.
        windows: number of windows in all blocks.

    Returns:
        Column of the minimum, and half-width of its 95 % interval.
    """
    [place] = minima(blocks.mean(axis=0)[None], base)
    error = half_width(minima(resampled(blocks), base), blocks=len(blocks), windows=windows, parameters=1)
    return float(place), error


def minima(curves: np.ndarray, base: float) -> np.ndarray:
    """Return the columns of the minima of curves x columns; an outermost column is not refined."""
    last = curves.shape[1] - 1
    best = curves.argmin(axis=1)
    inner = np.clip(best, 1, last - 1)
    around = base - curves[np.arange(len(curves))[:, None], inner[:, None] + [-1, 0, 1]]
    peaked = (around > 0).all(axis=1, keepdims=True)
    before, peak, after = np.where(peaked, np.log(np.where(peaked, around, 1.0)), around).T
    refined = inner == best
    bend = np.where(refined, 2 * peak - before - after, 1.0)
    return np.where(refined, inner + (after - before) / (2 * bend), best)


def interpolate(curves: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return every curve's value at its own place, a fraction of columns; curves are band-limited and end at zero."""
    return (curves * np.sinc(places[:, None] - np.arange(curves.shape[1]))).sum(axis=1)


def fit_line(curves: np.ndarray, times: np.ndarray, *, windows: int) -> Line | None:
    """Fit the line along which the squared distances are smallest.

    Args:
        curves: blocks x columns, minus the value far from the minimum.
        times: their times in windows, with a mean of zero.
        windows: number of windows in all blocks.

    Returns:
        The line; None if it leaves the columns, or if there is no minimum.
    """
    column, slope = steepest(curves, times)
    for _ in range(NEWTON_STEPS):
        places = column + slope * times
        if places.min() < 1 or places.max() > curves.shape[1] - 2:
            return None
        before, middle, after = (interpolate(curves, places + step) for step in (-1, 0, 1))
        rise, bend = (after - before) / 2, after + before - 2 * middle
        terms = np.stack([bend, times, times**2, rise, rise * times], axis=1)
        [(right, steeper)] = newton_steps(terms.mean(axis=0)[None])
        column, slope = column + right, slope + steeper
    steps = newton_steps(resampled(terms))[:, 1]
    return Line(float(column), float(slope), half_width(steps, blocks=len(times), windows=windows, parameters=2))


def newton_steps(terms: np.ndarray) -> np.ndarray:
    """Return the changes of column and slope, N x 2, from the N x 5 means of the terms in ``fit_line``.

    Single blocks bend too irregularly, so all have the mean bend.
    """
    bend, time, square, rise, rise_time = terms.T
    scale = np.maximum(bend, np.finfo(np.float32).tiny) * (square - time**2)
    return np.stack([time * rise_time - square * rise, time * rise - rise_time], axis=1) / scale[:, None]


def steepest(curves: np.ndarray, times: np.ndarray) -> tuple[float, float]:
    """Return column and slope of the line, of those half a column apart at its ends, with the smallest mean."""
    columns = curves.shape[1]
    span = times[-1] - times[0]
    largest = min(LARGEST_DRIFT_MS_PER_MIN / MILLISECONDS_PER_FRAME / MINUTE_WINDOWS * span, columns - 3)
    found = []
    for rise in np.arange(-np.floor(2 * largest), 2 * largest + 1) / 2:
        moved = np.rint(times * (rise / span)).astype(int)
        places = np.arange(1 - moved.min(), columns - 1 - moved.max())
        if len(places):
            means = curves[np.arange(len(curves))[:, None], moved[:, None] + places].mean(axis=0)
            found.append((means.min(), places[means.argmin()], rise / span))
    _, column, slope = min(found)
    return float(column), float(slope)


def of_video(lags: Sequence[tuple[float, Lag]], *, least: float = reasons.SURE_CONFIDENCE) -> Lag | Reason:
    """Combine the lags of a video's tracks, or return the ``Reason`` why it has no single lag.

    Args:
        lags: confidence and ``Lag`` of every scored track.
        least: confidence from which a track counts.
    """
    sure = [lag for confidence, lag in lags if confidence >= least]
    if not sure:
        return reasons.no_confident_track(least=least)
    ms = np.array([lag.ms for lag in sure])
    if np.ptp(ms) > reasons.AGREEMENT_MS:
        return reasons.tracks_disagree(earliest=float(ms.min()), latest=float(ms.max()), least=least)
    shares = weights(sure)
    return Lag(float(np.average(ms, weights=shares)), float(1 / np.sqrt(shares.sum())))


def weights(lags: Sequence[Lag]) -> np.ndarray:
    """Return the weights of lags in their mean: the inverse squares of their errors."""
    return 1 / np.maximum(LEAST_ERROR_MS, [lag.error_ms for lag in lags]) ** 2


def tolerances(lag_ms: float) -> str:
    """Return a sentence on a lag and whether it is within the tolerances of broadcasters."""
    where = f"{abs(lag_ms):.0f} ms {'early' if lag_ms > 0 else 'late'}"
    if not round(lag_ms):
        where = "neither early nor late"
    verdicts = [
        f"{'within' if limit.allows(lag_ms) else 'outside'} {limit.name} (at most {limit.early} ms early, "
        f"{limit.late} ms late)"
        for limit in TOLERANCES
    ]
    noticed = "below what viewers notice" if DETECTABLE.allows(lag_ms) else "viewers may notice it"
    return (
        f"The sound is {where}: {', '.join(verdicts)}; {noticed} ({DETECTABLE.name}: from {DETECTABLE.early} ms early, "
        f"{DETECTABLE.late} ms late)."
    )
