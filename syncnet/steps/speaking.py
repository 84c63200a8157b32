"""Who speaks when, from the scores of the tracks and the sound."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from syncnet.constants import WINDOW_FRAMES
from syncnet.media.sound import Sound
from syncnet.reasons import Reason
from syncnet.results.scores_json import span_record, speaking_record, times_record
from syncnet.sync import scoring, speakers, speech
from syncnet.sync.scoring import SyncScore
from syncnet.sync.speakers import Turns
from syncnet.sync.stream import levels_of

CENTRE = WINDOW_FRAMES // 2  # frame of a window that its distances belong to


def find(
    scores: Sequence[SyncScore | Reason],
    places: Sequence[tuple[int, int]],
    *,
    levels: np.ndarray,
    cuts: Sequence[int] = (),
    min_speaking: float,
) -> Turns:
    """Find who speaks when; a track without a score never does, and a video without a track is not looked at.

    Args:
        scores: per track its ``SyncScore``, or the ``Reason`` why it has none.
        places: per track its first frame and its number of frames.
        levels: frames x K array, from ``stream.Levels``.
        cuts, min_speaking: as in ``speakers.find``.
    """
    if not scores:
        return Turns(spans=[], without_face=[], speaking=[])
    scored = [score.dists for score in scores if isinstance(score, SyncScore)]
    unknown = np.zeros((0, scored[0].shape[1] if scored else 1), np.float32)
    candidates = [
        speakers.Candidate(first, frames, score.dists if isinstance(score, SyncScore) else unknown)
        for score, (first, frames) in zip(scores, places)
    ]
    found = speakers.find(candidates, levels=levels, cuts=cuts, min_speaking=min_speaking)
    heard, spoken = speech.heard(levels), speech.spoken(levels)
    return replace(
        found,
        heard=[heard[first : first + frames] for first, frames in places],
        has_speech=[bool(spoken[first : first + frames].any()) for first, frames in places],
    )


def numbers(score: SyncScore | Reason, speaking: np.ndarray, *, corrected: int = 0) -> dict[str, Any]:
    """Return the ``speaking_record`` of a track.

    Args:
        score: its ``SyncScore``, or the ``Reason`` why it has none.
        speaking: per frame of the track, True if its face speaks.
        corrected: frames by which the track's offset differs from that of its smallest mean distance.
    """
    if not isinstance(score, SyncScore):
        return speaking_record(None, None)
    windows = speaking[CENTRE : CENTRE + len(score.dists)]
    dists = score.dists[: len(windows)][windows]
    lengths = {"video_frames": score.video_frames, "audio_frames": score.audio_frames}
    spoken = scoring.score(dists, **lengths) if len(dists) else None
    return speaking_record(int(speaking.sum()), spoken and replace(spoken, offset=spoken.offset + corrected))


def records(turns: Turns, *, delay: float = 0.0) -> dict[str, Any]:
    """Return the arguments ``speakers`` and ``without_face`` of ``scores_report``.

    Args:
        turns: from ``find``.
        delay: time of frame 0, in seconds.
    """
    return {
        "speakers": [span_record(span, delay=delay) for span in turns.spans],
        "without_face": [times_record(first, last, delay=delay) for first, last in turns.without_face],
    }


def levels_of_file(path: str | Path, *, frames: int) -> np.ndarray:
    """Return the levels of a media file's sound from its start on, frames x K array; without sound, those of silence.

    Args:
        path: the file.
        frames: number of frames.

    Raises:
        MediaError: the file is damaged.
    """
    with contextlib.closing(Sound(path)) as sound:
        return levels_of(sound, frames)
