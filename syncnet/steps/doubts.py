"""Reasons why the score of a track is not reliable that come from its sound, or from all of its distances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from syncnet import reasons
from syncnet.constants import FRAME_RATE
from syncnet.reasons import Reason
from syncnet.sync import changes, speech
from syncnet.sync.lag import DRIFT_SECONDS
from syncnet.sync.scoring import SyncScore
from syncnet.sync.stream import Samples, levels_of

if TYPE_CHECKING:
    from syncnet.sync.lag import Lag


def of_track(
    score: SyncScore | Reason,
    heard: np.ndarray,
    *,
    start: float,
    cancelled: Reason | None = None,
    lag: Lag | None = None,
) -> list[Reason]:
    """Return the reasons of a track; none without a score.

    Args:
        score: its ``SyncScore``, or the ``Reason`` why it has none.
        heard: per frame of the track, True if its sound has more than silence or noise.
        start: time of its first frame, in seconds.
        cancelled: from ``cancelled_channels``.
        lag: lag of the track, if it is known.
    """
    if not isinstance(score, SyncScore):
        return []
    found = []
    if is_silent(heard):
        found.append(reasons.silent(heard=int(heard.sum()), frames=len(heard), cancelled=cancelled is not None))
        if cancelled:
            found.append(cancelled)
    if len(score.dists) < reasons.LEAST_WINDOWS:
        found.append(reasons.few_windows(windows=len(score.dists)))
    changed = changes.find(score.dists, heard=heard, lag=lag)
    if changed:
        found.append(describe(changed, frames=len(heard), start=start))
    return found


def is_silent(heard: np.ndarray) -> bool:
    """Return True for a track that is never heard, or in hardly any frame."""
    return int(heard.sum()) < min(reasons.LEAST_HEARD, len(heard))


def describe(changed: changes.Changes, *, frames: int, start: float) -> Reason:
    """Return the reason of a track whose offset changes; ``frames`` is its length, the rest as in ``of_track``."""
    steps = [(start + step.frame / FRAME_RATE, step.before, step.after) for step in changed.steps]
    if not changed.is_drift:
        return reasons.offset_jumps(steps=steps)
    [(_, before, after)] = steps
    seconds = frames / FRAME_RATE
    return reasons.offset_drifts(
        start=start, end=start + seconds, before=before, after=after, measurable=seconds > DRIFT_SECONDS
    )


def cancelled_channels(
    heard: Sequence[np.ndarray], firsts: Sequence[int], channels: Iterable[Samples]
) -> dict[int, Reason]:
    """Return the reasons of the silent tracks whose sound is lost when its channels are mixed.

    Args:
        heard: per track what ``Turns.heard`` has.
        firsts: per track its first frame.
        channels: the sound of every channel; none is read if no track is silent.
    """
    silent = {index: slice(firsts[index], firsts[index] + len(of)) for index, of in enumerate(heard) if is_silent(of)}
    found: dict[int, Reason] = {}
    if not silent:
        return found
    frames = max(place.stop for place in silent.values())
    for channel, sound in enumerate(channels):
        alone = speech.heard(levels_of(sound, frames))
        for index, place in silent.items():
            if index not in found and not is_silent(alone[place]):
                stream = getattr(sound, "stream", None)
                found[index] = reasons.channels_cancel(channel=channel, stream=stream and stream.index)
        if len(found) == len(silent):
            break
    return found
