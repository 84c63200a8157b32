"""Who is speaking: the face whose lips fit the sound best at the time."""

import itertools
from dataclasses import dataclass

import numpy as np

from syncnet.defaults import SPEAKER_THRESHOLD

NOBODY = -1


@dataclass(frozen=True)
class Span:
    """Frames ``first`` to ``last`` (inclusive) in which one track's face speaks."""

    first: int
    last: int
    track: int


def speaking_tracks(starts, confidences, *, threshold=SPEAKER_THRESHOLD):
    """Which track speaks in every frame.

    Args:
        starts: first frame of every track.
        confidences: per track an array of its frames' confidences (``framewise.speaking_confidence``).
        threshold: a speaking face's confidence is above.

    Returns:
        Array with the index of the most confident track of each frame, or ``NOBODY``.
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


def spans(speaker):
    """Runs of one speaker in what ``speaking_tracks`` returns, as a list of ``Span``."""
    changes = np.flatnonzero(np.diff(speaker, prepend=NOBODY, append=NOBODY))
    return [
        Span(first=int(first), last=int(end) - 1, track=int(speaker[first]))
        for first, end in itertools.pairwise(changes)
        if speaker[first] != NOBODY
    ]
