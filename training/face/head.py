"""A head for rendering many frames: the still layers of a portrait, bent and turned by an expression.

The jaw stretches the lower face and the lips part along their line; eyes and the inside of the mouth are drawn into
the gaps. Units as in portrait.py.
"""

import cv2
import numpy as np

from training.face.person import Person
from training.face.portrait import EYE_Y, MOUTH_Y, REACH, TOP, Portrait
from training.face.pose import Pose
from training.face.shading import blur, smoothstep
from training.face.voice import Articulation

DETAIL = 1.3  # canvas pixels per image pixel, within the limits below
DETAIL_LIMITS = 90, 320  # pixels per face height
JAW_DROP = 0.09  # drop of the chin at jaw 1, in face heights
LIP_DROP = 0.055  # further drop of the lower lip at jaw 1
LIP_LIFT = 0.016  # lift of the upper lip at jaw 1
SPREAD = 0.20  # share by which the mouth widens at width 1
BOX_SHARE = 0.92  # of the face's width, because detectors' boxes leave out the edges of the cheeks
SHUT = Articulation()


class Head:
    """A person's head with its static layers prepared.

    Args:
        person: The person.
        face_height: Height of the face in image pixels that the resolution should suit.
    """

    def __init__(self, person: Person, face_height: float) -> None:
        self.person = person
        low, high = DETAIL_LIMITS
        self.portrait = Portrait(person, float(np.clip(face_height * DETAIL, low, high)))
        self.detail = self.portrait.detail
        self.canvas = self.portrait.image.copy()
        margin = 0.14 * self.detail  # for the jaw and for turns of the head
        left, top, width, height = cv2.boundingRect(self.canvas[..., 3])
        self.corners = np.array(
            [[left - margin, left + width + margin] * 2, np.repeat([top - margin, top + height + margin], 2)]
        )
        self._eyes = {}
        self._last_eyes = None
        self._prepare_mouth()

    def _region(self, x1, y1, x2, y2):
        """Return the slices of the canvas and the coordinate grids of a region given in face heights."""
        (c1, r1), (c2, r2) = self.portrait.pixel(x1, y1), self.portrait.pixel(x2, y2)
        rows, columns = slice(int(r1), int(r2)), slice(int(c1), int(c2))
        return (rows, columns), self.portrait.x[:, columns], self.portrait.y[rows]

    def _prepare_mouth(self):
        self.mouth_region, self.mx, self.my = self._region(-0.44, 0.52, 0.44, 1.14)
        self.mouth_source = self.portrait.image[self.mouth_region].copy()
        x, y = self.mx, self.my
        self.hinge = smoothstep(0.58, 0.95, y) * (1 - 0.85 * smoothstep(0.16, 0.40, np.abs(x)))
        self.near = np.exp(-((x / 0.19) ** 2) - ((y - MOUTH_Y) / 0.12) ** 2)
        self.line = np.float32(MOUTH_Y) + self.portrait.lip_line(x)
        rows, columns = self.mouth_region
        self.origin = np.float32(columns.start), np.float32(rows.start)

    def draw(
        self,
        articulation: Articulation,
        *,
        lid: float = 0.0,
        gaze: tuple[float, float] | np.ndarray = (0.0, 0.0),
        smile: float = 0.0,
    ) -> np.ndarray:
        """Draw an expression on the canvas.

        Args:
            articulation: Position of the mouth.
            lid: 0 (open) to 1 (shut).
            gaze: Direction of the eyes to the right and down, -1 to 1.
            smile: Added to the mouth's width.

        Returns:
            The canvas, H x W x 4, uint8, BGRA; the next call overwrites it.
        """
        self._draw_eyes(round(float(lid) * 12) / 12, tuple(np.round(np.asarray(gaze) * 4) / 4))
        self._draw_mouth(articulation, smile)
        return self.canvas

    def _draw_mouth(self, articulation, smile):
        x, y, person = self.mx, self.my, self.person
        jaw, closure = float(articulation.jaw), float(np.clip(articulation.closure, 0, 1))
        width = float(articulation.width) + smile
        stretch = 1 + SPREAD * width
        half = person.mouth_half_width * stretch
        u = np.clip(np.abs(x) / np.float32(half), 0, 1)
        lens = np.sqrt(1 - u**2.4) * (1 - 0.2 * u)
        drop = JAW_DROP * jaw
        base = self.hinge * np.float32(drop)
        corner = self.line + np.float32(drop * 0.38) * (1 - 0.25 * u**2) - np.float32(0.012 * smile) * u**2
        apart = max(0.0, jaw * (1 - closure))
        lens_low = lens * np.float32(LIP_DROP * apart + 0.35 * drop * (1 - closure))
        lens_up = lens * np.float32(LIP_LIFT * apart + 0.22 * drop * (1 - closure))
        low, up = corner + lens_low, corner - lens_up
        below = y > (low + up) / 2
        edge = np.where(below, low - self.line, up - self.line)
        reach = np.where(below, y - low, up - y)
        fade = np.exp(-((np.maximum(reach, 0) / np.where(below, 0.085, 0.065)) ** 2)) * (
            1 - smoothstep(0.75, 1.5, np.abs(x) / half)
        )
        shift = base * (1 - fade) + edge * fade
        source_y = y - shift
        # rounded lips are fuller, pressed lips are thinner
        press = 1 + 0.30 * closure - 0.22 * max(0.0, -width)
        off = source_y - self.line
        source_y = source_y + off * np.float32(press - 1) * np.exp(-((off / 0.07) ** 2)) * self.near
        source_x = x / (1 + np.float32(SPREAD * width) * self.near)
        columns = (source_x - np.float32(-REACH)) * np.float32(self.detail) - self.origin[0]
        rows = (source_y - np.float32(TOP)) * np.float32(self.detail) - self.origin[1]
        image = cv2.remap(
            self.mouth_source,
            columns.astype(np.float32),
            rows.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if apart > 0.01:
            self._draw_inside(image, up, low, half, drop, float(articulation.tongue))
        self.canvas[self.mouth_region] = image

    def _draw_inside(self, image, up, low, half, drop, tongue):
        """Draw teeth, tongue and darkness between the lips."""
        sharp = np.float32(self.detail)
        c1, c2 = np.searchsorted(self.mx[0], [-half, half])
        r1, r2 = np.searchsorted(self.my[:, 0], [up.min() - 0.01, low.max() + 0.01])
        if r2 <= r1 or c2 <= c1:
            return
        part = slice(r1, r2), slice(c1, c2)
        x, y, up, low = self.mx[:, part[1]], self.my[part[0]], up[:, part[1]], low[:, part[1]]
        hole = np.clip((y - up) * sharp + 0.3, 0, 1) * np.clip((low - y) * sharp + 0.3, 0, 1)
        hole *= np.clip((low - up) * sharp - 0.3, 0, 1)
        deep = np.clip((y - up) / np.maximum(low - up, 1e-3), 0, 1)
        inside = np.float32([0.10, 0.09, 0.20]) * (0.35 + 0.5 * deep[..., None])
        lift = 0.030 * tongue
        flesh = 1 - smoothstep(0.75, 1.05, np.hypot(x / 0.085, (y - MOUTH_Y - drop * 0.95 - 0.02 + lift) / 0.045))
        inside = inside + (np.float32([0.36, 0.34, 0.62]) - inside) * (0.8 * flesh * (0.5 + 0.5 * deep))[..., None]
        bright = 0.80 - 0.2 * self.person.age
        enamel = np.float32([0.80, 0.88, 0.92]) * bright
        gaps = 1 - 0.18 * np.exp(-(((np.mod(x + 0.5 * 0.021, 0.021) - 0.0105) / 0.0022) ** 2))
        arch = 1 - smoothstep(0.055, 0.10, np.abs(x))
        upper = np.clip((MOUTH_Y + 0.012 - 0.5 * x**2 - y) * sharp, 0, 1) * arch
        lower = np.clip((y - MOUTH_Y - drop * 0.85 - 0.012) * sharp, 0, 1) * arch * 0.6
        shadow = 0.55 + 0.45 * smoothstep(0.0, 0.02, y - up)
        teeth = np.clip(upper + lower, 0, 1)[..., None]
        inside = inside * (1 - teeth) + enamel * (gaps * shadow * (0.6 + 0.4 * arch))[..., None] * teeth
        light = np.float32(255 * (0.65 + 0.5 * self.person.ambient))
        weight = hole[..., None]
        target = image[part][..., :3]
        image[part][..., :3] = (target * (1 - weight) + np.clip(inside * light, 0, 255) * weight).astype(np.uint8)

    def _draw_eyes(self, lid, gaze):
        if (lid, gaze) == self._last_eyes:
            return
        self._last_eyes = lid, gaze
        for side in (-1, 1):
            key = lid, gaze, side
            if key not in self._eyes:
                self._eyes[key] = self._eye(lid, gaze, side)
            region, image = self._eyes[key]
            self.canvas[region] = image

    def _eye(self, lid, gaze, side):
        """Return the slices of the canvas and the pixels of one eye."""
        person = self.person
        centre = side * person.eye_distance
        size = 0.073 * person.eye_size
        region, gx, gy = self._region(centre - 0.105, EYE_Y - 0.085, centre + 0.105, EYE_Y + 0.075)
        image = self.portrait.image[region].copy()
        if lid >= 1:
            return region, image
        x, y = (gx - np.float32(centre)) * side, gy - np.float32(EYE_Y)  # x points outwards
        sharp = np.float32(self.detail)
        u = np.clip(x / size, -1, 1)
        slant = -person.eye_tilt * 0.06 * u
        arch = np.sqrt(np.clip(1 - u**2, 0, 1))
        bottom = slant + 0.019 * person.eye_size * arch * (1 + 0.15 * u)
        top_open = slant - 0.029 * person.eye_size * arch * (1 - 0.18 * u)
        top = top_open + (bottom - top_open) * np.float32(lid)
        hole = np.clip((y - top) * sharp + 0.5, 0, 1) * np.clip((bottom - y) * sharp + 0.5, 0, 1) * (np.abs(x) < size)
        light = 0.60 + 0.45 * person.ambient
        shade = (0.62 + 0.38 * smoothstep(0.0, 0.022, y - top)) * (1 - 0.35 * u**2)
        ball = np.float32([0.88, 0.90, 0.93]) * (shade * light)[..., None]
        ix, iy = gaze[0] * 0.018 * side, gaze[1] * 0.009 - 0.004
        r = np.hypot(x - np.float32(ix), y - np.float32(iy)) / (0.0285 * (0.6 + 0.4 * person.eye_size))
        ring = 1 - smoothstep(0.93, 1.07, r)
        colour = (
            np.float32(person.iris)
            * (
                (0.75 + 0.5 * np.clip(r, 0, 1))
                * (1 - 0.6 * smoothstep(0.8, 1.0, r))
                * (0.55 + 0.45 * smoothstep(0.0, 0.03, y - top))
            )[..., None]
        )
        colour = colour * smoothstep(0.36, 0.46, r)[..., None]
        ball = ball * (1 - ring[..., None]) + colour * ring[..., None]
        glint = (x - ix) * side - 0.010 * np.sign(person.light[0]), y - iy + 0.010
        spot = np.exp(-(glint[0] ** 2 + glint[1] ** 2) / 0.006**2)
        ball = ball + 0.85 * spot[..., None] * light
        skin = image[..., :3].astype(np.float32) / 255
        # remove the crease and the lashes of the closed lid where the eye is open
        skin_lid = np.float32(cv2.blur(skin, (3, 3)))
        fresh = hole[..., None]
        out = skin_lid * (1 - fresh) + np.clip(ball, 0, 1) * fresh
        lash = np.exp(-(((y - top) / (0.0055 + 0.003 * person.feminine)) ** 2)) * (np.abs(x) < size * 1.03)
        rim = np.exp(-(((y - bottom) / 0.004) ** 2)) * (np.abs(x) < size)
        out = out * (1 - 0.88 * lash - 0.28 * rim * (1 - lash))[..., None]
        if person.glasses:
            frames = self.portrait.frames[region]
            out = out * (1 - 0.9 * frames) + 0.08 * 0.9 * frames
            out = np.clip(out + 0.05, 0, 1) if person.seed % 3 == 0 else out
        image[..., :3] = np.clip(out * 255 + 0.5, 0, 255).astype(np.uint8)
        return region, image

    def paste(self, image: np.ndarray, pose: Pose) -> None:
        """Draw the canvas into an image, in place; parts outside are cut off.

        Args:
            image: H x W x 3, uint8, BGR.
            pose: Pose of the head.
        """
        scale = pose.height / self.detail
        cos, sin = np.cos(pose.roll) * scale, np.sin(pose.roll) * scale
        cx, cy = self.portrait.pixel(0.0, 0.5)
        matrix = np.array([[cos, -sin, pose.x - cos * cx + sin * cy], [sin, cos, pose.y - sin * cx - cos * cy]])
        corners = matrix[:, :2] @ self.corners + matrix[:, 2:]
        x1, y1 = np.maximum(np.floor(corners.min(1)).astype(int), 0)
        x2, y2 = np.minimum(np.ceil(corners.max(1)).astype(int) + 1, image.shape[1::-1])
        if x2 <= x1 or y2 <= y1:
            return
        matrix[:, 2] -= x1, y1
        size = int(x2 - x1), int(y2 - y1)
        inverse = cv2.invertAffineTransform(matrix)
        columns = inverse[0, 0] * np.arange(size[0]) + inverse[0, 2]
        rows = inverse[1, 0] * np.arange(size[0]) + inverse[1, 2]
        down = np.arange(size[1])[:, None]
        map_x = (columns[None] + inverse[0, 1] * down).astype(np.float32)
        map_y = (rows[None] + inverse[1, 1] * down).astype(np.float32)
        if pose.yaw or pose.pitch:
            relief = cv2.warpAffine(
                self.portrait.relief, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            map_x -= relief * np.float32(np.sin(pose.yaw) * self.detail)
            map_y -= relief * np.float32(np.sin(pose.pitch) * self.detail)
        source = self.canvas
        if scale < 0.6:  # no aliasing on small faces
            source = blur(source, 0.35 / scale)
        head = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        weight = cv2.extractChannel(head, 3).astype(np.float32) * np.float32(1 / 255)
        part = image[y1:y2, x1:x2]
        colour = cv2.cvtColor(head, cv2.COLOR_BGRA2BGR)
        part[:] = cv2.blendLinear(colour, np.ascontiguousarray(part), weight, 1 - weight)

    def box(self, pose: Pose, articulation: Articulation = SHUT) -> np.ndarray:
        """Return the face box as a detector would place it: x1, y1, x2, y2, float32, not clipped."""
        half = BOX_SHARE * self.person.half_width * pose.height
        top, bottom = -0.5 * pose.height, (0.5 + 0.5 * JAW_DROP * float(articulation.jaw)) * pose.height
        shift = 0.22 * pose.height
        x, y = pose.x + shift * np.sin(pose.yaw), pose.y + shift * np.sin(pose.pitch)
        lean = 0.1 * abs(np.sin(pose.roll)) * pose.height
        return np.float32([x - half - lean, y + top, x + half + lean, y + bottom])
