"""A person as still images: the parts of a talking face that do not move by themselves.

The face is a relief of smooth bumps, lit by one lamp (Lambert's law, an ambient term, a highlight after Blinn) and
tinted. Coordinates are in face heights: x to the right from the middle of the face, y down, 0 at the top of the face
box (upper forehead), 1 below the chin. Colours are BGR, 0 to 1.
"""

import cv2
import numpy as np

from training.face.hair import STYLES, comb
from training.face.person import Person
from training.face.shading import blur, lit, smoothstep

REACH, TOP = 0.66, -0.54  # extent of a head's image to both sides and upwards
BOTTOM, LONG_BOTTOM = 1.16, 1.5  # extent downwards: to the chin of an open jaw, or with long hair
EYE_Y, NOSE_Y, MOUTH_Y = 0.40, 0.615, 0.765


class Portrait:
    """The layers of a person's head at a given resolution.

    Attributes:
        detail: Pixels per face height.
        image: H x W x 4, uint8, BGRA, with eyes shut and lips closed.
        relief: H x W, float32, height above the image plane in face heights, for turning the head.
    """

    def __init__(self, person: Person, detail: float) -> None:
        self.person, self.detail = person, float(detail)
        self.bottom = LONG_BOTTOM if STYLES[person.style].falls else BOTTOM
        self.shape = round((self.bottom - TOP) * detail), round(2 * REACH * detail)
        self.rng = np.random.default_rng([person.seed, 11])
        # a column and a row, because most shapes are products of the two
        self.y = (np.arange(self.shape[0], dtype=np.float32) / np.float32(detail) + np.float32(TOP))[:, None]
        self.x = (np.arange(self.shape[1], dtype=np.float32) / np.float32(detail) - np.float32(REACH))[None]
        outline = self._outline()
        skin = self._polygon(outline)
        self.relief = self._relief(skin)
        shade, shine = self._light(self.relief)
        albedo = self._albedo()
        colour = lit(albedo, shade, shine * 0.16 * (0.6 + 0.4 * self.person.age), self.person.warmth)
        alpha = skin
        back, front = comb(self)
        ears = self._ears()
        ear_skin = np.float32(self.person.skin) * np.float32([0.86, 0.86, 0.95])
        ear_colour = lit(
            np.broadcast_to(ear_skin, (*self.shape, 3)),
            np.broadcast_to(shade.mean() * (0.75 + 0.5 * smoothstep(0.30, 0.6, 1 - np.abs(self.x))), self.shape),
            0 * shine,
            self.person.warmth,
        )
        layers = [(back[0], back[1]), (ear_colour, ears), (colour, alpha), (front[0], front[1])]
        image = np.zeros((*self.shape, 3), np.float32)
        cover = np.zeros(self.shape, np.float32)
        for tint, weight in layers:
            image = image * (1 - weight)[..., None] + tint * weight[..., None]
            cover = cover * (1 - weight) + weight
        image = np.where(cover[..., None] > 1e-3, image / np.maximum(cover, 1e-3)[..., None], colour)
        if self.person.glasses:
            image = self._glasses(image)
        self.image = np.dstack([np.clip(image, 0, 1), cover])
        self.image = np.ascontiguousarray((self.image * 255 + 0.5).astype(np.uint8))

    def pixel(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple[float | np.ndarray, float | np.ndarray]:
        """Convert a point from face heights to fractional (column, row) pixels of the canvas."""
        return (x + REACH) * self.detail, (y - TOP) * self.detail

    def bump(self, x: float, y: float, width: float, height: float, *, tilt: float = 0.0) -> np.ndarray:
        """Return a Gaussian of height 1 at (x, y), H x W."""
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        if tilt:
            dx, dy = (
                dx * np.float32(np.cos(tilt)) + dy * np.float32(np.sin(tilt)),
                (dy * np.float32(np.cos(tilt)) - dx * np.float32(np.sin(tilt))),
            )
            return np.exp(-((dx / np.float32(width)) ** 2 + (dy / np.float32(height)) ** 2))
        return np.exp(-((dx / np.float32(width)) ** 2)) * np.exp(-((dy / np.float32(height)) ** 2))

    def pair(self, x: float, y: float, width: float, height: float, *, tilt: float = 0.0) -> np.ndarray:
        """Return the sum of a bump and its mirror image."""
        return self.bump(x, y, width, height, tilt=tilt) + self.bump(-x, y, width, height, tilt=-tilt)

    def noise(self, across: float, down: float) -> np.ndarray:
        """Return smooth noise, about -1 to 1, with the given number of grains per face height."""
        rows = max(2, round((self.bottom - TOP) * down))
        columns = max(2, round(2 * REACH * across))
        grid = self.rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        return cv2.resize(grid, self.shape[::-1], interpolation=cv2.INTER_CUBIC)

    def _polygon(self, points, soft=0.0045):
        mask = np.zeros(self.shape, np.uint8)
        pixels = np.round(np.stack(self.pixel(points[:, 0], points[:, 1]), 1) * 16).astype(np.int32)
        cv2.fillPoly(mask, [pixels], 255, lineType=cv2.LINE_AA, shift=4)
        return blur(mask.astype(np.float32) / 255, soft * self.detail)

    def _outline(self):
        p = self.person
        w, j, c = p.half_width, p.jaw_width, p.chin
        ys = np.array([-0.235, -0.20, -0.10, 0.05, 0.25, 0.42, 0.58, 0.72, 0.84, 0.93, 0.985, 1.0])
        xs = np.array(
            [
                0.0,
                0.45 * w,
                0.80 * w,
                0.98 * w,
                1.03 * w,
                1.0 * w,
                0.965 * w,
                (0.55 + 0.45 * j) * w * 0.96,
                j * w * 0.93,
                0.5 * (j * w * 0.82 + c),
                c * 0.75,
                0.0,
            ]
        )
        # resample the curve evenly and round it by averaging
        knots = np.cumsum(np.concatenate([[0], np.hypot(np.diff(xs), np.diff(ys))]))
        walk = np.linspace(0, knots[-1], 160)
        x, y = np.interp(walk, knots, xs), np.interp(walk, knots, ys)
        x, y = np.concatenate([x, -x[::-1]]), np.concatenate([y, y[::-1]])
        taps = np.hanning(25)[1:-1]
        taps /= taps.sum()
        x, y = (np.convolve(np.concatenate([v[-11:], v, v[:11]]), taps, mode="valid") for v in (x, y))
        return np.stack([x, y], 1)

    def _relief(self, skin):
        p, x, y = self.person, self.x, self.y
        inside = 1 - (x / (p.half_width * 1.10)) ** 2 - ((y - 0.40) / 0.70) ** 2
        z = 0.34 * np.sqrt(np.maximum(inside, 0.02))
        depth = cv2.distanceTransform((skin > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / np.float32(self.detail)
        z -= 0.10 * np.exp(-blur(depth, 0.02 * self.detail) / 0.045)  # the surface turns away at the silhouette
        wide, high, old = p.nose_width, p.nose_height, p.age
        ridge = np.clip((y - 0.37) / (NOSE_Y - 0.37), 0, 1)
        bridge = np.abs(x) / (0.037 + 0.026 * ridge * wide)
        z += (
            high
            * (0.016 + 0.070 * ridge**1.2)
            * np.exp(-(bridge**2.4))
            * smoothstep(0.31, 0.43, y)
            * (1 - smoothstep(NOSE_Y + 0.012, NOSE_Y + 0.055, y))
        )
        z += high * 0.030 * self.bump(0, NOSE_Y, 0.042 * wide, 0.036)
        z += 0.036 * self.pair(0.054 * wide, NOSE_Y + 0.018, 0.026 * wide, 0.026)
        z -= 0.040 * self.pair(p.eye_distance, EYE_Y, 0.085, 0.045)
        z += 0.020 * self.pair(p.eye_distance, EYE_Y, 0.055, 0.032)
        z += 0.022 * self.pair(0.13, 0.315, 0.10, 0.035, tilt=0.05) * (0.6 if p.feminine else 1.1)
        z += 0.030 * self.pair(0.225, 0.53, 0.10, 0.075)
        z -= 0.018 * self.pair(0.25, 0.70, 0.08, 0.11)
        z += 0.020 * self.bump(0, 0.16, 0.26, 0.16)
        fold = np.abs(x) - (0.075 + (y - NOSE_Y) * 0.52)
        z -= (
            (0.004 + 0.010 * old)
            * np.exp(-((fold / 0.014) ** 2))
            * smoothstep(0.59, 0.65, y)
            * (1 - smoothstep(0.74, 0.82, y))
        )
        z -= (0.004 + 0.012 * old) * self.pair(p.eye_distance - 0.01, EYE_Y + 0.062, 0.06, 0.010, tilt=0.15)
        z += 0.028 * self.bump(0, MOUTH_Y, 0.15, 0.075)
        full = p.lip_fullness
        self.upper = self._lip(-0.030 * full, peak=0.012)
        self.lower = self._lip(0.043 * full, peak=0.0)
        z += 0.016 * blur(self.upper, 0.008 * self.detail) + 0.026 * blur(self.lower, 0.011 * self.detail)
        z -= 0.016 * self.bump(0, MOUTH_Y + 0.075 + 0.01 * full, 0.07, 0.020)
        z += 0.035 * self.bump(0, 0.91, 0.075, 0.06)
        z -= 0.006 * self.bump(0, 0.70, 0.012, 0.035)
        if old > 0.35:
            for line in range(3):
                wave = 0.006 * np.sin(x * 9 + line * 2 + p.seed)
                z -= (
                    0.0045
                    * (old - 0.25)
                    * np.exp(-(((y - 0.06 - 0.05 * line - wave) / 0.006) ** 2))
                    * (np.abs(x) < 0.2)
                )
            z = z - 0.005 * old * self.pair(p.eye_distance + 0.10, EYE_Y + 0.01, 0.035, 0.006, tilt=0.3)
        return blur(z.astype(np.float32), 0.004 * self.detail)

    def _lip(self, height, peak):
        """Return a soft mask of the closed upper (negative height) or lower lip."""
        half = self.person.mouth_half_width
        u = np.clip(np.abs(self.x) / half, 0, 1)
        lens = np.sqrt(1 - u**2) * (1 - 0.3 * u) if height < 0 else np.sqrt(1 - u**2.3) * (1 - 0.12 * u)
        inner = MOUTH_Y + self.lip_line()
        edge = MOUTH_Y + height * lens + peak * np.exp(-((self.x / 0.022) ** 2))
        sharp = 0.5 * self.detail
        if height < 0:
            mask = np.clip((self.y - edge) * sharp + 0.5, 0, 1) * np.clip((inner - self.y) * sharp + 0.5, 0, 1)
        else:
            mask = np.clip((edge - self.y) * sharp + 0.5, 0, 1) * np.clip((self.y - inner) * sharp + 0.5, 0, 1)
        return (mask * (np.abs(self.x) < half)).astype(np.float32)

    def lip_line(self, x: np.ndarray | None = None) -> np.ndarray:
        """Return where the closed lips meet, relative to ``MOUTH_Y``."""
        x = self.x if x is None else x
        return 0.004 * np.exp(-((x / 0.03) ** 2)) - 0.002

    def _light(self, z):
        """Return the diffuse shade (about 0 to 1.3) and the highlight (0 to 1) of a relief."""
        slope_x = cv2.Sobel(z, cv2.CV_32F, 1, 0, ksize=3) * np.float32(self.detail / 8)
        slope_y = cv2.Sobel(z, cv2.CV_32F, 0, 1, ksize=3) * np.float32(self.detail / 8)
        size = np.sqrt(slope_x**2 + slope_y**2 + 1)
        lamp = np.array(self.person.light)
        lamp = lamp / np.linalg.norm(lamp)
        facing = (-slope_x * lamp[0] - slope_y * lamp[1] + lamp[2]) / size
        half = lamp + np.array([0.0, 0.0, 1.0])  # the viewer is along z
        half = half / np.linalg.norm(half)
        shine = np.maximum((-slope_x * half[0] - slope_y * half[1] + half[2]) / size, 0) ** 28
        hollow = blur(z, 0.03 * self.detail) - z  # approximate ambient occlusion
        ambient = self.person.ambient * (0.85 - 0.15 * slope_y / size) * np.clip(1 - 9 * hollow, 0.45, 1.15)
        return ambient + (1.12 - self.person.ambient) * np.clip(facing + 0.06, 0, 1), shine

    def _albedo(self):
        p, x, y = self.person, self.x, self.y
        base = np.broadcast_to(np.float32(p.skin), (*self.shape, 3)).copy()
        blush = 0.5 * self.pair(0.20, 0.56, 0.10, 0.08) + 0.35 * self.bump(0, NOSE_Y, 0.06, 0.05)
        base *= 1 - np.float32([0.16, 0.18, 0.0]) * blush[..., None]
        mottle = 0.018 * self.noise(60, 60) + 0.02 * self.noise(14, 14)
        base *= (1 + mottle)[..., None]
        if p.seed % 5 == 0 and p.skin[2] > 0.7:
            spots = np.clip(self.noise(45, 45) - 0.55, 0, 1) * (self.pair(0.16, 0.55, 0.12, 0.06))
            base *= 1 - np.float32([0.55, 0.45, 0.25]) * spots[..., None]
        base *= (
            1
            - np.float32([0.10, 0.14, 0.10])
            * (0.4 + p.age)
            * self.pair(p.eye_distance, EYE_Y + 0.02, 0.07, 0.045)[..., None]
        )
        if p.feminine:
            lid = self.pair(p.eye_distance, EYE_Y - 0.028, 0.06, 0.022)
            base *= 1 - np.float32([0.25, 0.35, 0.25]) * (0.7 * (p.seed % 3) / 2) * lid[..., None]
        hair = np.float32(p.hair) * 0.8
        # beard, or its shadow
        under = smoothstep(0.66, 0.80, y + 0.35 * np.abs(x)) * (1 - 0.9 * self.bump(0, MOUTH_Y + 0.005, 0.11, 0.03))
        lip_hair = self.bump(0, 0.712, 0.12, 0.026) * (1 - 0.5 * self.bump(0, 0.70, 0.01, 0.03))
        chin_hair = self.bump(0, 0.90, 0.10, 0.085) * smoothstep(0.80, 0.84, y)
        hairs = np.clip(0.75 + 0.5 * self.noise(110, 28), 0, 1)
        amount = {
            "none": 0.0 if p.feminine else 0.07 * under,
            "stubble": 0.30 * under + 0.2 * lip_hair,
            "moustache": np.clip(lip_hair * 1.5, 0, 0.93),
            "goatee": np.clip(1.4 * lip_hair + 1.4 * chin_hair, 0, 0.93),
            "full": np.clip(1.1 * under + 1.3 * lip_hair, 0, 0.94),
        }[p.beard]
        weight = (amount * hairs)[..., None] if np.ndim(amount) else 0.0
        base = base * (1 - weight) + hair * (0.75 + 0.4 * hairs[..., None]) * weight
        # brows: short strokes along an arch
        bx = np.abs(x) - p.eye_distance - 0.005
        arch = 0.312 - p.brow_height + 0.030 * (bx / 0.09) ** 2 - 0.12 * p.eye_tilt * bx + 0.02 * bx
        thick = 0.017 * p.brow * (1 - 0.45 * np.clip(bx / 0.09, -0.3, 1))
        brow = np.exp(-((((y - arch) / thick) ** 2) ** 1.5)) * (1 - smoothstep(0.075, 0.098, np.abs(bx)))
        brow = (brow * np.clip(0.8 + 0.4 * self.noise(70, 40), 0, 1) * 0.88)[..., None]
        tint = np.float32(p.hair) * 0.7 + 0.08 * np.float32(p.skin)
        base = base * (1 - brow) + tint * brow
        nostril = self.pair(0.031 * p.nose_width, NOSE_Y + 0.037, 0.016 * p.nose_width, 0.0085, tilt=-0.25)
        base *= 1 - 0.80 * np.clip(nostril * 1.3, 0, 1)[..., None]
        wing = np.exp(
            -(((np.hypot((np.abs(x) - 0.048 * p.nose_width) / 0.9, y - NOSE_Y - 0.016) - 0.030) / 0.006) ** 2)
        )
        base *= 1 - 0.22 * (wing * (np.abs(x) > 0.05 * p.nose_width) * (y > NOSE_Y))[..., None]
        lip = np.clip(self.upper + self.lower, 0, 1)[..., None]
        tint = np.float32(p.lips) * (1 - 0.13 * self.upper[..., None]) * (1 + 0.05 * self.noise(90, 6)[..., None])
        base = base * (1 - lip * 0.9) + tint * lip * 0.9
        half = p.mouth_half_width
        line = np.exp(-(((y - MOUTH_Y - self.lip_line()) / 0.0055) ** 2)) * (
            1 - smoothstep(0.8, 1.12, np.abs(x) / half)
        )
        base *= 1 - np.float32([0.65, 0.65, 0.5]) * line[..., None]
        return self._lids(base)

    def _lids(self, base):
        """Draw shut eyes: the crease of the upper lid and a line of lashes."""
        p = self.person
        bx = (np.abs(self.x) - p.eye_distance) / (0.062 * p.eye_size)
        lens = np.sqrt(np.clip(1 - bx**2, 0, 1))
        line = EYE_Y + 0.016 * p.eye_size * lens - p.eye_tilt * 0.06 * bx
        crease = EYE_Y - 0.033 * p.eye_size * lens - p.eye_tilt * 0.06 * bx
        lash = np.exp(-(((self.y - line) / (0.005 + 0.002 * p.feminine)) ** 2)) * (np.abs(bx) < 1)
        fold = np.exp(-(((self.y - crease) / 0.006) ** 2)) * (np.abs(bx) < 1)
        return base * (1 - 0.75 * lash - 0.25 * fold)[..., None]

    def _ears(self):
        mask = np.zeros(self.shape, np.float32)
        for side in (-1, 1):
            dx = (self.x * side - self.person.half_width * 1.0) / 0.052
            dy = (self.y - 0.47 + 0.25 * dx * 0.05) / 0.118
            mask = np.maximum(mask, 1 - smoothstep(0.85, 1.05, dx**2 + dy**2))
        return mask.astype(np.float32)

    def _glasses(self, image):
        p = self.person
        frame = np.zeros(self.shape, np.uint8)
        width = max(1, round((0.007 + 0.002 * (p.seed % 3)) * self.detail))
        for side in (-1, 1):
            centre = tuple(round(v) for v in self.pixel(side * p.eye_distance, EYE_Y + 0.012))
            axes = (round(0.098 * self.detail), round((0.070 if p.seed % 2 else 0.085) * self.detail))
            cv2.ellipse(frame, centre, axes, 0, 0, 360, 255, width, cv2.LINE_AA)
            ends = [
                tuple(round(v) for v in self.pixel(side * reach, EYE_Y - 0.005))
                for reach in (p.eye_distance + 0.098, p.half_width * 1.02)
            ]
            cv2.line(frame, *ends, 255, width, cv2.LINE_AA)
        ends = [tuple(round(v) for v in self.pixel(side * (p.eye_distance - 0.098), EYE_Y)) for side in (-1, 1)]
        cv2.line(frame, *ends, 255, width, cv2.LINE_AA)
        self.frames = blur(frame.astype(np.float32) / 255, 0.003 * self.detail)[..., None]
        return image * (1 - 0.9 * self.frames) + 0.08 * 0.9 * self.frames
