"""Framewise confidence: how well lips and audio match over time, at the offset of the whole track.

In all functions, ``dists`` is an array of distances, windows x shifts.
"""

import numpy as np

from syncnet.constants import WINDOW_FRAMES
from syncnet.median import median_filter

CONFIDENCE_FILTER = 9  # frames of the median filter over the framewise confidence
EDGE_FRAMES = 3  # values that frame_confidence adds at both ends
EDGE_DISTANCE = 10.0  # distance that those values stand for


def at_offset(dists: np.ndarray) -> tuple[np.ndarray, np.floating]:
    """Return every window's distance at the offset of the track, and the median over shifts of the mean distance."""
    mean = dists.mean(axis=0)
    return dists[:, mean.argmin()], np.median(mean)


def window_confidence(dists: np.ndarray) -> np.ndarray:
    """Return the smoothed confidence of every window, as run_syncnet prints it.

    Returns:
        One value per window, float64.
    """
    nearest, median = at_offset(dists)
    return median_filter(median - nearest, CONFIDENCE_FILTER)


def frame_confidence(dists: np.ndarray) -> np.ndarray:
    """Return the smoothed confidence of every frame, as run_visualise draws it.

    Window i covers the frames i to i + 4, so its centre is its third frame, i + 2. The published suite pads three
    values at both ends, which assigns the window to frame i + 3. This is kept for comparability.

    Returns:
        Windows + 6 values, float64.
    """
    nearest, median = at_offset(dists)
    padded = np.pad(nearest, EDGE_FRAMES, constant_values=EDGE_DISTANCE)
    return median_filter(median - padded, CONFIDENCE_FILTER)


def speaking_confidence(dists: np.ndarray) -> np.ndarray:
    """Return the smoothed confidence of every scored frame, for finding the speaking face.

    Every window is assigned to its centre, its third frame. The frames at both ends of a track, on which no window is
    centred, get the value of the nearest window.

    Returns:
        Windows + 5 values, float64.
    """
    nearest, median = at_offset(dists)
    before, beyond = WINDOW_FRAMES // 2, CONFIDENCE_FILTER // 2
    ends = (before + beyond, WINDOW_FRAMES - before + beyond)
    padded = np.pad(median - nearest, ends, mode="edge")
    return median_filter(padded, CONFIDENCE_FILTER)[beyond:-beyond]
