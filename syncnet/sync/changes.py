"""Changes of the offset within a track: a jump, or a drift.

A track has one offset if one column of its distances is the nearest all along. Exact dynamic programming finds the
piecewise constant offsets of which the sum of the distances, plus a cost for every change, is smallest. That alone
splits noise too, so a change only counts if both of its stretches are long enough, have speech, are confident, and
prefer their own offset to that of the other: by a statistic of the paired differences of the distances, as in a t test.
The weakest change is dropped, its stretches joined, and the others are tested again. A face that talks in one stretch
only has no offset in the other that could pass.

A drift is the straight line along which the sum of the distances is smallest, if it is smaller than along the steps.
It is tested against the best single offset in the same way; one of less than two frames only by ``lag``, in tracks
long enough to have a drift there.

Every window's distances count minus their mean, and relative to the spread of all: their scale, which differs between
networks, does not matter, but for the least confidence.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, WINDOW_FRAMES
from syncnet.sync.lag import DRIFT_SECONDS, MINUTE_WINDOWS, Lag, block_means, measure

CENTRE = WINDOW_FRAMES // 2  # window i belongs to frame i + CENTRE
CHANGE = 20.0  # cost of a change, in spreads of the distances
LEAST_HEARD = FRAME_RATE // 2  # frames of a stretch that have speech
LEAST_STEP = 2  # frames between two offsets
LEAST_SHARE = 0.4  # of a stretch's confidence in that of its neighbour
SURE_STEP = 3.25  # standard errors by which a stretch prefers its own offset to that of its neighbour
EDGE = 2  # outermost columns, whose minima are hardly ever peaks
LINE_SECONDS = 10  # of the shortest track that can drift
LINE_BLOCK = 12  # windows; within a block a drift is too small to matter
SURE_LINE = 3.0  # standard errors by which a line is nearer than a single offset
LEAST_LINE = 1  # frames of a drift that ``lag`` finds
LAG_ERRORS = 1.5  # half-widths of the interval of a drift that it must exceed
LEAST_SPREAD = 1e-3  # of differences; silence has none


class Step(NamedTuple):
    """A change of the offset.

    Attributes:
        frame: first frame of the track that has the new offset.
        before, after: the offsets, in frames.
    """

    frame: int
    before: int
    after: int


@dataclass(frozen=True)
class Changes:
    """How the offset of a track changes.

    Attributes:
        steps: every change; of a drift, one from the first to the last frame's offset.
        is_drift: whether the offset changes evenly.
    """

    steps: list[Step]
    is_drift: bool


class Line(NamedTuple):
    """Offsets that change evenly.

    Attributes:
        rise: columns from the first to the last window.
        column: column in the middle.
        values: the relative distance of every block on the line.
    """

    rise: float
    column: int
    values: np.ndarray


def find(dists: np.ndarray, *, heard: np.ndarray, lag: Lag | None = None) -> Changes | None:
    """Find out whether the offset of a track changes; None if it does not, or if that is not sure.

    Args:
        dists: windows x (2 * vshift + 1) array of distances, as in ``SyncScore``.
        heard: per frame of the track, True if its sound has speech.
        lag: lag of the track, if it is known.
    """
    count, columns = dists.shape
    if count < 2 * reasons.LEAST_WINDOWS or columns <= 2 * LEAST_STEP:
        return None
    below = without_mean(dists)
    spread = float(below.std())
    if not spread > 0:
        return None
    relative = below / spread
    edges = confirmed(relative, stretches(relative), confidence=Confidence(below, heard))
    best = [int(relative[first:end].sum(axis=0).argmin()) for first, end in itertools.pairwise(edges)]
    total = sum(relative[first:end, column].sum() for (first, end), column in zip(itertools.pairwise(edges), best))
    line = sure_line(dists, relative, spread=spread, lag=lag) if int(heard.sum()) >= LEAST_HEARD else None
    vshift = columns // 2
    if line is not None and line.values.mean() * count < total:
        start, end = (round(vshift - line.column - side * line.rise / 2) for side in (-1, 1))
        return Changes([Step(0, start, end)], is_drift=True)
    steps = [
        Step(edge + CENTRE, vshift - before, vshift - after)
        for edge, (before, after) in zip(edges[1:], itertools.pairwise(best))
    ]
    return Changes(steps, is_drift=False) if steps else None


def without_mean(dists: np.ndarray) -> np.ndarray:
    """Return distances minus the mean of their window, and 0 where neighbours are alike: there is no sound."""
    alike = dists[:, 1:] == dists[:, :-1]
    known = ~(np.pad(alike, ((0, 0), (1, 0))) | np.pad(alike, ((0, 0), (0, 1))))
    means = (dists * known).sum(axis=1, keepdims=True) / np.maximum(1, known.sum(axis=1, keepdims=True))
    return np.where(known, dists - means, 0).astype(np.float32)


def stretches(relative: np.ndarray) -> list[int]:
    """Return the ends of the stretches whose sum of distances plus ``CHANGE`` per change is smallest (Viterbi)."""
    best = relative[0].astype(np.float64)
    came_from = np.empty(relative.shape, np.int32)
    stay = np.arange(relative.shape[1])
    for index in range(1, len(relative)):
        cheapest = int(best.argmin())
        changes = best > best[cheapest] + CHANGE
        came_from[index] = np.where(changes, cheapest, stay)
        best = np.where(changes, best[cheapest] + CHANGE, best) + relative[index]
    column, edges = int(best.argmin()), [len(relative)]
    for index in range(len(relative) - 1, 0, -1):
        before = int(came_from[index, column])
        if before != column:
            edges.append(index)
        column = before
    return [0, *reversed(edges)]


class Confidence(NamedTuple):
    """How confident a stretch of windows is of an offset of its own.

    Attributes:
        below: from ``without_mean``.
        heard: as in ``find``.
    """

    below: np.ndarray
    heard: np.ndarray

    def __call__(self, first: int, end: int) -> float:
        """Return the confidence of a stretch; 0 if it is too short, has no speech, or its best column is outermost."""
        means = self.below[first:end].mean(axis=0)
        best = int(means.argmin())
        usable = (
            end - first >= reasons.LEAST_WINDOWS
            and int(self.heard[first : end + WINDOW_FRAMES - 1].sum()) >= LEAST_HEARD
            and EDGE <= best < len(means) - EDGE
        )
        return float(np.median(means) - means[best]) if usable else 0.0


def confirmed(relative: np.ndarray, edges: list[int], *, confidence: Confidence) -> list[int]:
    """Return the ends of the stretches that are left when changes that are not sure are dropped, the weakest first."""
    edges = list(edges)
    while len(edges) > 2:
        sure = []
        for first, middle, end in zip(edges, edges[1:], edges[2:]):
            low, high = sorted((confidence(first, middle), confidence(middle, end)))
            both = preference(relative, first, middle, end), preference(relative, middle, end, first)
            sure.append(min(both) if low >= max(reasons.SURE_CONFIDENCE, LEAST_SHARE * high) else 0.0)
        weakest = int(np.argmin(sure))
        if sure[weakest] >= SURE_STEP:
            break
        del edges[weakest + 1]
    return edges


def preference(relative: np.ndarray, first: int, end: int, other: int) -> float:
    """Return by how many standard errors the windows from ``first`` to ``end`` prefer their best column to another.

    The other is the best column of the neighbouring stretch, which lies between ``other`` and the nearer of both ends.
    """
    neighbour = relative[end:other] if other >= end else relative[other:first]
    own, theirs = (int(part.sum(axis=0).argmin()) for part in (relative[first:end], neighbour))
    if abs(own - theirs) < LEAST_STEP:
        return 0.0
    return standard_errors(relative[first:end, theirs] - relative[first:end, own], alike=WINDOW_FRAMES)


def standard_errors(differences: np.ndarray, *, alike: int = 1) -> float:
    """Return the mean of differences in units of its standard error; so many neighbours share their frames."""
    spread = max(LEAST_SPREAD, float(differences.std()))
    return float(differences.mean()) / spread * float(np.sqrt(len(differences) / alike))


def sure_line(dists: np.ndarray, relative: np.ndarray, *, spread: float, lag: Lag | None) -> Line | None:
    """Return the drift of a track, if both of its halves are confident along it; None without one.

    Args:
        dists, lag: as in ``find``.
        relative: from ``without_mean``, divided by ``spread``.
        spread: as said.
    """
    count, columns = relative.shape
    if count < LINE_SECONDS * FRAME_RATE:
        return None
    blocks = block_means(relative, LINE_BLOCK)
    single = blocks[:, int(blocks.sum(axis=0).argmin())]
    reach = 2 * (columns - 1 - LEAST_STEP)
    line = nearest_line(blocks, np.arange(-reach, reach + 1) / 2)
    if abs(line.rise) < LEAST_STEP or standard_errors(single - line.values) < SURE_LINE:
        rise = lag_rise(dists, lag)
        if rise is None:
            return None
        line = nearest_line(blocks, np.array([rise]))
    middle = len(blocks) // 2
    confidences = [
        float(np.median(blocks[half].mean(axis=0)) - line.values[half].mean()) * spread
        for half in (slice(middle), slice(middle, None))
    ]
    return line if min(confidences) >= reasons.SURE_CONFIDENCE else None


def lag_rise(dists: np.ndarray, lag: Lag | None) -> float | None:
    """Return by how many columns a small drift moves the minimum; None without a sure one, or if the track is short."""
    count = len(dists)
    if count <= DRIFT_SECONDS * FRAME_RATE:
        return None
    found = lag or measure(dists, audio=range(count))
    if found.drift_ms_per_min is None or found.drift_error_ms_per_min is None:
        return None
    least = LEAST_LINE * MILLISECONDS_PER_FRAME * MINUTE_WINDOWS / count
    if abs(found.drift_ms_per_min) < max(least, LAG_ERRORS * found.drift_error_ms_per_min):
        return None
    return -found.drift_ms_per_min * count / MINUTE_WINDOWS / MILLISECONDS_PER_FRAME


def nearest_line(blocks: np.ndarray, rises: np.ndarray) -> Line:
    """Return the line of the smallest sum of blocks x columns, of those with one of the rises; 0 beyond the columns."""
    count, columns = blocks.shape
    padded = np.pad(blocks, ((0, 0), (columns, columns)))
    times = (np.arange(count) + 0.5) / count - 0.5
    found = []
    for rise in rises:
        places = np.rint(times * rise).astype(int)[:, None] + np.arange(columns, 2 * columns)
        values = np.take_along_axis(padded, places, axis=1)
        column = int(values.sum(axis=0).argmin())
        found.append(Line(float(rise), column, values[:, column]))
    return min(found, key=lambda line: float(line.values.sum()))
