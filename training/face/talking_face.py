"""Talking faces of our own: rendered people whose lips move with a synthetic voice, in step by construction.

They give unlimited ground truth to trainers and tests: the offset is 0, the boxes are known, the silent one is silent.
Frame k shows the articulation of the middle of its time, ahead of the sound by a third of a frame as people's lips are,
and the voice is made from the same curves (see voice.py). Boxes follow face detectors such as YuNet: from the
upper forehead to the chin, cheek to cheek.
Everything is deterministic by seed and needs no network.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE
from syncnet.defaults import CROP_SCALE
from syncnet.faces.crops import CROP_SIZE, SMOOTHING, crop_face, smooth
from syncnet.faces.tracks import Track
from training.face.backdrop import background, body
from training.face.head import SHUT, Head, Pose
from training.face.person import Person
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
    "render_picture",
    "render_scene",
    "speak",
]

BLINK = (0.35, 0.9, 1.0, 0.75, 0.4, 0.1)  # how far the lids are down in the frames of a blink
FACE_HEIGHTS = 0.62, 1.5  # of a face before cropping, relative to its height in the crop
GRAIN = 0.5, 4.0  # standard deviation in grey levels
SWAY = 0.035  # how far a head moves about, in face heights


class Clip(NamedTuple):
    """frames: (N, H, W, 3) uint8 BGR; boxes: (N, 4) float32 x1 y1 x2 y2, (N, people, 4) of a scene; audio: (samples,)
    int16 at 16 kHz, 640 samples to a frame; articulation: (N, 4) float32 of whoever talks, zeros where nobody does."""

    frames: np.ndarray
    boxes: np.ndarray
    audio: np.ndarray
    articulation: np.ndarray


@dataclass(frozen=True)
class Behaviour:
    """What a head does apart from talking, an entry a frame: lids 0 (open) .. 1 (shut), gaze (N, 2) in -1 .. 1, smile
    (N,) added to the mouth's width, poses."""

    lids: np.ndarray
    gaze: np.ndarray
    smile: np.ndarray
    poses: list

    @classmethod
    def random(cls, frames, pose, rng, *, liveliness=1.0):
        """frames of behaviour around a pose."""
        time = np.arange(frames) / FRAME_RATE
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
        return cls(lids, gaze, smile, [Pose(*map(float, row)) for row in zip(*moves)])


def wander(time, rng, rate):
    """A smooth random curve of about unit size and about rate Hz: the shape of time, in seconds."""
    curve = np.zeros_like(time)
    for weight in (0.6, 0.45, 0.3):
        curve += weight * np.sin(2 * np.pi * (rate * rng.uniform(0.4, 1.8) * time + rng.uniform(0, 1)))
    return curve


def render_face(person, articulation=SHUT, pose=None, size=CROP_SIZE, *, seed=0):
    """One picture of a person: ((size, size, 3) uint8 BGR, box (4,) float32)."""
    pose = pose or Pose(size / 2, size * 0.46, size / (1 + 2 * CROP_SCALE) * 1.28)
    picture = background(size, size, np.random.default_rng([seed, 3]))
    body(picture, person, pose)
    head = Head(person, pose.height)
    head.draw(articulation)
    head.paste(picture, pose)
    return picture, head.box(pose, articulation)


def render_clip(seed, seconds, size=CROP_SIZE, *, silent=False, person=None, voice=None, speech=None):
    """A face crop as run_pipeline cuts them, (size, size), of somebody talking: Clip.

    silent: a listener, whose mouth stays shut; the audio is then somebody else's voice all the same (zero out what you
    do not need). person, voice, speech: use these instead of the seed's. The same arguments give the same clip.
    """
    rng = np.random.default_rng([seed, 1])
    person = person or Person.random(seed)
    if speech is None:
        speech = speak(seconds, seed=seed, voice=voice or Voice.random(rng, feminine=person.feminine))
    articulation = np.zeros_like(speech.articulation) if silent else speech.articulation
    height = CROP_SIZE / (1 + CROP_SCALE) * rng.uniform(*FACE_HEIGHTS)
    side = round(height * 2.1)
    pose = Pose(side * 0.5, side * 0.46, height, rng.normal(0, 0.04), rng.normal(0, 0.15), rng.normal(0, 0.08))
    stage = _Stage(background(side, side, rng), [person], [pose], len(articulation), rng)
    frames = np.empty((len(articulation), size, size, 3), np.uint8)
    boxes = np.stack(
        [stage.heads[0].box(at, Articulation(*mouth)) for at, mouth in zip(stage.behaviours[0].poses, articulation)]
    )
    shaky = boxes + rng.normal(0, 0.006 * height, boxes.shape)  # as a detector's boxes are
    if len(shaky) < SMOOTHING:  # the filter would take the zeros beyond the ends for faces
        shaky = np.tile(np.median(shaky, axis=0), (SMOOTHING, 1))
    path = smooth(Track(frame=np.arange(len(shaky)), bbox=shaky, found=len(shaky)))
    for index in range(len(frames)):
        half, x, y = path.s[index], path.x[index], path.y[index]
        picture = stage.frame(index, [articulation[index]])
        crop = crop_face(picture, s=half, x=x, y=y, crop_scale=CROP_SCALE)
        frames[index] = crop if size == CROP_SIZE else cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        boxes[index] = _inside_crop(boxes[index], half, x, y) * (size / CROP_SIZE)
    return Clip(frames, boxes.astype(np.float32), speech.audio, articulation)


def render_scene(
    seed,
    seconds,
    *,
    width=640,
    height=360,
    people=2,
    talking=0,
    face_height=None,
    persons=None,
    voice=None,
    speech=None,
    grain=None,
):
    """A wide shot of people side by side: Clip with boxes (N, people, 4), left to right.

    talking: index of the one who talks, None for nobody (the audio is then silence). face_height: pixels, None for
    anything that fits. grain: standard deviation of the film grain in grey levels. persons, voice, speech, grain: used
    instead of the seed's.
    """
    rng = np.random.default_rng([seed, 2])
    persons = list(persons or (Person.random(1000 * seed + index) for index in range(people)))
    if talking is not None and not 0 <= talking < len(persons):
        raise ValueError(f"nobody has index {talking}: talking is 0 .. {len(persons) - 1} or None")
    if speech is None:
        speech = speak(seconds, seed=seed, voice=voice or Voice.random(rng, feminine=persons[talking or 0].feminine))
    if talking is None:
        speech = Speech(np.zeros_like(speech.audio), np.zeros_like(speech.articulation))
    poses = _seat(persons, width, height, face_height, rng)
    stage = _Stage(background(width, height, rng), persons, poses, len(speech.articulation), rng, grain=grain)
    frames = np.empty((len(speech.articulation), height, width, 3), np.uint8)
    boxes = np.empty((len(frames), len(persons), 4), np.float32)
    shut = np.zeros(len(SHUT))
    for index, mouth in enumerate(speech.articulation):
        mouths = [mouth if talking == who else shut for who in range(len(persons))]
        frames[index] = stage.frame(index, mouths)
        boxes[index] = [
            head.box(moves.poses[index], Articulation(*lips))
            for head, moves, lips in zip(stage.heads, stage.behaviours, mouths)
        ]
    return Clip(frames, boxes, speech.audio, speech.articulation)


def render_picture(seed, *, width=640, height=360, people=1, face_height=None):
    """A still for training detectors: ((height, width, 3) uint8 BGR, boxes (people, 4) float32); people may be 0."""
    rng = np.random.default_rng([seed, 4])
    room = background(width, height, rng)
    if not people:
        return _grain(room, rng, rng.uniform(*GRAIN))(room), np.zeros((0, 4), np.float32)
    persons = [Person.random(1000 * seed + 500 + index) for index in range(people)]
    poses = [
        pose._replace(roll=rng.normal(0, 0.12), yaw=rng.normal(0, 0.25), pitch=rng.normal(0, 0.12))
        for pose in _seat(persons, width, height, face_height, rng)
    ]
    stage = _Stage(room, persons, poses, 1, rng)
    mouths = [(rng.uniform(0, 1) * (rng.random() < 0.6), rng.uniform(-1, 1), 0.0, rng.uniform(0, 1)) for _ in persons]
    picture = stage.frame(0, mouths)
    return picture, np.stack(
        [
            head.box(moves.poses[0], Articulation(*lips))
            for head, moves, lips in zip(stage.heads, stage.behaviours, mouths)
        ]
    )


def _inside_crop(box, half, x, y):
    """A box of the picture in the pixels of its crop."""
    left, top = int(x - half * (1 + CROP_SCALE)), int(y - half)
    return (box - np.float32([left, top, left, top])) * (CROP_SIZE / (2 * half * (1 + CROP_SCALE)))


class _Stage:
    """Everything of a shot that stays the same, and the people who move in it."""

    def __init__(self, room, persons, poses, frames, rng, *, grain=None):
        self.plate = room.copy()
        for person, pose in zip(persons, poses):
            body(self.plate, person, pose)
        self.heads = [Head(person, pose.height) for person, pose in zip(persons, poses)]
        self.behaviours = [Behaviour.random(frames, pose, rng) for pose in poses]
        drawn = rng.uniform(*GRAIN)
        self.grain = _grain(room, rng, drawn if grain is None else grain)

    def frame(self, index, mouths):
        picture = self.plate.copy()
        for head, moves, mouth in zip(self.heads, self.behaviours, mouths):
            head.draw(Articulation(*mouth), lid=moves.lids[index], gaze=moves.gaze[index], smile=moves.smile[index])
            head.paste(picture, moves.poses[index])
        return self.grain(picture)


def _grain(picture, rng, sigma):
    """A function that adds film grain to pictures of this size."""
    height, width = picture.shape[:2]
    bank = np.round(rng.normal(0, sigma, (height + 32, width + 32, 3))).astype(np.int16)

    def add(frame):
        y, x = rng.integers(0, 33, 2)
        return cv2.add(frame, np.ascontiguousarray(bank[y : y + height, x : x + width]), dtype=cv2.CV_8U)

    return add


def _seat(persons, width, height, face_height, rng):
    """Poses for people side by side, faces not overlapping."""
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
