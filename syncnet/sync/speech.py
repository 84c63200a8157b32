"""Speech or silence, from the sound itself.

A frame has speech if its sound rises above the floor of the video's sound in the bands in which speech is. The floor is
measured in every band, so that a steady noise of any colour belongs to it. Sounds that rise and fall like speech, such
as music, count as speech.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_closing, binary_opening, binary_propagation, percentile_filter, uniform_filter1d

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

BANDS_HZ = 150, 400, 800, 1500, 2500, 4000  # limits of the bands
PIECE = 2000  # frames that are transformed at once; limits memory use
FULL_SCALE = 32768
SILENCE_DB = -75.0  # relative to full scale; quieter sound is not heard
SMOOTHING = 3  # frames
FLOOR, LOUD = 3, 95  # percentiles of the level that stand for the floor and for speech
NEIGHBOURHOOD_SECONDS = 60  # around a frame, in which its floor is measured
SPARSE = 5  # one frame of so many is enough for that
RISE_DB, PEAK_DB = 1.8, 3.5  # of speech above the floor: always, and somewhere
RANGE_DB = 40.0  # sound that is quieter than the loud speech by more is none
SHORTEST_SECONDS = 0.08  # a shorter sound is not speech
QUIET_DB = -60.0  # sound that is too short for a floor is heard from this level on
LOUD_DB = -30.0  # a steady sound that is louder is not a floor of noise
FLOOR_SECONDS = 1  # the shortest sound that has one
BRIDGED_SECONDS = 0.5  # a shorter silence is part of the speech around it


def measure(samples: np.ndarray) -> np.ndarray:
    """Measure the level of the sound of every frame, which depends on the samples of the frame alone.

    Args:
        samples: audio at 16 kHz, int16; a last frame that is not complete is left out.

    Returns:
        frames x bands array, float32, in dB relative to full scale.
    """
    count = len(samples) // SAMPLES_PER_FRAME
    frames = samples[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME)
    window = np.hanning(SAMPLES_PER_FRAME).astype(np.float32)
    scale = 2 / (FULL_SCALE * window.sum())
    edges = np.rint(np.array(BANDS_HZ) * SAMPLES_PER_FRAME / SAMPLE_RATE).astype(int)
    levels = np.empty((count, len(edges) - 1), np.float32)
    for start in range(0, count, PIECE):
        spectrum = np.fft.rfft(frames[start : start + PIECE] * window)[:, : edges[-1]]
        power = np.add.reduceat(np.square(np.abs(spectrum) * scale), edges[:-1], axis=1)
        levels[start : start + PIECE] = 10 * np.log10(np.maximum(power, 10 ** (SILENCE_DB / 10)))
    return levels


def rise(levels: np.ndarray) -> np.ndarray:
    """Return how far the sound of every frame is above the floor around it, in dB, from ``measure``'s levels."""
    level = uniform_filter1d(levels, SMOOTHING, axis=0, mode="nearest")
    return (level - running_percentile(level, FLOOR)).mean(axis=1)


def present(levels: np.ndarray) -> np.ndarray:
    """Find the frames with speech.

    Args:
        levels: frames x bands array, from ``measure``.

    Returns:
        A bool per frame.
    """
    if not len(levels):
        return np.zeros(0, bool)
    rises = rise(levels)
    loud = running_percentile(rises[:, None], LOUD)[:, 0]
    shortest = round(SHORTEST_SECONDS * FRAME_RATE) + SMOOTHING - 1  # smoothing makes sounds longer
    above = binary_opening(rises > np.maximum(RISE_DB, loud - RANGE_DB), np.ones(shortest))
    return bridged(binary_propagation(above & (rises > PEAK_DB), mask=above))


def heard(levels: np.ndarray) -> np.ndarray:
    """Find the frames with more than silence or a floor of noise.

    Speech of less than a second may be as steady as noise, so there it only must not be quiet.

    Args:
        levels: frames x bands array, from ``measure``.

    Returns:
        A bool per frame.
    """
    return spoken(levels) | (levels.max(axis=1) > LOUD_DB)


def spoken(levels: np.ndarray) -> np.ndarray:
    """Find the frames that may have speech: ``heard`` without steady sound; argument and result as there."""
    if len(levels) < FLOOR_SECONDS * FRAME_RATE:
        return levels.max(axis=1) > QUIET_DB
    return present(levels)


def bridged(heard: np.ndarray) -> np.ndarray:
    """Fill short silences between speech."""
    longest = round(BRIDGED_SECONDS * FRAME_RATE) - (SMOOTHING - 1)  # smoothing makes silences shorter
    return binary_closing(np.pad(heard, longest), np.ones(longest))[longest:-longest]


def running_percentile(values: np.ndarray, percentile: float) -> np.ndarray:
    """Return a percentile of the N x D values around each, over time; where there are many, of every fifth of them."""
    reach = NEIGHBOURHOOD_SECONDS * FRAME_RATE
    if len(values) <= reach:
        return np.percentile(values, percentile, axis=0, keepdims=True).astype(np.float32).repeat(len(values), axis=0)
    found = percentile_filter(values[::SPARSE], percentile, size=(reach // SPARSE, 1), mode="nearest")
    return found.repeat(SPARSE, axis=0)[: len(values)]
