"""Hair: combed noise in the shapes of a few styles. Units as in portrait.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from training.face.shading import smoothstep

if TYPE_CHECKING:
    from training.face.portrait import Portrait


class Style(NamedTuple):
    """Hair style; lengths in face heights.

    Attributes:
        lift: Distance from the skull.
        falls: How far down the hair falls behind the ears; 0 if it does not.
        hairline: Height of the hairline in the middle.
        temple: How fast the hairline falls towards the temples.
    """

    lift: float
    falls: float
    hairline: float
    temple: float


STYLES = {
    "bald": Style(-1.0, 0.0, 0.0, 1.6),
    "receding": Style(0.02, 0.0, -0.07, 1.3),
    "crop": Style(0.01, 0.0, 0.0, 1.5),
    "short": Style(0.05, 0.0, 0.03, 1.7),
    "side": Style(0.07, 0.0, 0.03, 1.6),
    "curly": Style(0.10, 0.0, 0.05, 1.6),
    "afro": Style(0.20, 0.0, 0.03, 1.6),
    "bun": Style(0.035, 0.0, 0.0, 1.6),
    "bob": Style(0.07, 0.88, 0.03, 1.6),
    "fringe": Style(0.07, 0.95, 0.17, 0.3),
    "long": Style(0.07, 1.35, 0.02, 1.6),
}


def comb(portrait: Portrait) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Render the hair of a portrait.

    Returns:
        Colour (H x W x 3, 0 to 1, BGR) and weight (H x W) of the hair behind the face, and of the hair in front of it.
    """
    p, x, y = portrait.person, portrait.x, portrait.y
    name, style = p.style, STYLES[p.style]
    ax = np.abs(x)
    w = p.half_width
    rough = 1.0 if name in ("curly", "afro") else 0.45
    ripple = rough * (0.02 * portrait.noise(10, 10) + 0.012 * portrait.noise(40, 25))
    lift, falls = style.lift, style.falls
    dome = np.hypot(x / (w + 0.035 + lift), (y - 0.22) / (0.45 + lift))
    if name == "afro":
        back = 1 - smoothstep(0.97, 1.0, np.hypot(x / (w + 0.18), (y + 0.06) / 0.42) + ripple)
    elif falls:
        side = (ax - (w + 0.085 + 0.05 * smoothstep(0.1, 0.8, y)) + ripple) / 0.015
        drop = (1 - smoothstep(-1, 1, side)) * (1 - smoothstep(falls - 0.05, falls + 0.05, y + 4 * ripple))
        drop = drop * smoothstep(0.1, 0.25, y)
        drop = drop * (1 - smoothstep(0.62, 0.80, y) * (1 - smoothstep(0.22, 0.30, ax)))  # not in front of the neck
        back = np.maximum(1 - smoothstep(0.97, 1.0, dome + ripple), drop)
    else:
        back = 1 - smoothstep(0.97, 1.0, dome + ripple * (2 if name == "curly" else 1))
        back = back * (1 - smoothstep(0.25, 0.40, y))
    if name == "bun":
        back = np.maximum(back, 1 - smoothstep(0.9, 1.0, np.hypot(x / 0.14, (y + 0.33) / 0.13)))
    part = 0.10 * (1 if p.seed % 2 else -1)
    dip = 0.0
    if name in ("side", "long", "bob"):
        dip = 0.16 * np.clip((x - part) * np.sign(part) * -1, -0.1, 0.35)
    line = style.hairline + dip + style.temple * np.maximum(ax - 0.12, 0) ** 2 * 2.2
    jag = ripple * (2.5 if name in ("fringe", "curly", "short") else 1.2)
    cap = 1 - smoothstep(-0.014, 0.014, y - line + jag)
    burns = smoothstep(w * 0.86, w * 0.97, ax + 0.3 * ripple) * (1 - smoothstep(0.36, 0.46, y + 2 * ripple))
    if name == "receding":
        cap = cap * smoothstep(0.10, 0.22, ax + 0.5 * np.maximum(-0.12 - y, 0))
    front = np.maximum(cap, burns) * (1 - smoothstep(0.97, 1.0, dome + ripple))
    if falls:
        strand = smoothstep(w * 0.84, w * 0.95, ax + ripple + 0.03 * np.sin(y * 5)) * (y > 0)
        front = np.maximum(front, strand * back)
    if name == "afro":  # round: nothing hangs down at the sides
        front = front * back
    if name == "bald":
        back, front = back * 0, front * 0
    if name == "crop":
        front = front * 0.8
    # strands follow the skull, then hang down
    angle = np.arctan2(x, 0.35 - np.minimum(y, 0.34))
    radius = np.hypot(x / (w + 0.1), np.minimum(y - 0.25, 0) / 0.5)
    if name in ("curly", "afro"):
        strands = 0.8 * portrait.noise(34, 34) + 0.5 * portrait.noise(70, 70)
    else:
        along = radius if falls else angle / 1.2
        rows = portrait.rng.uniform(-1, 1, (4, 160)).astype(np.float32)
        across = np.clip(along * 0.5 + (0.5 if not falls else 0.0), 0, 1) * 158
        down = np.broadcast_to(np.clip(1.2 + y * 1.2, 0, 3), across.shape)
        strands = cv2.remap(rows, across.astype(np.float32), down.astype(np.float32), cv2.INTER_LINEAR)
    gloss = (
        np.exp(-(((radius - 0.62) / 0.16) ** 2))
        * (1 - smoothstep(0.1, 0.3, y))
        * (0.35 + 0.25 * p.light[0] * np.sign(x))
    )
    volume = (
        np.clip(1.15 - 0.55 * smoothstep(0.7, 1.05, dome), 0.5, 1.2)
        if not falls
        else 0.75 + 0.25 * smoothstep(w - 0.04, w + 0.04, ax)
    )
    shade = (0.72 + 0.28 * strands + 0.5 * gloss) * volume * (0.75 + 0.5 * p.ambient)
    shade = shade * (1 + 0.25 * np.sign(p.light[0]) * np.clip(x / 0.5, -1, 1))
    tint = np.float32(p.hair) * np.maximum(shade, 0.15)[..., None] + np.float32(0.02)
    behind = tint * (1 - 0.45 * smoothstep(0.15, 0.5, y) * (1 - smoothstep(w - 0.01, w + 0.05, ax)))[..., None]
    return (np.clip(behind, 0, 1), back.astype(np.float32)), (np.clip(tint, 0, 1), front.astype(np.float32))
