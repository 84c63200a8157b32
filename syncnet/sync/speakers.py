"""Active speaker detection: who speaks when.

``find`` solves a hidden Markov model of each shot. In every frame with speech its state is one of the faces in the
picture, or nobody: somebody who is not in the picture speaks. A face's evidence in a frame is how well its lips match
the sound there, as a log-likelihood ratio of "this face speaks" to "it does not"; nobody's is 0. Changing from one
state to another costs the same everywhere, which makes durations geometric. The likeliest sequence of states comes from
Viterbi's algorithm, the posterior of every state from the forward-backward algorithm (Rabiner, "A tutorial on hidden
Markov models", Proceedings of the IEEE 1989). A silence belongs to nobody, and what comes after it does not depend on
what was before. Nor does it cost anything that a face comes into the picture or leaves it.

The evidence is the probability that the lag of a window is the one that is common to the faces of a shot: a softmax
over the shifts of the distances (the framewise confidence of Chung and Zisserman, ACCV workshops 2016, section 3, takes
their median instead). So it falls both if the distance is large and if another shift is nearer, which is how somebody
else's voice shows. Its logarithm is smoothed along time, and logistic regression on dialogues whose speakers are known
(``benchmarks.speakers``) makes it a log-likelihood ratio. What all pictures have in common with a sound is left out
before, because some sounds are near to any face, and distances are relative to their spread, so that their scale, which
differs between networks, does not matter.

``speaking_tracks`` and ``spans`` judge every frame alone, as the tag that run_visualise draws does.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from syncnet.constants import FRAME_RATE, WINDOW_FRAMES
from syncnet.defaults import MIN_SPEAKING, SPEAKER_THRESHOLD
from syncnet.sync import speech

SILENCE, NOBODY = -2, -1
CENTRE = WINDOW_FRAMES // 2  # window i belongs to frame i + CENTRE

DISTANCE_SMOOTHING, SMOOTHING = 1.5, 4.5  # frames, standard deviations: of distances, and of the evidence
TRUNCATE = 2.5  # reach of the smoothing, relative to its standard deviation
NEAR = 1  # shifts around the common lag that belong to it
SHARPNESS = 2.0  # of the softmax
PULL = 6.0  # of the video's lag on that of a shot, in units of the spread of the shot's curve
PULL_TO_ZERO = 0.25  # per shift
NORMAL_MAD = 1.4826  # standard deviation of normally distributed values, relative to their median absolute deviation
COMMON_SPREAD = 0.3  # share of the whole spread in that of a sound
LEAST_SPREAD = 1e-6
LARGEST_RATIO = 20.0  # nothing is surer
PIECE = 4096  # frames; limits memory use
RESCALED = 8  # frames; limits the exponents of likelihoods

# Fitted by ``python -m benchmarks.speakers --calibrate`` to the starter weights
INTERCEPT, WEIGHT = -0.237, 0.592
CHANGE = 3.8  # cost of a change, as a logarithm


@dataclass(frozen=True)
class Span:
    """Frames in which the face of one track speaks.

    Attributes:
        first, last: indices of the first and the last frame, inclusive.
        track: index of the track.
        confidence: probability that this face speaks, averaged over the frames.
    """

    first: int
    last: int
    track: int
    confidence: float = 1.0


@dataclass(frozen=True)
class Turns:
    """Who speaks when.

    Attributes:
        spans: the ``Span`` of every turn, by time.
        without_face: first and last frame of speech that no face in the picture utters.
        speaking: per track whether its face speaks, a bool for every frame of the track.
        heard: per track whether its sound has more than silence or noise, a bool for every frame of the track.
        has_speech: per track whether it is not only steady sound.
    """

    spans: list[Span]
    without_face: list[tuple[int, int]]
    speaking: list[np.ndarray]
    heard: list[np.ndarray] = field(default_factory=list)
    has_speech: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A track that may speak.

    Attributes:
        first: its first frame.
        frames: number of its frames.
        dists: windows x (2 * vshift + 1) array of distances; of a track without a score, no rows.
    """

    first: int
    frames: int
    dists: np.ndarray

    @property
    def end(self) -> int:
        """Number of the frame after its last one."""
        return self.first + self.frames


class Part(NamedTuple):
    """The windows of a track in one shot.

    Attributes:
        track: index of the track.
        first: frame to which the first window belongs.
        frames: the frames of the track in the shot.
        smooth: windows x shifts, the distances from ``relative``, a little smoothed along time; float32.
        curve: per shift the mean of those of windows whose sound has speech, in units of its spread.
    """

    track: int
    first: int
    frames: range
    smooth: np.ndarray
    curve: np.ndarray


class Shot(NamedTuple):
    """What is known of a shot before the lag is.

    Attributes:
        frames: its frames.
        parts: ``Part`` of every track that has windows there.
    """

    frames: range
    parts: list[Part]

    @property
    def curve(self) -> np.ndarray:
        """Sum of the curves of all parts; 0 without any."""
        return np.sum([part.curve for part in self.parts], axis=0)


def find(
    candidates: Sequence[Candidate],
    *,
    levels: np.ndarray,
    cuts: Sequence[int],
    min_speaking: float = MIN_SPEAKING,
) -> Turns:
    """Find out who speaks when.

    Args:
        candidates: the ``Candidate`` of every track.
        levels: levels of the sound, from ``speech.measure``.
        cuts: frames that begin a scene, without 0, in ascending order.
        min_speaking: seconds; a shorter span goes to the likelier of its neighbours.
    """
    speaker, sure = decide(analyse(candidates, levels=levels, cuts=cuts), min_speaking=min_speaking)
    return turns(candidates, speaker, sure)


@dataclass(frozen=True)
class Analysis:
    """What is known of a video before it is decided who speaks.

    Attributes:
        shots: all shots.
        columns: per shot the column of its common lag.
        heard: True for the frames whose sound has speech.
        vshift: largest shift.
    """

    shots: list[Shot]
    columns: list[int]
    heard: np.ndarray
    vshift: int

    def spoken(self, column: int) -> np.ndarray:
        """Return True for the frames in whose pictures somebody speaks, with the lag of a column."""
        return delayed(self.heard, self.vshift - column)


def analyse(candidates: Sequence[Candidate], *, levels: np.ndarray, cuts: Sequence[int]) -> Analysis:
    """Smooth the distances, and find speech and common lags; arguments as for ``find``."""
    total = max([len(levels), *(candidate.first + candidate.frames for candidate in candidates)])
    heard = np.zeros(total, bool)
    heard[: len(levels)] = speech.present(levels)
    bounds = [0, *(cut for cut in cuts if 0 < cut < total), total]
    shots = [Shot(range(first, end), []) for first, end in itertools.pairwise(bounds)]
    for track, candidate in enumerate(candidates):
        for index, part in parts_of(track, candidate, bounds, heard, sound=len(levels)):
            shots[index].parts.append(part)
    parts = [part for shot in shots for part in shot.parts]
    overall = np.sum([part.curve for part in parts], axis=0) if parts else np.zeros(1)
    columns = [common_lag(shot.curve, overall) for shot in shots]
    return Analysis(shots, columns, heard, len(overall) // 2)


def decide(analysis: Analysis, *, min_speaking: float) -> tuple[np.ndarray, np.ndarray]:
    """Return per frame the index of the track that speaks, ``NOBODY``, or ``SILENCE``, and the probability of that."""
    speaker, sure = np.full(len(analysis.heard), SILENCE), np.zeros(len(analysis.heard))
    for shot, column in zip(analysis.shots, analysis.columns):
        here = slice(shot.frames.start, shot.frames.stop)
        tracks, ratios = evidence(shot, column=column)
        for first, end in runs(analysis.spoken(column)[here]):
            part = ratios[first:end]
            states = without_short(likeliest(part), part, shortest=round(min_speaking * FRAME_RATE))
            frames = slice(shot.frames.start + first, shot.frames.start + end)
            sure[frames] = posterior(part)[np.arange(end - first), states]
            speaker[frames] = np.where(states == SILENCE, SILENCE, tracks[states])
    return speaker, sure


def parts_of(
    track: int, candidate: Candidate, bounds: Sequence[int], heard: np.ndarray, *, sound: int
) -> Iterator[tuple[int, Part]]:
    """Yield the shots, by their index, in which a track has windows, with its ``Part``.

    Args:
        track: index of the track.
        candidate: the track.
        bounds: first frames of the shots, and the number of frames.
        heard: True for the frames of the video whose sound has speech.
        sound: number of frames that have sound.
    """
    count = len(candidate.dists)
    if not count:
        return
    below = relative(candidate, sound=sound)
    centre, last = candidate.first + CENTRE, candidate.first + candidate.frames
    for shot in range(bisect_right(bounds, candidate.first) - 1, len(bounds) - 1):
        if bounds[shot] >= last:
            return
        first, end = (min(count, max(0, bound - centre)) for bound in bounds[shot : shot + 2])
        if first < end:
            frames = range(max(bounds[shot], candidate.first), min(bounds[shot + 1], last))
            smooth = gaussian_filter1d(below[first:end], DISTANCE_SMOOTHING, axis=0, mode="nearest", truncate=TRUNCATE)
            yield shot, Part(track, centre + first, frames, smooth, lag_curve(below[first:end], centre + first, heard))


def relative(candidate: Candidate, *, sound: int) -> np.ndarray:
    """Return how small a track's distances are for their picture and for their sound, windows x shifts, float32.

    They are about 0 where there is no sound to compare with. Beyond its ends, sound is zeros or missing. Tracks that
    were cut out of the video have an end of their own, where all shifts beyond it have one distance.
    """
    dists = candidate.dists
    below = dists - dists.mean(axis=1, keepdims=True, dtype=np.float32)
    count, columns = dists.shape
    vshift = columns // 2
    first, end = -candidate.first, sound - WINDOW_FRAMES + 1 - candidate.first  # windows of the sound
    if columns > 1 and dists[0, 0] == dists[0, 1]:
        first = 0
    alike = int((np.cumprod(dists[-1, ::-1] == dists[-1, -1])).sum())
    if alike > 1:
        end = min(end, count + vshift - alike)
    window = np.arange(count)[:, None] + np.arange(-vshift, vshift + 1)
    missing = (window < first) | (window >= end)
    rows = missing.any(axis=1)
    if rows.any():
        known = np.ma.masked_array(dists[rows], missing[rows])
        below[rows] = (known - known.mean(axis=1)[:, None]).filled(0.0)
    return without_sound(below)


def without_sound(below: np.ndarray) -> np.ndarray:
    """Return distances without what is the same for all pictures: some sounds are near to any face, some far from any.

    Args:
        below: windows x shifts, distances minus their mean over shifts.

    Returns:
        The distances minus their mean over the windows that were compared with the same sound, relative to their spread
        over these and a share of the whole spread.
    """
    count, columns = below.shape
    sounds = [slice(column, column + count) for column in range(columns)]
    number, total, squares = np.zeros((3, count + columns - 1), np.float32)
    for column, sound in enumerate(sounds):
        number[sound] += 1
        total[sound] += below[:, column]
    mean = total / number
    out = np.empty_like(below)
    for column, sound in enumerate(sounds):
        out[:, column] = below[:, column] - mean[sound]
    out -= out.mean(axis=1, keepdims=True)
    for column, sound in enumerate(sounds):
        squares[sound] += np.square(out[:, column])
    deviation = np.sqrt(squares / number) + max(LEAST_SPREAD, COMMON_SPREAD * float(out.std()))
    for column, sound in enumerate(sounds):
        out[:, column] /= deviation[sound]
    return out


def lag_curve(below: np.ndarray, first: int, heard: np.ndarray) -> np.ndarray:
    """Return the mean over the windows with speech of every shift, minus its median and in units of its spread.

    Args:
        below: windows x shifts.
        first: frame to which the first window belongs.
        heard: True for the frames of the video whose sound has speech.
    """
    columns = below.shape[1]
    vshift = columns // 2
    padded = np.pad(heard, (vshift, len(below) + vshift))[first : first + len(below) + columns - 1]
    curve = np.zeros(columns)
    for column in range(columns):
        used = padded[column : column + len(below)]
        curve[column] = below[used, column].mean() if used.any() else 0.0
    curve -= np.median(curve)
    return curve / max(LEAST_SPREAD, NORMAL_MAD * np.median(np.abs(curve)))


def common_lag(curve: np.ndarray, overall: np.ndarray) -> int:
    """Return the column of a shot's common lag.

    A shot in which nobody in the picture speaks has no lag of its own. So the video's is taken unless the shot's curve
    is clearly lower elsewhere, and a small one rather than a large one.

    Args:
        curve: the sum of the ``lag_curve`` of the shot's tracks.
        overall: that of all of the video's tracks.
    """
    small = PULL_TO_ZERO * np.abs(np.arange(len(overall)) - len(overall) // 2)
    video = overall + small
    return int((curve + small + PULL * video / max(LEAST_SPREAD, -video.min())).argmin())


def delayed(values: np.ndarray, frames: int) -> np.ndarray:
    """Delay values by a number of frames; negative: advance them. What is missing is False."""
    out = np.zeros_like(values)
    if frames >= 0:
        out[frames:] = values[: len(values) - frames]
    else:
        out[:frames] = values[-frames:]
    return out


def match(part: Part, column: int) -> np.ndarray:
    """Return per window the logarithm of how likely the common lag is, relative to any shift, smoothed along time."""
    near = np.abs(np.arange(part.smooth.shape[1]) - column) <= NEAR
    likely = np.exp(-SHARPNESS * part.smooth)
    ratios = np.log(likely[:, near].mean(axis=1) / likely.mean(axis=1))
    return gaussian_filter1d(ratios, SMOOTHING, mode="nearest", truncate=TRUNCATE)


def evidence(shot: Shot, *, column: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how much likelier it is that a face speaks than that it does not, as logarithms.

    Args:
        shot: the shot.
        column: column of its common lag.

    Returns:
        Tracks of the states, the first one ``NOBODY``, and frames x states array; -inf for a face that is not there.
    """
    ratios = np.full((len(shot.frames), 1 + len(shot.parts)), -np.inf)
    ratios[:, 0] = 0
    for state, part in enumerate(shot.parts, start=1):
        known = INTERCEPT + WEIGHT * match(part, column)
        before = part.first - part.frames.start
        known = np.pad(known, (before, len(part.frames) - before - len(known)), mode="edge")
        start = part.frames.start - shot.frames.start
        ratios[start : start + len(known), state] = np.clip(known, -LARGEST_RATIO, LARGEST_RATIO)
    return np.array([NOBODY, *(part.track for part in shot.parts)]), ratios


def runs(values: np.ndarray) -> list[tuple[int, int]]:
    """Return first frame and end of every run of True."""
    changes = np.flatnonzero(np.diff(values, prepend=False, append=False))
    return [(int(first), int(end)) for first, end in changes.reshape(-1, 2)]


def likeliest(ratios: np.ndarray) -> np.ndarray:
    """Return the likeliest sequence of states (Viterbi), from frames x states log-likelihoods; -inf if absent."""
    best = propagate(ratios, total=max)
    states = np.empty(len(best), int)
    state = int(best[-1].argmax())
    tops = best.argmax(axis=1)
    change = np.exp(-CHANGE)
    present = np.isfinite(ratios)
    settled = (present[1:] == present[:-1]).all(axis=1)
    for frame in range(len(best) - 1, -1, -1):
        states[frame] = state
        if frame and not settled[frame - 1]:
            state = int((best[frame - 1] * links(present[frame - 1], present[frame])[:, state]).argmax())
        elif frame and best[frame - 1, state] < best[frame - 1, tops[frame - 1]] * change:
            state = int(tops[frame - 1])
    return states


def posterior(ratios: np.ndarray) -> np.ndarray:
    """Return the probability of every state in every frame (forward-backward), from frames x states log-likelihoods."""
    # costs are symmetric, so the backward pass is a forward pass over the frames in reverse
    product = propagate(ratios, total=sum) * propagate(ratios[::-1], total=sum)[::-1]
    likelihoods = np.exp(ratios)
    product = np.divide(product, likelihoods, out=np.zeros_like(product), where=likelihoods > 0)
    return product / product.sum(axis=1, keepdims=True)


def propagate(ratios: np.ndarray, *, total: Callable) -> np.ndarray:
    """Combine the sequences of states that end in every frame and state.

    Args:
        ratios: frames x states log-likelihoods; -inf for a face that is not in the picture.
        total: ``sum`` for the likelihood of all sequences, ``max`` for that of the likeliest.

    Returns:
        frames x states array, every frame in a unit of its own.
    """
    out = np.zeros_like(ratios)
    present = np.isfinite(ratios)
    changes = np.flatnonzero((present[1:] != present[:-1]).any(axis=1)) + 1
    state = np.ones(ratios.shape[1])
    for first, end in itertools.pairwise([0, *changes, len(ratios)]):
        if first:
            state = getattr(out[first - 1][:, None] * links(present[first - 1], present[first]), total.__name__)(axis=0)
        here = present[first]
        current = state[here].tolist()
        for start in range(first, end, PIECE):
            piece = slice(start, min(end, start + PIECE))
            rows = chain_on(current, np.exp(ratios[piece, here]).tolist(), total=total, begins=start == first)
            out[piece, here], current = rows, rows[-1]
    return out


def chain_on(state: list[float], likelihoods: list[list[float]], *, total: Callable, begins: bool) -> list[list[float]]:
    """Do the steps of ``propagate`` in frames whose states are the same.

    Args:
        state: values of the frame before; those that the changes lead to, if it has other states.
        likelihoods: of every frame and state.
        total: as in ``propagate``.
        begins: the changes to the first frame are in ``state`` already.
    """
    change = float(np.exp(-CHANGE))
    rows = []
    for index, likelihood in enumerate(likelihoods):
        if begins and not index:
            state = [value * factor for value, factor in zip(state, likelihood)]
        elif total is max:
            least = change * max(state)
            state = [(value if value > least else least) * factor for value, factor in zip(state, likelihood)]
        else:
            others = change * sum(state)
            state = [(value * (1 - change) + others) * factor for value, factor in zip(state, likelihood)]
        if index % RESCALED == 0:
            scale = 1 / max(state)
            state = [value * scale for value in state]
        rows.append(state)
    return rows


def links(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the weights of changes between states, before x after, where faces come or leave, which costs nothing."""
    free = ~before[None, :] | ~after[:, None] | np.eye(len(before), dtype=bool)
    return np.where(free, 1.0, np.exp(-CHANGE)) * before[:, None] * after[None, :]


def without_short(states: np.ndarray, ratios: np.ndarray, *, shortest: int) -> np.ndarray:
    """Give every span that is shorter than ``shortest`` frames to the likelier of its neighbours, the shortest first.

    Returns:
        The states; ``SILENCE`` where such a span has no neighbours.
    """
    states = states.copy()
    while True:
        edges = [0, *np.flatnonzero(np.diff(states)) + 1, len(states)]
        short = sorted((end - first, first, end) for first, end in itertools.pairwise(edges) if end - first < shortest)
        for _, first, end in short:
            beside = [int(states[at]) for at in (first - 1, end) if 0 <= at < len(states)]
            likelihoods = [ratios[first:end, state].sum() for state in beside]
            if likelihoods and max(likelihoods) > -np.inf:
                states[first:end] = beside[int(np.argmax(likelihoods))]
                break
        else:
            return np.full_like(states, SILENCE) if len(states) < shortest else states


def turns(candidates: Sequence[Candidate], speaker: np.ndarray, sure: np.ndarray) -> Turns:
    """Return the ``Turns`` of a video.

    Args:
        candidates: all tracks.
        speaker: per frame the index of the track that speaks, ``NOBODY``, or ``SILENCE``.
        sure: the probability of that.
    """
    changes = [0, *np.flatnonzero(np.diff(speaker)) + 1, len(speaker)]
    found, without_face = [], []
    for first, end in itertools.pairwise(map(int, changes)):
        if speaker[first] == NOBODY:
            without_face.append((first, end - 1))
        elif speaker[first] != SILENCE:
            found.append(Span(first, end - 1, int(speaker[first]), float(sure[first:end].mean())))
    speaking = [
        speaker[candidate.first : candidate.first + candidate.frames] == track
        for track, candidate in enumerate(candidates)
    ]
    return Turns(found, without_face, speaking)


def speaking_tracks(
    starts: Sequence[int], confidences: Sequence[np.ndarray], *, threshold: float = SPEAKER_THRESHOLD
) -> np.ndarray:
    """Find the track that speaks in each frame.

    Args:
        starts: index of every track's first frame.
        confidences: per track the confidence of its frames, from ``framewise.speaking_confidence``.
        threshold: the confidence of a speaking face is above this.

    Returns:
        Per frame the index of the track with the highest confidence, or ``NOBODY``; int.
    """
    length = max((start + len(values) for start, values in zip(starts, confidences)), default=0)
    best = np.full(length, float(threshold))
    speaker = np.full(length, NOBODY)
    for index, (start, values) in enumerate(zip(starts, confidences)):
        here = slice(start, start + len(values))
        higher = values > best[here]
        best[here] = np.where(higher, values, best[here])
        speaker[here] = np.where(higher, index, speaker[here])
    return speaker


def spans(speaker: np.ndarray) -> list[Span]:
    """Convert the result of ``speaking_tracks`` to spans of consecutive frames with the same speaker."""
    changes = np.flatnonzero(np.diff(speaker, prepend=NOBODY, append=NOBODY))
    return [
        Span(first=int(first), last=int(end) - 1, track=int(speaker[first]))
        for first, end in itertools.pairwise(changes)
        if speaker[first] != NOBODY
    ]
