"""Active speaker detection: the speaking face is the one whose lips match the audio best."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncnet.constants import FRAME_RATE
from syncnet.defaults import MIN_SPEAKING, SPEAKER_THRESHOLD
from syncnet.sync import speech
from syncnet.sync.framewise import speaking_confidence

NOBODY = -1


@dataclass(frozen=True)
class Span:
    """Frames in which the face of one track speaks.

    Attributes:
        first, last: indices of the first and the last frame, inclusive.
        track: index of the track.
        confidence: posterior probability, averaged over the span.
    """

    first: int
    last: int
    track: int
    confidence: float = 1.0


@dataclass(frozen=True)
class Turns:
    """Who speaks when.

    Attributes:
        spans: when each face speaks, by time.
        without_face: first and last frame, inclusive, of speech that no visible face utters.
        speaking: per track and frame of the track, True if its face speaks.
    """

    spans: list[Span]
    without_face: list[tuple[int, int]]
    speaking: list[np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """What is known about a track.

    Attributes:
        first: index of its first frame.
        frames: number of its frames.
        dists: windows x (2 * vshift + 1) array of distances; no rows without a score.
    """

    first: int
    frames: int
    dists: np.ndarray


def find(
    candidates: Sequence[Candidate], *, levels: np.ndarray, cuts: Sequence[int], min_speaking: float = MIN_SPEAKING
) -> Turns:
    """Find who speaks when.

    Args:
        candidates: the tracks.
        levels: frames x K array, from ``speech.measure``.
        cuts: frames that begin a scene, without 0.
        min_speaking: a shorter span, in seconds, goes to the likelier of its neighbours.
    """
    confidences = [speaking_confidence(c.dists) if len(c.dists) else np.zeros(0) for c in candidates]
    speaker = speaking_tracks([c.first for c in candidates], confidences)
    heard = speech.present(levels)
    taken = speaker[: len(heard)] != NOBODY
    heard[: len(taken)] &= ~taken
    edges = np.flatnonzero(np.diff(heard.astype(int), prepend=0, append=0))
    speaking = []
    for index, candidate in enumerate(candidates):
        own = speaker[candidate.first : candidate.first + candidate.frames] == index
        speaking.append(np.pad(own, (0, candidate.frames - len(own))))
    return Turns(
        spans=[span for span in spans(speaker) if span.last - span.first + 1 >= min_speaking * FRAME_RATE],
        without_face=[(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2])],
        speaking=speaking,
    )


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
