"""Images to train and test the face detector on: frames with boxes, crops, distortions and synthetic images.

A folder of frames holds ``frames/*.jpg``, ``boxes.jsonl`` (one line per frame: ``file``, and ``boxes`` as lists of x1,
y1, x2, y2, score in pixels of the frame) and ``index.tsv`` (one row per clip, with columns ``clip``, ``person`` and
``face_px``; a frame ``NAME-00012.jpg`` belongs to the clips ``NAME-*.mp4``).
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from training.common import TrainingError, held_out_persons, read_index
from training.face.talking_face import render_image

TRUSTED_SCORE = 0.78  # boxes with lower scores are ambiguous: some are hands or hair
SMALLEST_FACE = 12  # pixels of the network's input; smaller faces are ambiguous
VISIBLE_FACE, VISIBLE_AT_ALL = 0.6, 0.05  # visible shares of a box: a face above the first, ambiguous above the second
LARGEST_ZOOM = 2.0  # largest enlargement of a frame
LARGE_FACE_SHARE = 0.25  # of the crops: face sizes drawn uniformly; in the others, log-uniformly
FACE_SHARE = 0.95  # largest face to train on, as a share of the crop's side


@dataclass
class Frame:
    """An image with its faces.

    Attributes:
        image: H x W x 3, uint8, RGB.
        boxes: N x 4, x1, y1, x2, y2 in pixels.
        trusted: N booleans, True for certain faces.
        person: Frames with the same value may show the same person.
        scale: Pixels of the original video per pixel of the frame (NaN where unknown).
        name: File name.
        ignored: M x 4, further boxes where a face may or may not be.
    """

    image: np.ndarray
    boxes: np.ndarray
    trusted: np.ndarray
    person: str = ""
    scale: float = float("nan")
    name: str = ""
    ignored: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


def read_rgb(path: str | Path) -> np.ndarray:
    """Read an image, H x W x 3, uint8, RGB.

    Raises:
        TrainingError: The file cannot be read.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise TrainingError(f"{path}: not a readable image; delete it and its line in boxes.jsonl")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def load_frames(folder: str | Path) -> tuple[list[Frame], list[Frame]]:
    """Load a folder of frames (see the module).

    Returns:
        The training frames and the held-out frames, sorted by name; no person is in both.

    Raises:
        TrainingError: A file is missing or damaged.
    """
    folder = Path(folder)
    clips = read_index(folder)
    try:
        lines = (folder / "boxes.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise TrainingError(f"{folder}/boxes.jsonl: no such file; give the folder of face frames with --data") from None
    clips_of = defaultdict(list)
    for clip in clips:
        clips_of[clip["clip"].rsplit("-", 1)[0]].append(clip)
    try:
        rows = sorted(map(json.loads, lines), key=lambda row: row["file"])
        found = [(row["file"], np.array(row["boxes"], float).reshape(-1, 5)) for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{folder}/boxes.jsonl: damaged ({error!r}); write the file again") from error
    frames = []
    for name, boxes in found:
        video = name.rsplit("-", 1)[0]
        frames.append(
            Frame(
                image=read_rgb(folder / "frames" / name),
                boxes=boxes[:, :4],
                trusted=boxes[:, 4] >= TRUSTED_SCORE,
                person=clips_of[video][0]["person"] if clips_of[video] else video,
                name=name,
            )
        )
    set_scales(frames, clips_of)
    held_out = held_out_persons(clips)
    return [f for f in frames if f.person not in held_out], [f for f in frames if f.person in held_out]


def rendered_frames(
    count: int, *, seed: int = 0, width: int = 640, height: int = 480, face_height: int | None = None
) -> list[Frame]:
    """Render frames with one to three people each, as from a video of their size.

    Args:
        count: Number of frames.
        seed: Seed of the first frame; the others follow.
        width: Width in pixels.
        height: Height in pixels.
        face_height: In pixels; None for any that fits.
    """
    frames = []
    for index in range(count):
        image, boxes = render_image(
            seed + index, width=width, height=height, people=1 + index % 3, face_height=face_height
        )
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        frames.append(
            Frame(image, boxes.astype(np.float64), np.ones(len(boxes), bool), f"rendered-{seed + index}", scale=1.0)
        )
    return frames


def set_scales(frames: Sequence[Frame], clips_of: dict[str, list[dict[str, str]]]) -> None:
    """Set the scale of the frames, estimated per video from its largest face in the video and in the frames.

    Args:
        frames: Frames, changed in place.
        clips_of: Rows of the index by video name.
    """
    sizes = defaultdict(list)
    for frame in frames:
        if len(frame.boxes):
            sizes[frame.name.rsplit("-", 1)[0]].append((frame.boxes[:, 2:] - frame.boxes[:, :2]).max())
    for frame in frames:
        video = frame.name.rsplit("-", 1)[0]
        if video in sizes and clips_of[video]:
            frame.scale = max(float(clip["face_px"]) for clip in clips_of[video]) / float(np.median(sizes[video]))


def random_matrix(rng: np.random.Generator, frame: Frame, side: int) -> tuple[np.ndarray, float]:
    """Draw a 2 x 3 matrix that puts one face of the frame into a square of ``side`` pixels; return it and its scale."""
    x1, y1, x2, y2 = frame.boxes[rng.integers(len(frame.boxes))]
    size = max(x2 - x1, y2 - y1)
    largest = max(SMALLEST_FACE + 4, min(FACE_SHARE * side, LARGEST_ZOOM * size))
    target = np.exp(rng.uniform(np.log(SMALLEST_FACE + 2), np.log(largest)))
    if rng.random() < LARGE_FACE_SHARE:
        target = rng.uniform(SMALLEST_FACE + 2, largest)
    zoom = target / size
    angle = rng.normal(0, 8) if rng.random() < 0.5 else 0.0
    stretch = np.exp(rng.normal(0, 0.05, 2)) if rng.random() < 0.3 else np.ones(2)
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    linear = turn @ np.diag(zoom * stretch * [rng.choice([-1, 1]), 1])
    margin = target * 0.4  # lets the border cut off some faces
    centre = rng.uniform(margin, side - margin, 2)
    return np.column_stack([linear, centre - linear @ [(x1 + x2) / 2, (y1 + y2) / 2]]), zoom


def warp(
    rng: np.random.Generator,
    image: np.ndarray,
    matrix: np.ndarray,
    zoom: float,
    side: int,
    background: np.ndarray | None = None,
) -> np.ndarray:
    """Crop a square from an image with an affine matrix, resampled coarsely or finely as videos are.

    Args:
        rng: Generator.
        image: H x W x 3, uint8.
        matrix: 2 x 3, from pixels of the image to pixels of the square.
        zoom: Scale of the matrix.
        side: Side of the square.
        background: Shown outside the image (side x side x 3, changed in place); None for a plain colour or a smear.
    """
    if zoom < 0.5 and rng.random() < 0.6:
        factor = min(1.0, 2 * zoom)
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([matrix[:, :2] / factor, matrix[:, 2]])
    border = cv2.BORDER_REPLICATE if rng.random() < 0.3 else cv2.BORDER_CONSTANT
    value = [float(v) for v in (rng.integers(0, 256, 3) if rng.random() < 0.3 else [rng.choice([0, 0, 110])] * 3)]
    square = (side, side)
    if background is not None:
        return cv2.warpAffine(
            image, matrix, square, dst=background, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
        )
    return cv2.warpAffine(image, matrix, square, flags=cv2.INTER_LINEAR, borderMode=border, borderValue=value)


def move_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Transform N x 4 boxes with an affine matrix: centres are moved, sides scaled but not rotated."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    sizes = (boxes[:, 2:] - boxes[:, :2]) * np.linalg.norm(matrix[:, :2], axis=0)
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)


def face_crop(
    rng: np.random.Generator, frame: Frame, side: int, background: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a crop of a frame that shows at least one of its boxes.

    Args:
        rng: Generator.
        frame: The frame.
        side: Side of the crop in pixels.
        background: See ``warp``.

    Returns:
        The crop (side x side x 3, uint8), its faces (N x 4) and its ambiguous boxes (M x 4).
    """
    matrix, zoom = random_matrix(rng, frame, side)
    image = warp(rng, frame.image, matrix, zoom, side, background)
    boxes = move_boxes(frame.boxes, matrix)
    inside = np.clip(boxes, 0, side)
    visible = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    faces = frame.trusted & (visible > VISIBLE_FACE) & (sizes >= SMALLEST_FACE)
    ambiguous = ~faces & (visible > VISIBLE_AT_ALL)
    extra = np.clip(move_boxes(frame.ignored, matrix), 0, side)
    return image, inside[faces], np.concatenate([inside[ambiguous], extra])


def faceless_crop(rng: np.random.Generator, frame: Frame, side: int) -> np.ndarray:
    """Draw a crop (side x side x 3, uint8) of a frame with its faces covered by something else."""
    height, width = frame.image.shape[:2]
    zoom = np.exp(rng.uniform(np.log(0.3), np.log(1.5)))
    centre = rng.uniform(0, [width, height])
    matrix = np.array([[zoom, 0, side / 2 - zoom * centre[0]], [0, zoom, side / 2 - zoom * centre[1]]])
    image = frame.image.copy()
    for x1, y1, x2, y2 in np.concatenate([frame.boxes, frame.ignored]):
        grow = 0.15 * max(x2 - x1, y2 - y1)
        left, top = int(max(0, x1 - grow)), int(max(0, y1 - grow))
        right, bottom = int(min(width, x2 + grow)), int(min(height, y2 + grow))
        if right > left and bottom > top:
            cover = synthetic_image(rng, 64)
            if rng.random() < 0.5:  # cover with the colours of the room instead
                cover = cv2.resize(frame.image, (3, 3), interpolation=cv2.INTER_AREA)
            image[top:bottom, left:right] = cv2.resize(cover, (right - left, bottom - top))
    return warp(rng, image, matrix, zoom, side)


def synthetic_image(rng: np.random.Generator, side: int) -> np.ndarray:
    """Draw an image without a face: gradients, noise, stripes, shapes, letters (side x side x 3, uint8)."""
    corners = rng.integers(0, 256, (rng.integers(1, 4), rng.integers(1, 4), 3)).astype(np.uint8)
    image = cv2.resize(corners, (side, side), interpolation=cv2.INTER_LINEAR)
    kind = rng.integers(5)
    if kind == 0:
        cells = int(rng.integers(2, side // 2))
        noise = rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)
        method = [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC][rng.integers(3)]
        image = cv2.addWeighted(image, 0.5, cv2.resize(noise, (side, side), interpolation=method), 0.5, 0)
    elif kind == 1:
        period, phase = rng.uniform(3, side / 2), rng.uniform(0, 2 * np.pi, 2)
        direction = rng.uniform(0, np.pi)
        y, x = np.mgrid[:side, :side] * 2 * np.pi / period
        wave = np.sin(x * np.cos(direction) + y * np.sin(direction) + phase[0])
        wave = wave * np.sin(y * np.cos(direction) + phase[1]) if rng.random() < 0.5 else wave
        wave = np.sign(wave) if rng.random() < 0.5 else wave
        image = np.clip(image + wave[..., None] * rng.uniform(-120, 120, 3), 0, 255).astype(np.uint8)
    else:
        for _ in range(rng.integers(1, 16)):
            colour = [int(c) for c in rng.integers(0, 256, 3)]
            centre = tuple(int(c) for c in rng.integers(0, side, 2))
            axes = tuple(int(a) for a in rng.integers(1, max(2, side // 3), 2))
            filled = -1 if rng.random() < 0.6 else int(rng.integers(1, 6))
            shape = rng.integers(4)
            if shape == 0:
                cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, filled, cv2.LINE_AA)
            elif shape == 1:
                cv2.rectangle(image, centre, (centre[0] + axes[0], centre[1] + axes[1]), colour, filled)
            elif shape == 2:
                end = tuple(int(c) for c in rng.integers(0, side, 2))
                cv2.line(image, centre, end, colour, abs(filled), cv2.LINE_AA)
            else:
                text = "".join(chr(c) for c in rng.integers(33, 127, 6))
                cv2.putText(image, text, centre, int(rng.integers(8)), rng.uniform(0.3, 3), colour, abs(filled))
    return image


def distort(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change light, colour, sharpness, noise and compression at random (H x W x 3, uint8)."""
    pixels = image.astype(np.float32)
    if rng.random() < 0.8:
        pixels = (pixels - 128) * np.exp(rng.normal(0, 0.25)) + 128 + rng.normal(0, 25)
    if rng.random() < 0.5:
        pixels *= np.exp(rng.normal(0, 0.12, 3))
    if rng.random() < 0.3:
        pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** np.exp(rng.normal(0, 0.35))
    chance = rng.random()
    grey = pixels.mean(axis=2, keepdims=True)
    if chance < 0.1:
        pixels = np.repeat(grey, 3, axis=2)
    elif chance < 0.4:
        pixels = grey + (pixels - grey) * rng.uniform(0.3, 1.7)
    chance = rng.random()
    if chance < 0.2:
        pixels = cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.4, 1.6))
    elif chance < 0.3:
        small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    elif chance < 0.4:
        pixels = pixels + 0.7 * (pixels - cv2.GaussianBlur(pixels, (0, 0), 1.5))
    if rng.random() < 0.25:
        pixels = pixels + rng.normal(0, rng.uniform(2, 14), image.shape).astype(np.float32)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 96))]
        image = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
    return image


def occlude(rng: np.random.Generator, image: np.ndarray, box: np.ndarray) -> None:
    """Cover up to about a quarter of a face with an ellipse of one colour, in place."""
    x1, y1, x2, y2 = box
    half = np.array([x2 - x1, y2 - y1]) * rng.uniform(0.08, 0.3, 2)
    centre = [rng.uniform(x1, x2), rng.uniform(y1, y2)]
    colour = [int(c) for c in rng.integers(0, 256, 3)]
    centre, half = tuple(int(c) for c in centre), tuple(int(h) for h in half)
    cv2.ellipse(image, centre, half, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
