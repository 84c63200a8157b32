"""Which frames of a video become its frames at 25 a second: the rule of published scores, the same in every ffmpeg.

Published scores were made by ``ffmpeg -r 25`` of versions 4 to 6 into an AVI. Version 7 converts rates differently, so
the rule is stated here, as an expression that every version evaluates. With the time t of a frame and its duration d,
both in frames of 1/25 s, and the index n of the next frame of the result:

- the frame is dropped where t + d - n <= -0.6: it lies too far behind;
- n becomes round(t), if that is more, where t + d - n > 0.6;
- the frame gets index n, and n grows by 1.

Indices that no frame gets stay empty in the AVI; they repeat the frame before when its frames are extracted. A frame is
thus never shown early, and up to 1.6 frames late: at 30, 50 and 60 frames a second the video lags by about a frame.
"""

import numpy as np

from syncnet.constants import FRAME_RATE

# ffmpeg's own precision of times in the conversion. Half a tick is added, so that no time lies between two frames.
ONE = 1 << 16
TICKS_PER_SECOND = FRAME_RATE * ONE
LATE, EARLY = -0.6, 0.6


def rate_filter(timing):
    """State the rule for a video as a chain of ffmpeg's filters, which give each frame its index as its time.

    Args:
        timing: the video's ``Timing``.
    """
    next_index, time, margin, pts = "ld(0)", "ld(1)", "ld(2)", "ld(3)"
    update = f"if(gt({margin},{EARLY}),max({next_index},floor({time}+0.5)),{next_index})"
    durations = search_tree(exceptions(timing), f"{usual_duration(timing):.9g}")
    expression = (
        f"st(3,PTS+{correction(timing)});"
        f"st(1,({pts}+gt({pts},0)-0.5)/{ONE});"
        f"st(2,{time}-{next_index}+{durations});"
        f"if(gt({margin},{LATE}),(st(0,1+{update})-1)*{ONE},sqrt(-1))"  # not a number: no time
    )
    return f"settb=1/{TICKS_PER_SECOND},setpts='{expression}',select='not(isnan(pts))'"


def correction(timing):
    """What an ffmpeg that takes another start of the container has to add to time stamps, as an expression."""
    difference = rounded(timing.skipped * TICKS_PER_SECOND)
    if not difference or not timing.frames:
        return "0"
    first = filter_time(timing.frames[0][0], timing, start=timing.audible_start)
    return f"{difference}*lt(abs(STARTPTS-{first}),{difference // 2})"


def audio_start_filter(timing):
    """``correction`` for the audio, as a list of ffmpeg's filters: none where there is nothing to correct."""
    skipped = float(timing.skipped)
    return [f"asetpts='PTS+floor({skipped:.6f}/TB+0.5)*lt(STARTT,{skipped / 2:.6f})'"] if skipped else []


def usual_duration(timing):
    return published_duration(timing.duration, timing)


def exceptions(timing):
    """Frames whose own duration, other than the usual one, makes a difference: list of (time in ticks, duration)."""
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


def search_tree(pairs, otherwise):
    """Write the durations of frames as an expression.

    Args:
        pairs: what ``exceptions`` found.
        otherwise: the duration of all other frames.
    """
    if not pairs:
        return otherwise
    middle = len(pairs) // 2
    ticks, duration = pairs[middle]
    if len(pairs) == 1:
        return f"if(lt(abs(ld(3)-{ticks}),2),{duration:.9g},{otherwise})"
    left, right = search_tree(pairs[:middle], otherwise), search_tree(pairs[middle:], otherwise)
    return f"if(lt(ld(3),{ticks - 1}),{left},{right})"


def place(time, duration, index):
    """Apply the rule to one frame.

    Args:
        time, duration: of the frame, in frames of 1/25 s.
        index: of the next frame of the result.

    Returns:
        The index that the frame gets; None if it is dropped.
    """
    margin = time + duration - index
    if margin <= LATE:
        return None
    return max(index, int(np.floor(time + 0.5))) if margin > EARLY else index


def published_duration(ticks, timing):
    """Duration of a frame in frames of 1/25 s, as ffmpeg 5.1 takes it: rounded, except where that gives nothing."""
    rounded = round(float(np.float32(ticks * float(timing.time_base) * FRAME_RATE)))
    if rounded > 0:
        return float(rounded)
    return min(FRAME_RATE / float(timing.rate), 1.0) if timing.rate else 0.0


def filter_time(pts, timing, *, start):
    """Time of a frame as the filters see it, in ticks of 1/TICKS_PER_SECOND s, rounded as ffmpeg does.

    Args:
        start: of the container, in seconds.
    """
    return rounded((pts - rounded(start / timing.time_base)) * timing.time_base * TICKS_PER_SECOND)


def rounded(value):
    """The nearest integer of a Fraction, halves away from 0."""
    size = (2 * abs(value.numerator) + value.denominator) // (2 * value.denominator)
    return size if value >= 0 else -size
