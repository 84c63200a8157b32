"""Confidence through time: how well lips and sound fit at each moment, at the offset of the whole track."""

import numpy as np

from syncnet.constants import WINDOW_FRAMES
from syncnet.median import median_filter

CONFIDENCE_FILTER = 9  # frames of the median filter over the framewise confidence
EDGE_FRAMES = 3  # frames at either end of a track that no window is centred on
EDGE_DISTANCE = 10.0  # stands in for their distance


def at_offset(dists):
    """Windows x shifts -> every window's distance at the track's offset, and the median of all shifts' mean ones."""
    mean = dists.mean(axis=0)
    return dists[:, mean.argmin()], np.median(mean)


def window_confidence(dists):
    """Smoothed confidence of every window: windows x shifts -> windows."""
    nearest, usual = at_offset(dists)
    return median_filter(usual - nearest, CONFIDENCE_FILTER)


def frame_confidence(dists):
    """Smoothed confidence of every frame of a track: windows x shifts -> windows + 6.

    Unlike ``window_confidence`` this is centred, and padded where no window is: what run_visualise draws.
    """
    nearest, usual = at_offset(dists)
    padded = np.pad(nearest, EDGE_FRAMES, constant_values=EDGE_DISTANCE)
    return median_filter(usual - padded, CONFIDENCE_FILTER)


def speaking_confidence(dists):
    """Smoothed confidence of every frame that was scored, for telling who speaks: windows x shifts -> windows + 5.

    Frames at either end of a track that no window is centred on take after the nearest one.
    """
    nearest, usual = at_offset(dists)
    before, beyond = WINDOW_FRAMES // 2, CONFIDENCE_FILTER // 2
    ends = (before + beyond, WINDOW_FRAMES - before + beyond)
    padded = np.pad(usual - nearest, ends, mode="edge")
    return median_filter(padded, CONFIDENCE_FILTER)[beyond:-beyond]
