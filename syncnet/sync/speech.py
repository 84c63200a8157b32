"""Speech or silence, from the sound."""

import numpy as np

from syncnet.constants import SAMPLES_PER_FRAME

LOUD = 300.0


def measure(samples: np.ndarray) -> np.ndarray:
    """Return what ``present`` needs of whole frames of sound at 16 kHz, int16: frames x K array, float32."""
    frames = samples.reshape(-1, SAMPLES_PER_FRAME).astype(np.float32)
    return np.sqrt((frames**2).mean(axis=1, keepdims=True))


def present(levels: np.ndarray) -> np.ndarray:
    """Return True for every frame with speech."""
    return levels[:, 0] > LOUD
