"""Rendered talking faces: people whose lips move with a synthetic voice, in sync by construction.

They give trainers and tests unlimited ground truth: the offset is 0, the boxes are known, and listeners are silent.
Frame k shows the articulation of the middle of its time, ahead of the audio by a third of a frame like people's lips,
and the voice is made from the same curves (see voice.py). Boxes follow face detectors such as YuNet: from the upper
forehead to the chin, cheek to cheek. Everything is deterministic by seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE
from syncnet.defaults import CROP_SCALE
from syncnet.faces.crops import CROP_SIZE, SMOOTHING, crop_face, smooth
from syncnet.faces.tracks import Track
from training.face.backdrop import background, body
from training.face.head import SHUT, Head
from training.face.person import Person
from training.face.pose import Pose
from training.face.voice import Articulation, Speech, Voice, speak

__all__ = [
    "SHUT",
    "Articulation",
    "Clip",
    "Head",
    "Person",
    "Pose",
    "Speech",
    "Voice",
    "render_clip",
    "render_face",
    "render_image",
    "render_scene",
    "speak",
]

BLINK = (0.35, 0.9, 1.0, 0.75, 0.4, 0.1)  # position of the lids in the frames of a blink, 0 (open) to 1 (shut)
FACE_HEIGHTS = 0.62, 1.5  # limits of a face's height before cropping, relative to its height in the crop
GRAIN = 0.5, 4.0  # limits of its standard deviation, in grey levels
ROUNDING = 1e-6  # of times in frames
SWAY = 0.035  # amplitude of head movements, in face heights


class Clip(NamedTuple):
    """A rendered video.

    Attributes:
        frames: N x H x W x 3, uint8, BGR.
        boxes: x1, y1, x2, y2 in pixels, float32: N x 4, or N x people x 4 for a scene.
        audio: int16 samples at 16 kHz, 640 per frame.
        articulation: N x 4, float32, of the person who talks; zeros while nobody talks.
    """

    frames: np.ndarray
    boxes: np.ndarray
    audio: np.ndarray
    articulation: np.ndarray


@dataclass(frozen=True)
class Behaviour:
    """Movements of a head apart from talking.

    Attributes:
        lids: N, 0 (open) to 1 (shut).
        gaze: N x 2, -1 to 1.
        smile: N, added to the mouth's width.
        poses: N poses.
    """

    lids: np.ndarray
    gaze: np.ndarray
    smile: np.ndarray
    poses: list[Pose]

    @classmethod
    def random(cls, time: np.ndarray, pose: Pose, rng: np.random.Generator, *, liveliness: float = 1.0) -> Behaviour:
        """Draw the movements around a pose, in frames at the given times in seconds, in ascending order."""
        step = np.floor(time * FRAME_RATE + ROUNDING).astype(int)  # lids and gaze move at FRAME_RATE
        frames = int(step[-1]) + 1
        lids, gaze = np.zeros(frames), np.zeros((frames, 2))
        at = int(rng.integers(5, 60))
        while at < frames:
            span = min(len(BLINK), frames - at)
            lids[at : at + span] = BLINK[:span]
            at += int(rng.integers(30, 130))
        at = 0
        while at < frames:
            gaze[at:] = rng.normal(0, 0.35, 2).clip(-1, 1)
            at += int(rng.integers(15, 70))
        smile = 0.18 * wander(time, rng, 0.25) + rng.uniform(-0.05, 0.15)
        lively = liveliness * rng.uniform(0.4, 1.3)
        sway = SWAY * pose.height * lively
        moves = (
            pose.x + sway * wander(time, rng, 0.3),
            pose.y + 0.6 * sway * wander(time, rng, 0.35),
            pose.height * (1 + 0.015 * lively * wander(time, rng, 0.15)),
            pose.roll + 0.05 * lively * wander(time, rng, 0.25),
            pose.yaw + 0.16 * lively * wander(time, rng, 0.3),
            pose.pitch + 0.10 * lively * wander(time, rng, 0.5),
        )
        return cls(lids[step], gaze[step], smile, [Pose(*map(float, row)) for row in zip(*moves)])


def frame_times(count: int) -> np.ndarray:
    """Return the times of frames at ``FRAME_RATE``, in seconds."""
    return np.arange(count) / FRAME_RATE


def wander(time: np.ndarray, rng: np.random.Generator, rate: float) -> np.ndarray:
    """Return a smooth random curve of about unit size and ``rate`` Hz at the given times in seconds."""
    curve = np.zeros_like(time)
    for weight in (0.6, 0.45, 0.3):
        curve += weight * np.sin(2 * np.pi * (rate * rng.uniform(0.4, 1.8) * time + rng.uniform(0, 1)))
    return curve


def render_face(
    person: Person, articulation: Articulation = SHUT, pose: Pose | None = None, size: int = CROP_SIZE, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Render one image of a person.

    Args:
        person: The person.
        articulation: Position of the mouth.
        pose: Pose of the head; None for the middle.
        size: Side of the image in pixels.
        seed: Seed of the background.

    Returns:
        The image (size x size x 3, uint8, BGR) and the face box (4, float32).
    """
    pose = pose or Pose(size / 2, size * 0.46, size / (1 + 2 * CROP_SCALE) * 1.28)
    image = background(size, size, np.random.default_rng([seed, 3]))
    body(image, person, pose)
    head = Head(person, pose.height)
    head.draw(articulation)
    head.paste(image, pose)
    return image, head.box(pose, articulation)


def render_clip(
    seed: int,
    seconds: float,
    size: int = CROP_SIZE,
    *,
    silent: bool = False,
    person: Person | None = None,
    voice: Voice | None = None,
    speech: Speech | None = None,
) -> Clip:
    """Render a face crop, as run_pipeline cuts them, of a person who talks.

    The same arguments give the same clip.

    Args:
        seed: Seed.
        seconds: Length.
        size: Side of the crop in pixels.
        silent: Render a listener, whose mouth stays shut. The audio is a voice all the same; zero it if unwanted.
        person: Used instead of the seed's.
        voice: Used instead of the seed's.
        speech: Used instead of the seed's.
    """
    rng = np.random.default_rng([seed, 1])
    person = person or Person.random(seed)
    if speech is None:
        speech = speak(seconds, seed=seed, voice=voice or Voice.random(rng, feminine=person.feminine))
    articulation = np.zeros_like(speech.articulation) if silent else speech.articulation
    height = CROP_SIZE / (1 + CROP_SCALE) * rng.uniform(*FACE_HEIGHTS)
    side = round(height * 2.1)
    pose = Pose(side * 0.5, side * 0.46, height, rng.normal(0, 0.04), rng.normal(0, 0.15), rng.normal(0, 0.08))
    stage = _Stage(background(side, side, rng), [person], [pose], frame_times(len(articulation)), rng)
    frames = np.empty((len(articulation), size, size, 3), np.uint8)
    boxes = np.stack(
        [stage.heads[0].box(at, Articulation(*mouth)) for at, mouth in zip(stage.behaviours[0].poses, articulation)]
    )
    shaky = boxes + rng.normal(0, 0.006 * height, boxes.shape)  # jitter like a detector's
    if len(shaky) < SMOOTHING:  # otherwise the filter mixes in the zeros beyond the ends
        shaky = np.tile(np.median(shaky, axis=0), (SMOOTHING, 1))
    path = smooth(Track(frame=np.arange(len(shaky)), bbox=shaky, found=len(shaky)))
    for index in range(len(frames)):
        half, x, y = path.s[index], path.x[index], path.y[index]
        image = stage.frame(index, [articulation[index]])
        crop = crop_face(image, s=half, x=x, y=y, crop_scale=CROP_SCALE)
        frames[index] = crop if size == CROP_SIZE else cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        boxes[index] = _inside_crop(boxes[index], half, x, y) * (size / CROP_SIZE)
    return Clip(frames, boxes.astype(np.float32), speech.audio, articulation)


def render_scene(
    seed: int,
    seconds: float,
    *,
    width: int = 640,
    height: int = 360,
    people: int = 2,
    talking: int | None = 0,
    face_height: int | None = None,
    persons: Sequence[Person] | None = None,
    voice: Voice | None = None,
    speech: Speech | None = None,
    grain: float | None = None,
    times: np.ndarray | None = None,
    mouths: np.ndarray | None = None,
) -> Clip:
    """Render a wide shot of people side by side.

    Args:
        seed: Seed.
        seconds: Length.
        width: Width in pixels.
        height: Height in pixels.
        people: Number of people, if ``persons`` is not given.
        talking: Index of the person who talks; None for nobody (the audio is then silence).
        face_height: In pixels; None for any that fits.
        persons: Used instead of the seed's.
        voice: Used instead of the seed's.
        speech: Used instead of the seed's.
        grain: Standard deviation of the film grain in grey levels, used instead of the seed's.
        times: Time of every position in ``speech``, in seconds, if its frame rate is not ``FRAME_RATE``; ascending.
        mouths: N x people x 4, everybody's articulation, used instead of ``talking`` and that of ``speech``.

    Returns:
        The clip; its boxes are N x people x 4, from left to right.

    Raises:
        ValueError: ``talking`` is out of range.
    """
    rng = np.random.default_rng([seed, 2])
    persons = list(persons or (Person.random(1000 * seed + index) for index in range(people)))
    if talking is not None and not 0 <= talking < len(persons):
        raise ValueError(f"talking={talking}: no such person; give 0 .. {len(persons) - 1}, or None for silence")
    if speech is None:
        speech = speak(seconds, seed=seed, voice=voice or Voice.random(rng, feminine=persons[talking or 0].feminine))
    if talking is None:
        speech = Speech(np.zeros_like(speech.audio), np.zeros_like(speech.articulation))
    poses = _seat(persons, width, height, face_height, rng)
    times = frame_times(len(speech.articulation)) if times is None else times
    stage = _Stage(background(width, height, rng), persons, poses, times, rng, grain=grain)
    frames = np.empty((len(speech.articulation), height, width, 3), np.uint8)
    boxes = np.empty((len(frames), len(persons), 4), np.float32)
    shut = np.zeros(len(SHUT))
    for index, mouth in enumerate(speech.articulation):
        moving = [mouth if talking == who else shut for who in range(len(persons))] if mouths is None else mouths[index]
        frames[index] = stage.frame(index, moving)
        boxes[index] = [
            head.box(moves.poses[index], Articulation(*lips))
            for head, moves, lips in zip(stage.heads, stage.behaviours, moving)
        ]
    return Clip(frames, boxes, speech.audio, speech.articulation)


def render_image(
    seed: int, *, width: int = 640, height: int = 360, people: int = 1, face_height: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render a still image for training detectors.

    Args:
        seed: Seed.
        width: Width in pixels.
        height: Height in pixels.
        people: Number of people; may be 0.
        face_height: In pixels; None for any that fits.

    Returns:
        The image (height x width x 3, uint8, BGR) and the boxes (people x 4, float32).
    """
    rng = np.random.default_rng([seed, 4])
    room = background(width, height, rng)
    if not people:
        return _grain(room, rng, rng.uniform(*GRAIN))(room), np.zeros((0, 4), np.float32)
    persons = [Person.random(1000 * seed + 500 + index) for index in range(people)]
    poses = [
        pose._replace(roll=rng.normal(0, 0.12), yaw=rng.normal(0, 0.25), pitch=rng.normal(0, 0.12))
        for pose in _seat(persons, width, height, face_height, rng)
    ]
    stage = _Stage(room, persons, poses, frame_times(1), rng)
    mouths = [(rng.uniform(0, 1) * (rng.random() < 0.6), rng.uniform(-1, 1), 0.0, rng.uniform(0, 1)) for _ in persons]
    image = stage.frame(0, mouths)
    return image, np.stack(
        [
            head.box(moves.poses[0], Articulation(*lips))
            for head, moves, lips in zip(stage.heads, stage.behaviours, mouths)
        ]
    )


def _inside_crop(box, half, x, y):
    """Convert a box from pixels of the image to pixels of its crop."""
    left, top = int(x - half * (1 + CROP_SCALE)), int(y - half)
    return (box - np.float32([left, top, left, top])) * (CROP_SIZE / (2 * half * (1 + CROP_SCALE)))


class _Stage:
    """The static parts of a shot, and the people who move in it."""

    def __init__(self, room, persons, poses, times, rng, *, grain=None):
        self.plate = room.copy()
        for person, pose in zip(persons, poses):
            body(self.plate, person, pose)
        self.heads = [Head(person, pose.height) for person, pose in zip(persons, poses)]
        self.behaviours = [Behaviour.random(times, pose, rng) for pose in poses]
        drawn = rng.uniform(*GRAIN)
        self.grain = _grain(room, rng, drawn if grain is None else grain)

    def frame(self, index, mouths):
        image = self.plate.copy()
        for head, moves, mouth in zip(self.heads, self.behaviours, mouths):
            head.draw(Articulation(*mouth), lid=moves.lids[index], gaze=moves.gaze[index], smile=moves.smile[index])
            head.paste(image, moves.poses[index])
        return self.grain(image)


def _grain(image, rng, sigma):
    """Return a function that adds film grain to images of this size."""
    height, width = image.shape[:2]
    bank = np.round(rng.normal(0, sigma, (height + 32, width + 32, 3))).astype(np.int16)

    def add(frame):
        y, x = rng.integers(0, 33, 2)
        return cv2.add(frame, np.ascontiguousarray(bank[y : y + height, x : x + width]), dtype=cv2.CV_8U)

    return add


def _seat(persons, width, height, face_height, rng):
    """Return poses for people side by side, without overlapping faces."""
    poses = []
    share = width / len(persons)
    for index in range(len(persons)):
        most = min(share / 1.15, height / 1.55)
        tall = face_height or rng.uniform(min(0.4 * most, 40), most)
        spare = max(0.0, share - 0.9 * tall) / 2
        x = share * (index + 0.5) + rng.uniform(-0.7, 0.7) * spare
        room = max(0.0, height - 1.45 * tall)
        y = 0.80 * tall + rng.uniform(0.1, 0.8) * room
        poses.append(Pose(x, y, float(tall), rng.normal(0, 0.04), rng.normal(0, 0.12), rng.normal(0, 0.06)))
    return poses
