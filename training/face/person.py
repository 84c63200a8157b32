"""Appearance of a rendered person: a set of numbers, drawn at random or given."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SKINS = (
    (196, 214, 240),
    (172, 196, 232),
    (150, 178, 222),
    (120, 152, 205),
    (92, 126, 184),
    (66, 96, 150),
    (46, 68, 112),
    (36, 52, 88),
)
HAIRS = (
    (18, 20, 26),
    (24, 32, 48),
    (30, 48, 82),
    (52, 88, 140),
    (96, 150, 196),
    (40, 66, 150),
    (150, 152, 156),
    (205, 208, 212),
)
IRISES = ((40, 62, 96), (24, 36, 60), (150, 120, 84), (110, 128, 92), (96, 110, 120))
SHORT_HAIR = ("short", "short", "side", "curly", "crop", "bald", "receding")
LONG_HAIR = ("long", "long", "bob", "fringe", "bun", "curly", "afro", "side")
BEARDS = ("none", "none", "none", "stubble", "stubble", "moustache", "full", "goatee")


@dataclass(frozen=True)
class Person:
    """Appearance of a person. Lengths are in face heights, colours BGR 0 to 1, angles in radians."""

    feminine: bool = False
    age: float = 0.3  # 0 young .. 1 old
    skin: tuple = (0.68, 0.77, 0.91)
    hair: tuple = (0.12, 0.19, 0.32)
    iris: tuple = (0.16, 0.24, 0.38)
    lips: tuple = (0.45, 0.45, 0.75)
    cloth: tuple = (0.5, 0.4, 0.3)
    style: str = "short"
    beard: str = "none"
    glasses: bool = False
    collar: str = "round"
    half_width: float = 0.375
    jaw_width: float = 0.80
    chin: float = 0.17
    eye_distance: float = 0.152
    eye_size: float = 1.0
    eye_tilt: float = 0.0
    brow: float = 1.0
    brow_height: float = 0.0
    nose_width: float = 1.0
    nose_height: float = 1.0
    mouth_half_width: float = 0.125
    lip_fullness: float = 1.0
    light: tuple = (-0.35, -0.45, 0.8)
    ambient: float = 0.5
    warmth: float = 0.0
    seed: int = field(default=0, repr=False)

    @classmethod
    def random(cls, seed: int, *, feminine: bool | None = None) -> Person:
        """Return the person of a seed; ``feminine`` None lets the seed decide."""
        rng = np.random.default_rng([seed, 7])
        drawn = bool(rng.random() < 0.5)
        feminine = drawn if feminine is None else feminine
        age = rng.uniform(0, 1) ** 1.3
        tone = rng.uniform(0, len(SKINS) - 1.01)
        low = int(tone)
        skin = np.array(SKINS[low]) * (1 - tone + low) + np.array(SKINS[low + 1]) * (tone - low)
        skin = np.clip(skin * rng.normal(1, 0.025, 3), 0, 250) / 255
        dark = tone > 3.6
        shades = HAIRS[:3] if dark else HAIRS[:6]
        hair = HAIRS[6 + int(rng.integers(2))] if age > 0.72 else shades[int(rng.integers(len(shades)))]
        hair = np.clip(np.array(hair) * rng.uniform(0.8, 1.2), 8, 235) / 255
        iris = IRISES[int(rng.integers(2 if dark else len(IRISES)))]
        red = np.array([0.78, 0.66, 0.98]) if not feminine else np.array([0.62, 0.48, 0.98])
        lips = np.clip(skin * red * rng.uniform(0.85, 1.0), 0.05, 0.95)
        styles = LONG_HAIR if feminine else SHORT_HAIR
        angle = rng.uniform(-1.1, 1.1)
        return cls(
            feminine=feminine,
            age=float(age),
            skin=tuple(skin),
            hair=tuple(hair),
            iris=tuple(np.array(iris) / 255 * rng.uniform(0.8, 1.2)),
            lips=tuple(lips),
            cloth=tuple(np.clip(rng.uniform(0.05, 0.85) + rng.normal(0, 0.15, 3), 0.03, 0.9)),
            style=styles[int(rng.integers(len(styles)))],
            beard="none" if feminine else BEARDS[int(rng.integers(len(BEARDS)))],
            glasses=bool(rng.random() < 0.18),
            collar=("round", "vee", "shirt")[int(rng.integers(3))],
            half_width=rng.uniform(0.36, 0.41) - 0.01 * feminine,
            jaw_width=rng.uniform(0.74, 0.9) - 0.05 * feminine,
            chin=rng.uniform(0.13, 0.2) - 0.02 * feminine,
            eye_distance=rng.uniform(0.142, 0.164),
            eye_size=rng.uniform(0.85, 1.12) + 0.08 * feminine,
            eye_tilt=rng.uniform(-0.04, 0.12),
            brow=rng.uniform(0.7, 1.3) * (0.75 if feminine else 1.15),
            brow_height=rng.uniform(-0.012, 0.015),
            nose_width=rng.uniform(0.8, 1.25),
            nose_height=rng.uniform(0.7, 1.2),
            mouth_half_width=rng.uniform(0.108, 0.138),
            lip_fullness=rng.uniform(0.75, 1.3) * (1.1 if feminine else 0.9),
            light=(float(np.sin(angle)) * 0.75, rng.uniform(-0.7, -0.15), rng.uniform(0.6, 0.9)),
            ambient=rng.uniform(0.38, 0.62),
            warmth=rng.uniform(-0.06, 0.08),
            seed=int(seed),
        )
