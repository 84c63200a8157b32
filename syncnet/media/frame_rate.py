"""Conversion of a video's frame rate to 25 fps by the rule of the published scores, identical in every ffmpeg.

Published scores were made by ``ffmpeg -r 25`` of versions 4 to 6 with AVI output. Version 7 converts frame rates
differently, so this module writes the rule as a filter expression that every version evaluates. For a frame with time t
and duration d, both in units of 1/25 s, and the index n of the next output frame:

- the frame is dropped if t + d - n <= -0.6: it is too late;
- n is set to round(t), if that is larger, when t + d - n > 0.6;
- the frame gets index n, and n increases by 1.

The AVI file has no frame at an index that was skipped; extracting its frames duplicates the previous frame there.
So no frame is ever shown early, and a frame is shown up to 1.6 frames late: at 30, 50 and 60 fps the video lags by
about one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from syncnet.constants import FRAME_RATE

if TYPE_CHECKING:
    from fractions import Fraction

    from syncnet.media.containers import Timing

# ffmpeg's own precision of times in the conversion. Half a tick is added so that no time is halfway between frames.
ONE = 1 << 16
TICKS_PER_SECOND = FRAME_RATE * ONE
LATE, EARLY = -0.6, 0.6


def rate_filter(timing: Timing) -> str:
    """Return the rule for a video as an ffmpeg filter chain that sets each frame's time to its index.

    Args:
        timing: time stamps of the video.
    """
    next_index, time, margin, pts = "ld(0)", "ld(1)", "ld(2)", "ld(3)"
    update = f"if(gt({margin},{EARLY}),max({next_index},floor({time}+0.5)),{next_index})"
    durations = search_tree(irregular_frames(timing), f"{usual_duration(timing):.9g}")
    expression = (
        f"st(3,PTS+{correction(timing)});"
        f"st(1,({pts}+gt({pts},0)-0.5)/{ONE});"
        f"st(2,{time}-{next_index}+{durations});"
        f"if(gt({margin},{LATE}),(st(0,1+{update})-1)*{ONE},sqrt(-1))"  # NaN: the frame is dropped
    )
    return f"settb=1/{TICKS_PER_SECOND},setpts='{expression}',select='not(isnan(pts))'"


def correction(timing: Timing) -> str:
    """Return an expression to add to time stamps, for an ffmpeg that computes another start time of the container."""
    difference = rounded(timing.skipped * TICKS_PER_SECOND)
    if not difference or not timing.frames:
        return "0"
    first = filter_time(timing.frames[0][0], timing, start=timing.audible_start)
    return f"{difference}*lt(abs(STARTPTS-{first}),{difference // 2})"


def audio_start_filter(timing: Timing) -> list[str]:
    """Return ffmpeg filters that apply ``correction`` to the audio; empty if no correction is needed."""
    skipped = float(timing.skipped)
    return [f"asetpts='PTS+floor({skipped:.6f}/TB+0.5)*lt(STARTT,{skipped / 2:.6f})'"] if skipped else []


def usual_duration(timing: Timing) -> float:
    return published_duration(timing.duration, timing)


def irregular_frames(timing: Timing) -> list[tuple[int, float]]:
    """Return the frames that get another index with their own duration than with the usual one.

    Returns:
        Time of each frame, in ticks of 1/TICKS_PER_SECOND s, and its duration, in units of 1/25 s; sorted by time.
    """
    usual = usual_duration(timing)
    if all(published_duration(ticks, timing) == usual for ticks in {duration for _, duration in timing.frames}):
        return []
    found = []
    index = 0
    for pts, duration in timing.frames:
        own = published_duration(duration, timing)
        ticks = filter_time(pts, timing, start=timing.start)
        time = (ticks + (0.5 if ticks > 0 else -0.5)) / ONE
        placed = place(time, own, index)
        if own != usual and placed != place(time, usual, index):
            found.append((ticks, own))
        if placed is not None:
            index = placed + 1
    return found


def search_tree(pairs: list[tuple[int, float]], otherwise: str) -> str:
    """Return an expression for a frame's duration: a binary search by the frame's time.

    Args:
        pairs: result of ``irregular_frames``.
        otherwise: duration of all other frames.
    """
    if not pairs:
        return otherwise
    middle = len(pairs) // 2
    ticks, duration = pairs[middle]
    if len(pairs) == 1:
        return f"if(lt(abs(ld(3)-{ticks}),2),{duration:.9g},{otherwise})"
    left, right = search_tree(pairs[:middle], otherwise), search_tree(pairs[middle:], otherwise)
    return f"if(lt(ld(3),{ticks - 1}),{left},{right})"


def place(time: float, duration: float, index: int) -> int | None:
    """Apply the rule to a single frame.

    Args:
        time: time of the frame, in units of 1/25 s.
        duration: duration of the frame, in units of 1/25 s.
        index: index of the next output frame.

    Returns:
        The frame's output index; None if the frame is dropped.
    """
    margin = time + duration - index
    if margin <= LATE:
        return None
    return max(index, int(np.floor(time + 0.5))) if margin > EARLY else index


def published_duration(ticks: int, timing: Timing) -> float:
    """Return a frame's duration in units of 1/25 s as ffmpeg 5.1 computes it: rounded, unless that gives 0."""
    duration = round(float(np.float32(ticks * float(timing.time_base) * FRAME_RATE)))
    if duration > 0:
        return float(duration)
    return min(FRAME_RATE / float(timing.rate), 1.0) if timing.rate else 0.0


def filter_time(pts: int, timing: Timing, *, start: Fraction) -> int:
    """Return a frame's time as ffmpeg's filters receive it, in ticks of 1/TICKS_PER_SECOND s, rounded like ffmpeg.

    Args:
        pts: presentation time stamp, in ticks of the stream.
        timing: time stamps of the video.
        start: start time of the container, in seconds.
    """
    return rounded((pts - rounded(start / timing.time_base)) * timing.time_base * TICKS_PER_SECOND)


def rounded(value: Fraction) -> int:
    """Round to the nearest integer, halves away from 0."""
    size = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return size if value >= 0 else -size
