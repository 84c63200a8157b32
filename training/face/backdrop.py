"""Surroundings of a talking face: shoulders and clothes, and the room behind. Units as in portrait.py."""

import cv2
import numpy as np

from training.face.hair import STYLES
from training.face.person import Person
from training.face.pose import Pose
from training.face.shading import blur, lit, smoothstep

BACKGROUNDS = ("gradient", "blobs", "shelf", "window", "plain", "noise")


def background(width: int, height: int, rng: np.random.Generator, *, kind: str | None = None) -> np.ndarray:
    """Render a room, out of focus.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        rng: Generator.
        kind: One of ``BACKGROUNDS``; None draws one.

    Returns:
        height x width x 3, uint8, BGR.
    """
    kind = kind or BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    y, x = np.meshgrid(
        np.linspace(0, 1, height, dtype=np.float32), np.linspace(0, 1, width, dtype=np.float32), indexing="ij"
    )
    base, chroma = rng.uniform(0.08, 0.85), rng.uniform(0.02, 0.12)
    one, two = (
        np.clip(base + rng.normal(0, 0.08) + rng.normal(0, chroma, 3), 0.02, 0.97).astype(np.float32) for _ in range(2)
    )
    angle = rng.uniform(0, 2 * np.pi)
    ramp = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.5)[..., None]
    image = one * (1 - ramp) + two * ramp
    if kind == "blobs":
        for _ in range(int(rng.integers(5, 14))):
            cx, cy, size = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.04, 0.25)
            spot = 1 - smoothstep(0.7, 1.2, np.hypot((x - cx) * width / height, y - cy) / size)
            image += (muted(rng) - image) * (0.6 * spot)[..., None]
    elif kind == "shelf":
        _shelf(image, rng)
    elif kind == "window":
        x1, y1 = rng.uniform(-0.1, 0.7), rng.uniform(-0.1, 0.2)
        x2, y2 = x1 + rng.uniform(0.25, 0.6), y1 + rng.uniform(0.4, 0.8)
        panes = (
            (x > x1)
            & (x < x2)
            & (y > y1)
            & (y < y2)
            & (np.abs(x - (x1 + x2) / 2) > 0.008)
            & (np.abs(y - (y1 + y2) / 2) > 0.012)
        )
        sky = np.float32([0.98, 0.92, 0.85]) * (1 - 0.3 * y[..., None])
        image = np.where(panes[..., None], sky, image)
    elif kind == "noise":
        for grains in (5, 14, 40):
            shape = grains, round(grains * width / height)
            rough = (rng.normal(0, 0.15, (*shape, 1)) + rng.normal(0, 0.5 * chroma, (*shape, 3))).astype(np.float32)
            rough = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
            image = image + rough * (6 / (6 + grains)) ** 0.5
    image = blur(np.ascontiguousarray(image, np.float32), height * rng.uniform(0.003, 0.02))
    image = image * (1 - 0.25 * np.hypot(x - 0.5, y - 0.5))[..., None]  # vignetting
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def muted(rng: np.random.Generator) -> np.ndarray:
    """Draw a BGR colour, 0 to 1, as objects in rooms have: rarely a bright one."""
    return np.clip(rng.uniform(0.05, 0.9) + rng.normal(0, rng.uniform(0.02, 0.2), 3), 0.02, 0.97).astype(np.float32)


def _shelf(image, rng):
    """Draw books of all colours on a few boards, in place."""
    height, width = image.shape[:2]
    rows = int(rng.integers(2, 5))
    step = height / rows
    for row in range(rows):
        bottom = round((row + 1) * step)
        left = 0.0
        while left < width:
            wide = step * rng.uniform(0.06, 0.2)
            tall = step * rng.uniform(0.55, 0.9)
            if rng.random() < 0.85:
                colour = muted(rng) * 0.8
                cv2.rectangle(
                    image,
                    (round(left), round(bottom - tall)),
                    (round(left + wide), bottom),
                    tuple(float(c) for c in colour),
                    -1,
                )
            left += wide
        cv2.rectangle(image, (0, bottom - max(2, round(step * 0.05))), (width, bottom), (0.12, 0.2, 0.3), -1)


def body(image: np.ndarray, person: Person, pose: Pose) -> None:
    """Draw neck, shoulders and clothes into an image, in place.

    Args:
        image: H x W x 3, uint8, BGR.
        person: The person.
        pose: Pose of the head.
    """
    height, width = image.shape[:2]
    x1, x2 = int(max(0, pose.x - 2.2 * pose.height)), int(min(width, pose.x + 2.2 * pose.height))
    y1 = int(max(0, pose.y + 0.05 * pose.height))
    if x2 <= x1 or y1 >= height:
        return
    x = ((np.arange(x1, x2, dtype=np.float32) - np.float32(pose.x)) / np.float32(pose.height))[None]
    y = ((np.arange(y1, height, dtype=np.float32) - np.float32(pose.y)) / np.float32(pose.height))[:, None]
    y = y + np.float32(0.5)
    rng = np.random.default_rng([person.seed, 23])
    edge = np.float32(1.5 / pose.height)
    wide = 0.20 if person.feminine else 0.25
    span = (0.80 if person.feminine else 0.97) * rng.uniform(0.9, 1.1)
    flare = np.minimum(wide - 0.03 + 1.5 * np.maximum(y - 1.04, 0) ** 1.6, 0.8 * span)
    neck = 1 - smoothstep(-edge, edge, np.abs(x) - flare)
    slope = 1.15 + 0.26 * (np.abs(x) / span) ** 1.6 + 0.9 * np.maximum(np.abs(x) - 0.92 * span, 0) ** 1.2 / span
    arms = smoothstep(-0.03, 0.03, span * 1.10 + 0.12 * np.maximum(y - 1.4, 0) - np.abs(x))
    trunk = smoothstep(-edge, edge, y - slope) * arms
    if person.collar == "vee":
        opening = np.maximum(0, 1.20 + 0.42 * np.clip(1 - np.abs(x) / 0.24, -1, 1) - y)
    elif person.collar == "shirt":
        opening = np.maximum(0, 1.22 + 0.16 * np.clip(1 - np.abs(x) / 0.16, -1, 1) - y)
    else:
        opening = np.maximum(0, 1.24 + 0.07 * np.sqrt(np.clip(1 - (x / 0.33) ** 2, 0, 1)) * 1.6 - 0.02 - y) * (
            np.abs(x) < 0.33
        )
    cloth = trunk * (1 - smoothstep(0, 2 * edge, opening))
    skin = np.maximum(neck, trunk)
    side = np.clip(x / 0.3, -1, 1) * np.sign(person.light[0])
    round_neck = np.sqrt(np.clip(1 - (x / (flare + 0.02)) ** 2, 0.05, 1)) + 0 * y
    under = 0.50 + 0.50 * smoothstep(1.0, 1.28, y - 0.10 * side)  # shadow of the chin on the neck
    shade = (person.ambient + (0.9 - person.ambient) * (0.6 + 0.4 * side)) * (0.45 + 0.55 * round_neck) * under
    tint = lit(np.broadcast_to(np.float32(person.skin), (*shade.shape, 3)), shade, 0 * shade, person.warmth)
    part = image[y1:, x1:x2].astype(np.float32) / 255
    end = STYLES[person.style].falls
    if end:  # hair behind the neck
        fall = (1 - smoothstep(0.30, 0.32, np.abs(x))) * (1 - smoothstep(end - 0.1, end, y))
        part = part * (1 - fall[..., None]) + np.float32(person.hair) * 0.35 * fall[..., None]
    part = part * (1 - skin[..., None]) + tint * skin[..., None]
    folds = rng.normal(0, 1, (9, 12)).astype(np.float32)
    folds = cv2.resize(folds, (x2 - x1, height - y1), interpolation=cv2.INTER_CUBIC) * 0.07
    shade = 0.55 + 0.5 * person.ambient + 0.25 * np.clip(x / span, -1, 1) * np.sign(person.light[0]) + folds
    shade = shade * (1 - 0.35 * np.exp(-np.maximum(y - slope, 0) / 0.03) * 0.6)
    if person.collar == "shirt":
        shade = shade * (1 - 0.3 * np.exp(-((x / 0.010) ** 2)) * (y > 1.36))
        lapel = np.exp(-(((np.abs(x) - 0.19 + 0.5 * (y - 1.2)) / 0.012) ** 2)) * (y > 1.15) * (y < 1.40)
        shade = shade * (1 - 0.3 * lapel)
    stripes = 1 + 0.06 * np.sin(y * 45) * (person.seed % 6 == 0)
    cloth_tint = np.float32(person.cloth) * (np.clip(shade, 0.1, 1.4) * stripes)[..., None]
    part = part * (1 - cloth[..., None]) + cloth_tint * cloth[..., None]
    image[y1:, x1:x2] = (np.clip(part, 0, 1) * 255 + 0.5).astype(np.uint8)
