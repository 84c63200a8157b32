"""Active speaker detection: the speaking face is the one whose lips match the audio best."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from syncnet.defaults import SPEAKER_THRESHOLD

NOBODY = -1


@dataclass(frozen=True)
class Span:
    """Frames in which the face of one track speaks.

    Attributes:
        first, last: indices of the first and the last frame, inclusive.
        track: index of the track.
    """

    first: int
    last: int
    track: int


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
