"""The median filter of the tracks and of the framewise confidence."""

import numpy as np
from scipy import ndimage


def median_filter(values, size):
    """Median of every ``size`` values (odd), with zeros beyond both ends: ``scipy.signal.medfilt`` on 1-D input.

    scipy.ndimage has the same filter and loads in a fraction of the time.
    """
    return ndimage.median_filter(np.asarray(values, dtype=np.float64), size=size, mode="constant", cval=0.0)
