"""Light and blur, shared by all rendering."""

import cv2
import numpy as np


def lit(albedo: np.ndarray, shade: np.ndarray, shine: np.ndarray, warmth: float) -> np.ndarray:
    """Return the colour of a lit surface.

    Shadows of skin are redder than its lit parts; highlights have the colour of the lamp.

    Args:
        albedo: H x W x 3, BGR, 0 to 1.
        shade: H x W, diffuse light.
        shine: H x W, highlights.
        warmth: Colour of the lamp, about -0.1 (blue) to 0.1 (red).
    """
    shade = np.clip(np.asarray(shade, np.float32), 0.03, 1.5)[..., None]
    tone = np.concatenate([shade ** np.float32(1.15), shade ** np.float32(1.08), shade ** np.float32(0.92)], axis=2)
    lamp = np.float32([1 - warmth, 1.0, 1 + warmth])
    return (albedo * tone + np.asarray(shine, np.float32)[..., None]) * lamp


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Map values to 0 below ``low`` and 1 above ``high``, with a smooth cubic between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur an image with a Gaussian of ``sigma`` pixels; tiny ones have no effect."""
    return cv2.GaussianBlur(image, (0, 0), float(sigma)) if sigma > 0.3 else image
