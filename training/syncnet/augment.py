"""Random changes of pictures and sound that leave their synchronisation alone.

Every function draws from ``rng``. ``strength`` is a factor on how large and how likely the changes are.
"""

import cv2
import numpy as np

from training.syncnet.clips import HALF, SAMPLE_RATE, delayed

INT16_PEAK = 32767
LARGEST_SPEED = 0.13  # of the logarithm
MFCC_STEP = SAMPLE_RATE // 100  # samples


def speed(rng, strength=1.0):
    """How fast a clip is played, picture and sound alike: it gives other voices (pitch, formants) and other tempi."""
    return float(np.exp(rng.uniform(-LARGEST_SPEED, LARGEST_SPEED))) if rng.random() < 0.5 * strength else 1.0


def _lookup(rng, strength):
    """Table of 256: brightness, contrast and gamma."""
    level = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(strength * rng.uniform(-0.25, 0.25))
    contrast = np.exp(strength * rng.uniform(-0.3, 0.3))
    brightness = strength * rng.uniform(-0.12, 0.12)
    return (((level**gamma - 0.5) * contrast + 0.5 + brightness).clip(0, 1) * 255).astype(np.uint8)


def _walk(rng, count, scale):
    """count x 2 slow random movement: what is left of a detector's jitter after the crop's median filter."""
    steps = rng.normal(0, scale, (count, 2)).cumsum(0)
    return steps - steps.mean(0) if count < 2 else 0.6 * (steps - np.linspace(0, 1, count)[:, None] * steps[-1])


def picture(rng, frames, strength=1.0):
    """T x 112 x 112 grey uint8 -> the same: one pose, light and sharpness for the whole stretch.

    Mirror image, scale, shift and rotation (another detector's box), brightness, resolution, noise, an occlusion.
    """
    count = len(frames)
    scale = np.exp(strength * rng.uniform(-0.18, 0.18))
    angle = strength * rng.normal(0, 4)
    shift = strength * rng.uniform(-0.07, 0.07, 2) * HALF
    walk = _walk(rng, count, strength * rng.choice([0.0, 0.15, 0.4]))
    base = cv2.getRotationMatrix2D((HALF / 2, HALF / 2), angle, scale)
    if rng.random() < 0.5:
        base = np.vstack([base, [0, 0, 1]]) @ np.array([[-1, 0, HALF - 1], [0, 1, 0], [0, 0, 1.0]])
        base = base[:2]
    table = _lookup(rng, strength)
    coarse = int(rng.uniform(48, 100)) if rng.random() < 0.3 * strength else 0
    blur = rng.uniform(0.4, 1.2) if rng.random() < 0.25 * strength else 0
    noise = None
    if rng.random() < 0.3 * strength:
        noise = rng.normal(0, rng.uniform(1, 8), (HALF * 2, HALF * 2)).astype(np.int16)
    patch = None
    if rng.random() < 0.15 * strength:
        height, width = rng.integers(12, 40, 2)  # on the upper half: a covered mouth says nothing
        patch = (
            rng.integers(0, HALF // 2 - height + 1),
            rng.integers(0, HALF - width),
            height,
            width,
            int(rng.integers(0, 256)),
        )
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        matrix = base.copy()
        matrix[:, 2] += shift + walk[index]
        image = cv2.warpAffine(frame, matrix, (HALF, HALF), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        image = cv2.LUT(image, table)
        if coarse:
            image = cv2.resize(cv2.resize(image, (coarse, coarse), interpolation=cv2.INTER_AREA), (HALF, HALF))
        if blur:
            image = cv2.GaussianBlur(image, (0, 0), blur)
        if noise is not None:
            row, column = rng.integers(0, HALF, 2)
            image = cv2.add(image, noise[row : row + HALF, column : column + HALF], dtype=cv2.CV_8U)
        if patch is not None:
            row, column, height, width, level = patch
            image[row : row + height, column : column + width] = level
        out[index] = image
    return out


def room_noise(rng, count):
    """``count`` float samples of noise of unit power with a random spectral tilt (white to brown)."""
    white = np.fft.rfft(rng.normal(size=count))
    tilt = rng.uniform(0, 1)
    shaped = np.fft.irfft(white / np.maximum(np.arange(len(white)), 1) ** tilt, count)
    return shaped / (shaped.std() + 1e-9)


def _equalised(rng, sound):
    """A random smooth frequency response, sometimes with a telephone's or a low-rate codec's band limit."""
    spectrum = np.fft.rfft(sound)
    place = np.linspace(0, 1, len(spectrum))
    gains = np.interp(place, np.linspace(0, 1, 6), rng.normal(0, 4, 6))
    response = 10 ** (gains / 20)
    if rng.random() < 0.25:
        response *= 1 / (1 + (place / rng.uniform(0.4, 0.95)) ** 24)
    if rng.random() < 0.25:
        response *= place / (place + rng.uniform(0.005, 0.04))
    return np.fft.irfft(spectrum * response, len(sound))


def _reverberated(rng, sound):
    """A short room behind the direct sound, which stays where it is."""
    length = int(SAMPLE_RATE * rng.uniform(0.05, 0.25))
    tail = rng.normal(size=length) * np.exp(-np.arange(length) / (length / 5))
    tail *= rng.uniform(0.1, 0.5) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = 1 << (len(sound) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]


def _power(sound):
    return float(np.sqrt(np.mean(sound**2)) + 1e-6)


def sound(rng, audio, other=None, strength=1.0):
    """int16 samples -> int16: gain, frequency response, room, noise, and ``other`` (someone else's sound) behind it."""
    out = audio.astype(np.float64)
    level = _power(out)
    if rng.random() < 0.5 * strength:
        out = _equalised(rng, out)
    if rng.random() < 0.25 * strength:
        out = _reverberated(rng, out)
    if rng.random() < 0.4 * strength:
        out += room_noise(rng, len(out)) * level * 10 ** (-rng.uniform(5, 45) / 20)
    if other is not None and rng.random() < 0.2 * strength:
        behind = np.resize(other, len(out)).astype(np.float64)
        out += behind * (level / _power(behind)) * 10 ** (-rng.uniform(6, 25) / 20)
    gain = 10 ** (strength * rng.uniform(-14, 10) / 20)
    peak = np.abs(out).max() + 1e-6
    out *= min(gain, 1.2 * INT16_PEAK / peak)
    if rng.random() < 0.5 * strength:  # no digital silence: the dither and hiss of some recorders
        out += rng.normal(0, 10 ** rng.uniform(-1, 1.2), len(out))
    out = out.round().clip(-INT16_PEAK, INT16_PEAK).astype(np.int16)
    # the MFCC grid falls anywhere, not always on the start of a frame
    return delayed(out, int(rng.integers(-MFCC_STEP // 4, MFCC_STEP // 4 + 1)))
