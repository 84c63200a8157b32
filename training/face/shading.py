"""Light and softness, shared by everything that is rendered."""

import cv2
import numpy as np


def lit(albedo, shade, shine, warmth):
    """Colour of a surface: shadows of skin are redder than its lit parts, highlights have the lamp's colour."""
    shade = np.clip(np.asarray(shade, np.float32), 0.03, 1.5)[..., None]
    tone = np.concatenate([shade ** np.float32(1.15), shade ** np.float32(1.08), shade ** np.float32(0.92)], axis=2)
    lamp = np.float32([1 - warmth, 1.0, 1 + warmth])
    return (albedo * tone + np.asarray(shine, np.float32)[..., None]) * lamp


def smoothstep(low, high, value):
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blur(picture, sigma):
    return cv2.GaussianBlur(picture, (0, 0), float(sigma)) if sigma > 0.3 else picture
