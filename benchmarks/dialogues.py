"""Dialogues whose speaker is known in every frame: rendered ones, and real faces side by side.

Nobody in them was used for training the starter weights, apart from the real faces that are asked for as such.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.defaults import CROP_SCALE
from syncnet.faces.crops import CROP_SIZE, crop_face, smooth
from syncnet.faces.tracks import Track
from syncnet.media.frames import decode_frames
from training.face.make_sample import write_video
from training.face.person import Person
from training.face.talking_face import render_scene
from training.face.voice import Speech, Voice, speak
from training.syncnet.clips import read_audio

NOBODY, OFF_SCREEN = -1, -2
FIRST_SEED = 9000  # of persons and voices; smaller seeds were used for training
SECONDS = 9.0
HEIGHT, FACE_HEIGHTS = 360, (120, 200)  # pixels
WIDTH_PER_PERSON = 300
TURN_SECONDS = 0.8, 4.0
PHRASE_PAUSE = 0.1, 0.35  # seconds between the phrases of a turn
PAUSE_SECONDS = 0.6, 1.4
GAP_SECONDS = 0.0, 0.15
BRIDGED_SECONDS = 0.5  # a shorter silence is part of what is said around it
SHOT_SECONDS = 1.5, 4.0
AUDIBLE = 10 ** (-45 / 20)  # RMS of a frame, relative to full scale, of a voice that is heard
NOISE_DB = 15.0
LARGEST_LAG_MS = 200
FULL_SCALE = 32768

SIDE_SECONDS = 5.2
SIDE_KINDS = ("left right left", "silence", "off screen", "lag")
SIDE_LAG_MS = -120
LARGEST_SILENCE = 0.15  # share of a clip
CORRELATED = 0.5  # envelopes of two clips above this say the same sentence


@dataclass
class Face:
    """Face of one track.

    Attributes:
        first: its first frame.
        crops: N x 224 x 224 x 3, uint8, BGR.
        boxes: N x 4, x1, y1, x2, y2 in pixels of ``Dialogue.shots``.
    """

    first: int
    crops: np.ndarray
    boxes: np.ndarray


@dataclass
class Dialogue:
    """A video whose speakers are known.

    Attributes:
        name: what it is called.
        kinds: what it contains.
        faces: ``Face`` of every track.
        audio: int16 samples at 16 kHz.
        speaker: per frame the index of the face that speaks, ``NOBODY`` or ``OFF_SCREEN``.
        cuts: frames that begin a scene, without 0.
        lag_ms: milliseconds by which the sound is early.
        shots: per shot N x H x W x 3, uint8, BGR; shots can differ in size.
    """

    name: str
    kinds: tuple[str, ...]
    faces: list[Face]
    audio: np.ndarray
    speaker: np.ndarray
    cuts: list[int] = field(default_factory=list)
    lag_ms: float = 0.0
    shots: list[np.ndarray] = field(default_factory=list)


def rms(audio: np.ndarray) -> np.ndarray:
    """Return the RMS of every frame's sound, relative to full scale."""
    frames = audio[: len(audio) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    return np.sqrt(np.square(frames / FULL_SCALE).mean(axis=1))


def moved(audio: np.ndarray, lag_ms: float) -> np.ndarray:
    """Return sound that is early by some milliseconds, of the same length."""
    samples = round(lag_ms * SAMPLE_RATE / 1000)
    out = np.zeros_like(audio)
    if samples >= 0:
        out[: len(audio) - samples] = audio[samples:]
    else:
        out[-samples:] = audio[:samples]
    return out


def with_noise(audio: np.ndarray, rng: np.random.Generator, *, below_db: float) -> np.ndarray:
    """Add steady noise at a level below that of the speech."""
    loud = rms(audio)
    speech = np.sqrt(np.square(loud[loud > AUDIBLE]).mean())
    noise = rng.standard_normal(len(audio))
    noise = np.convolve(noise, np.ones(3) / np.sqrt(3), mode="same")  # like a fan: less at high frequencies
    noisy = audio + noise * speech * 10 ** (-below_db / 20) * FULL_SCALE
    return np.clip(noisy, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def chewing(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of a chewing mouth, frames x 4: the jaw moves, the lips are shut most of the time."""
    time = np.arange(frames) / FRAME_RATE
    cycle = 0.5 - 0.5 * np.cos(2 * np.pi * (rng.uniform(1.1, 1.9) * time + 0.2 * np.sin(time) + rng.uniform()))
    mouth = np.zeros((frames, 4), np.float32)
    mouth[:, 0] = rng.uniform(0.3, 0.6) * cycle
    mouth[:, 1] = 0.2 * np.sin(2 * np.pi * 0.7 * time)
    mouth[:, 2] = np.clip(1.3 - 1.2 * cycle, 0, 1)
    return mouth


@dataclass
class Script:
    """What is said in a rendered dialogue.

    Attributes:
        audio: int16 samples.
        speaker: per frame the index of the person who speaks, ``NOBODY`` or ``OFF_SCREEN``.
        mouths: frames x persons x 4.
    """

    audio: np.ndarray
    speaker: np.ndarray
    mouths: np.ndarray


def write_script(seed: int, voices: Sequence[Voice], tags: Sequence[str], rng: np.random.Generator) -> Script:
    """Let people talk in turns; with one person, he talks all the time, with pauses."""
    frames = round(SECONDS * FRAME_RATE)
    script = Script(
        np.zeros(frames * SAMPLES_PER_FRAME, np.int16),
        np.full(frames, NOBODY),
        np.zeros((frames, len(voices), 4), np.float32),
    )
    speakers = [*range(len(voices)), *([OFF_SCREEN] if "off screen" in tags else [])]
    stranger = Voice.random(rng)
    at, turn, last = int(rng.integers(0, 15)), 0, NOBODY
    while frames - at > TURN_SECONDS[0] * FRAME_RATE:
        others = [who for who in speakers if who != last] or speakers
        who = others[int(rng.integers(len(others)))] if turn > 1 or OFF_SCREEN not in others else others[0]
        seconds = min(rng.uniform(*TURN_SECONDS), (frames - at) / FRAME_RATE)
        voice = stranger if who == OFF_SCREEN else voices[who]
        said = speak(seconds, seed=1000 * seed + turn, voice=voice, pause=PHRASE_PAUSE)
        end = at + len(said.articulation)
        script.audio[at * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME] += (said.audio * rng.uniform(0.5, 1)).astype(
            np.int16
        )
        if who >= 0:
            script.mouths[at:end, who] = said.articulation
        heard = np.flatnonzero(rms(said.audio) > AUDIBLE)
        script.speaker[at + heard[0] : at + heard[-1] + 1] = who
        pause = PAUSE_SECONDS if len(speakers) == 1 or ("pauses" in tags and rng.random() < 0.6) else GAP_SECONDS
        at = end + round(rng.uniform(*pause) * FRAME_RATE)
        turn, last = turn + 1, who
    if "chewing" in tags and len(voices) > 1:
        chewer = int(rng.integers(len(voices)))
        shut = np.abs(script.mouths[:, chewer]).sum(axis=1) == 0
        script.mouths[shut, chewer] = chewing(frames, rng)[shut]
    room = rng.standard_normal(len(script.audio)) * 10 ** rng.uniform(-3.4, -2.8) * FULL_SCALE
    script.audio = np.clip(script.audio + room, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return script


def shots_of(
    frames: int, people: int, tags: Sequence[str], rng: np.random.Generator
) -> Iterator[tuple[range, list[int]]]:
    """Yield the shots: their frames, and who is in the picture."""
    everybody = list(range(people))
    if "cuts" not in tags or people < 2:
        yield range(frames), everybody
        return
    at, wide = 0, bool(rng.random() < 0.5)
    while at < frames:
        end = at + round(rng.uniform(*SHOT_SECONDS) * FRAME_RATE)
        if frames - end < SHOT_SECONDS[0] * FRAME_RATE:
            end = frames
        yield range(at, end), everybody if wide else [int(rng.integers(people))]
        at, wide = end, not wide


def crops_of(frames: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a face out of frames as the suite does, with a jitter of the boxes like a detector's."""
    shaky = boxes + rng.normal(0, 0.006 * np.ptp(boxes[0, 1::2]), boxes.shape)
    path = smooth(Track(frame=np.arange(len(boxes)), bbox=shaky, found=len(boxes)))
    return np.stack(
        [
            crop_face(image, s=s, x=x, y=y, crop_scale=CROP_SCALE)
            for image, s, x, y in zip(frames, path.s, path.x, path.y)
        ]
    )


def render(seed: int, *, people: int, tags: Sequence[str]) -> Dialogue:
    """Render a dialogue; the same arguments give the same."""
    rng = np.random.default_rng([seed, 21])
    persons = [Person.random(FIRST_SEED + 10 * seed + index) for index in range(people)]
    voices = [Voice.random(rng, feminine=person.feminine) for person in persons]
    script = write_script(FIRST_SEED + seed, voices, tags, rng)
    frames = len(script.speaker)
    lag = float(rng.uniform(-LARGEST_LAG_MS, LARGEST_LAG_MS)) if "lag" in tags else 0.0
    audio = moved(script.audio, lag)
    if "noise" in tags:
        audio = with_noise(audio, rng, below_db=NOISE_DB)
    faces: list[Face] = []
    shots = []
    speaker = np.where(script.speaker == NOBODY, NOBODY, OFF_SCREEN)
    cuts = []
    for shot, cast in shots_of(frames, people, tags, rng):
        inside = slice(shot.start, shot.stop)
        clip = render_scene(
            FIRST_SEED + 100 * seed + shot.start,
            len(shot) / FRAME_RATE,
            width=max(400, WIDTH_PER_PERSON * len(cast)) // 2 * 2,
            height=HEIGHT,
            persons=[persons[who] for who in cast],
            mouths=script.mouths[inside][:, cast],
            speech=Speech(np.zeros(len(shot) * SAMPLES_PER_FRAME, np.int16), script.mouths[inside, 0]),
            face_height=int(rng.integers(*FACE_HEIGHTS)),
        )
        for place, who in enumerate(cast):
            speaker[inside][script.speaker[inside] == who] = len(faces)
            faces.append(Face(shot.start, crops_of(clip.frames, clip.boxes[:, place], rng), clip.boxes[:, place]))
        shots.append(clip.frames)
        if shot.start:
            cuts.append(shot.start)
    kinds = (f"{people} people" if people > 1 else "alone", *tags)
    return Dialogue(f"rendered {seed}", kinds, faces, audio, speaker, cuts, lag, shots)


def rendered(count: int, *, first: int = 0) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield seed, number of people and tags of ``count`` dialogues."""
    for seed in range(first, first + count):
        rng = np.random.default_rng([seed, 22])
        people = (2, 3, 2, 4, 2, 1)[seed % 6]
        chances = {"pauses": 0.5, "chewing": 0.35, "off screen": 0.35, "cuts": 0.35, "lag": 0.75, "noise": 0.35}
        drawn = tuple(tag for tag, chance in chances.items() if rng.random() < chance)
        yield seed, people, tuple(tag for tag in drawn if people > 1 or tag in ("lag", "noise", "off screen"))


@dataclass
class Talker:
    """A real clip.

    Attributes:
        name: file name.
        person: who is in it.
        crops: N x 224 x 224 x 3, uint8, BGR.
        audio: int16 samples.
    """

    name: str
    person: str
    crops: np.ndarray
    audio: np.ndarray


def load(path: Path, person: str) -> Talker:
    """Load the first ``SIDE_SECONDS`` of a clip."""
    frames = round(SIDE_SECONDS * FRAME_RATE)
    crops = []
    for image in decode_frames(path):
        crops.append(image)
        if len(crops) == frames:
            break
    audio = read_audio(path)[: len(crops) * SAMPLES_PER_FRAME]
    return Talker(path.name, person, np.stack(crops), audio)


def same_sentence(left: np.ndarray, right: np.ndarray) -> bool:
    """Return True if the envelopes of two sounds are alike at some shift up to half a second."""
    one, other = (np.log10(rms(audio) + 1e-3) for audio in (left, right))
    length = min(len(one), len(other))
    one, other = one[:length], other[:length]
    best = 0.0
    for shift in range(-12, 13):
        a, b = one[max(0, shift) : length + min(0, shift)], other[max(0, -shift) : length - max(0, shift)]
        if a.std() and b.std():
            best = max(best, float(np.corrcoef(a, b)[0, 1]))
    return best > CORRELATED


def beside(left: Talker, right: Talker, stranger: np.ndarray, kind: str, *, name: str, seed: int) -> Dialogue:
    """Put two clips side by side and switch their sound.

    Args:
        left, right: the clips.
        stranger: int16 samples of somebody who is not in the picture.
        kind: one of ``SIDE_KINDS``.
        name: name of the dialogue.
        seed: seed of the times.
    """
    rng = np.random.default_rng([seed, 23])
    frames = min(len(left.crops), len(right.crops), len(left.audio) // SAMPLES_PER_FRAME)
    frames = min(frames, len(right.audio) // SAMPLES_PER_FRAME, len(stranger) // SAMPLES_PER_FRAME)
    marks = [0, round(frames * rng.uniform(0.28, 0.4)), round(frames * rng.uniform(0.6, 0.72)), frames]
    order = {
        "left right left": (0, 1, 0),
        "silence": (0, NOBODY, 1),
        "off screen": (1, OFF_SCREEN, 0),
        "lag": (0, 1, 1),
    }
    sounds = {0: left.audio, 1: right.audio, OFF_SCREEN: stranger}
    audio = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    speaker = np.full(frames, NOBODY)
    for who, first, last in zip(order[kind], marks, marks[1:]):
        if who != NOBODY:
            inside = slice(first * SAMPLES_PER_FRAME, last * SAMPLES_PER_FRAME)
            audio[inside] = sounds[who][inside]
            speaker[first:last] = np.where(silences(sounds[who])[first:last], NOBODY, who)
    lag = SIDE_LAG_MS if kind == "lag" else 0
    shot = np.concatenate([enlarged(clip.crops[:frames]) for clip in (left, right)], axis=2)
    faces = []
    for place, clip in enumerate((left, right)):
        box = np.array([place, 0, place + 1, 1]) * HEIGHT
        faces.append(Face(0, clip.crops[:frames], np.tile(box, (frames, 1))))
    return Dialogue(name, (kind,), faces, moved(audio, lag), speaker, lag_ms=lag, shots=[shot])


def enlarged(crops: np.ndarray) -> np.ndarray:
    """Return crops of ``HEIGHT`` x ``HEIGHT`` pixels."""
    return np.stack([cv2.resize(crop, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC) for crop in crops])


def write(dialogue: Dialogue, path: Path) -> None:
    """Write a dialogue as a video file; smaller shots are in the top left corner."""
    height, width = (max(shot.shape[axis] for shot in dialogue.shots) for axis in (1, 2))

    def frames() -> Iterator[np.ndarray]:
        for picture in itertools.chain.from_iterable(dialogue.shots):
            yield np.pad(picture, ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)))

    write_video(path, frames(), dialogue.audio)


def silences(audio: np.ndarray) -> np.ndarray:
    """Return True for the frames of clean sound in a pause of at least ``BRIDGED_SECONDS``."""
    loud = rms(audio)
    heard = np.flatnonzero(loud > max(AUDIBLE / 3, np.percentile(loud, 95) * 10 ** (-32 / 20)))
    quiet = np.ones(len(loud), bool)
    for before, after in zip([-1000, *heard], [*heard, len(loud) + 1000]):
        if before >= 0 and after < len(loud) and after - before - 1 < BRIDGED_SECONDS * FRAME_RATE:
            quiet[before + 1 : after] = False
    quiet[heard] = False
    return quiet


def resized(crops: np.ndarray) -> np.ndarray:
    """Return crops of the network's size."""
    if crops.shape[1] == CROP_SIZE:
        return crops
    return np.stack([cv2.resize(crop, (CROP_SIZE, CROP_SIZE)) for crop in crops])
