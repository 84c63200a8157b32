"""Median filter, for smoothing crop positions and framewise confidence."""

import numpy as np


def median_filter(values: np.ndarray, size: int) -> np.ndarray:
    """Apply a median filter with zero padding, like ``scipy.signal.medfilt`` on 1-D input.

    Implemented in numpy because importing ``scipy.signal`` takes a quarter of a second.

    Args:
        values: N values.
        size: odd length of the filter window.

    Returns:
        N values, float64.
    """
    padded = np.pad(np.asarray(values, dtype=np.float64), size // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, size), axis=1)
