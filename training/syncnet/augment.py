"""Random changes of video frames and audio that keep them in sync.

Every function draws from ``rng``. ``strength``, 0 to 1, scales the size and probability of the changes.
"""

import cv2
import numpy as np

from training.syncnet.clips import HALF, SAMPLE_RATE, delayed

INT16_PEAK = 32767
LARGEST_SPEED = 0.13  # natural logarithm of the factor
MFCC_STEP = SAMPLE_RATE // 100  # samples


def draw_speed(rng: np.random.Generator, strength: float = 1.0) -> float:
    """Draw a playback speed for frames and audio together: it gives other voices (pitch, formants) and tempi."""
    return float(np.exp(rng.uniform(-LARGEST_SPEED, LARGEST_SPEED))) if rng.random() < 0.5 * strength else 1.0


def _lookup(rng, strength):
    """Return a table of 256 grey levels that changes brightness, contrast and gamma."""
    level = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(strength * rng.uniform(-0.25, 0.25))
    contrast = np.exp(strength * rng.uniform(-0.3, 0.3))
    brightness = strength * rng.uniform(-0.12, 0.12)
    return (((level**gamma - 0.5) * contrast + 0.5 + brightness).clip(0, 1) * 255).astype(np.uint8)


def _walk(rng, count, scale):
    """Return a slow random walk, count x 2 in pixels: the jitter of a detector that the crop's median filter leaves."""
    steps = rng.normal(0, scale, (count, 2)).cumsum(0)
    return steps - steps.mean(0) if count < 2 else 0.6 * (steps - np.linspace(0, 1, count)[:, None] * steps[-1])


def augment_frames(rng: np.random.Generator, frames: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """Change frames at random, with one pose, light and sharpness for the whole clip.

    Changes: mirroring, scale, shift and rotation (as if another detector made the box), brightness, resolution, blur,
    noise and an occlusion.

    Args:
        rng: Generator.
        frames: T x 112 x 112, grey, uint8.
        strength: See the module.

    Returns:
        Frames of the same shape and dtype.
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
        height, width = rng.integers(12, 40, 2)  # upper half only: a covered mouth cannot show synchronisation
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


def room_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return ``count`` float samples of noise of unit power with a random spectral tilt (white to brown)."""
    white = np.fft.rfft(rng.normal(size=count))
    tilt = rng.uniform(0, 1)
    shaped = np.fft.irfft(white / np.maximum(np.arange(len(white)), 1) ** tilt, count)
    return shaped / (shaped.std() + 1e-9)


def _equalised(rng, audio):
    """Apply a random smooth frequency response, sometimes with the band limit of a telephone or a low-rate codec."""
    spectrum = np.fft.rfft(audio)
    place = np.linspace(0, 1, len(spectrum))
    gains = np.interp(place, np.linspace(0, 1, 6), rng.normal(0, 4, 6))
    response = 10 ** (gains / 20)
    if rng.random() < 0.25:
        response *= 1 / (1 + (place / rng.uniform(0.4, 0.95)) ** 24)
    if rng.random() < 0.25:
        response *= place / (place + rng.uniform(0.005, 0.04))
    return np.fft.irfft(spectrum * response, len(audio))


def _reverberated(rng, audio):
    """Add the reverberation of a small room; the direct sound stays in place."""
    length = int(SAMPLE_RATE * rng.uniform(0.05, 0.25))
    tail = rng.normal(size=length) * np.exp(-np.arange(length) / (length / 5))
    tail *= rng.uniform(0.1, 0.5) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = 1 << (len(audio) + length).bit_length()
    return np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(tail, size), size)[: len(audio)]


def _power(audio):
    return float(np.sqrt(np.mean(audio**2)) + 1e-6)


def augment_audio(
    rng: np.random.Generator, samples: np.ndarray, other: np.ndarray | None = None, strength: float = 1.0
) -> np.ndarray:
    """Change audio at random: gain, frequency response, reverberation, noise and another voice in the background.

    Args:
        rng: Generator.
        samples: int16 at 16 kHz.
        other: Samples of another clip for the background, or None.
        strength: See the module.

    Returns:
        Samples of the same length, int16.
    """
    out = samples.astype(np.float64)
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
    if rng.random() < 0.5 * strength:  # replace digital silence by the dither and hiss of a recorder
        out += rng.normal(0, 10 ** rng.uniform(-1, 1.2), len(out))
    out = out.round().clip(-INT16_PEAK, INT16_PEAK).astype(np.int16)
    # move the MFCC grid, which otherwise always starts with a frame
    return delayed(out, int(rng.integers(-MFCC_STEP // 4, MFCC_STEP // 4 + 1)))
