"""Talking-face clips as arrays: decoded once the way the scorer decodes them, then read from a cache.

A face clip is 224x224 at 25 fps with 16 kHz mono sound. The trainer looks at 2x2 averages (112x112), which is all
that its first layer can see (``half_lip.py``), in grey: lips are read from shapes, and it is a third of the work.
Two versions of the picture are kept: through the JPEG step of
scoring, and through the XVID of run_pipeline's crops before that.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import cv2
import numpy as np
import python_speech_features
from scipy.io import wavfile

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, WINDOW_FRAMES
from syncnet.faces.crops import CROP_SIZE, video_writer
from syncnet.media import conversions
from syncnet.media.ffmpeg import Ffmpeg, absolute
from syncnet.media.frames import decode_frames, read_frame
from syncnet.results.layout import frame_files
from syncnet.sync.scoring import STEPS_PER_FRAME, WINDOW_STEPS
from training.common import TrainingError
from training.face.talking_face import render_clip

HALF = CROP_SIZE // 2
VERSIONS = ("jpeg", "xvid_jpeg")
CLIPS_PER_PERSON = 4  # more clips of one person count no more
RENDERED = "rendered"
RENDERED_SECONDS = 3.4
# The sound of GRID's recordings comes this many frames before the picture (measured; see the model card).
EARLY_SOUND = {"GRID corpus": 1, "rizkiarm/LipNet": 1}


@dataclass
class Clip:
    """One talking face. ``frames``: {version: T x 112 x 112 grey uint8}; ``audio``: int16 at 16 kHz."""

    name: str
    person: str
    source: str
    frames: dict
    audio: np.ndarray
    faces: int = 1
    confidence: float | None = None  # of the published network
    min_dist: float | None = None
    offset: int | None = None  # the published network's, of the clip as it is; None where unknown
    real: bool = False
    extra: dict = field(default_factory=dict)

    @property
    def windows(self):
        """Number of scored windows (frames and sound at the same place)."""
        frames = len(self.frames[VERSIONS[0]])
        return max(0, min(frames, len(self.audio) // SAMPLES_PER_FRAME) - WINDOW_FRAMES)

    @property
    def in_place(self):
        """Whether the sound is in step with the picture, as far as anybody knows."""
        if self.offset is not None:
            return self.offset == 0
        return self.faces == 1  # of several faces one may be a listener's

    def pictures(self, version, places):
        """Pictures at frame numbers that need not be whole: the nearest ones."""
        last = len(self.frames[version]) - 1
        return np.ascontiguousarray(self.frames[version][np.rint(places).astype(int).clip(0, last)])

    def sound(self, start, span, speed=1.0):
        """int16 samples that windows start .. start+span-1 need, of the clip played ``speed`` times as fast."""
        first, count = start * SAMPLES_PER_FRAME, (span + WINDOW_FRAMES) * SAMPLES_PER_FRAME
        if speed == 1.0:
            return self.audio[first : first + count]
        places = np.arange(first, first + count) * speed
        places = places[places <= len(self.audio) - 1]
        heard = self.audio[int(places[0]) : int(places[-1]) + 2]
        return np.interp(places - int(places[0]), np.arange(len(heard)), heard).astype(np.int16)


def mfcc(audio):
    """int16 samples -> steps x 13 MFCCs, unscaled (python_speech_features' defaults, as scoring uses them)."""
    return python_speech_features.mfcc(audio, SAMPLE_RATE).astype(np.float32)


def mfcc_windows(coefficients, count):
    """steps x 13 -> count x 13 x 20: window i is steps 4i .. 4i+19; a missing end repeats the last step."""
    need = (count - 1) * STEPS_PER_FRAME + WINDOW_STEPS
    if len(coefficients) < need:
        coefficients = np.pad(coefficients, ((0, need - len(coefficients)), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, WINDOW_STEPS, axis=0)
    return windows[: count * STEPS_PER_FRAME : STEPS_PER_FRAME]


def delayed(audio, samples):
    """Sound moved later by ``samples`` (earlier when negative), same length, silence at the open end."""
    if samples == 0:
        return audio
    moved = np.zeros_like(audio)
    if samples > 0:
        moved[samples:] = audio[:-samples]
    else:
        moved[:samples] = audio[-samples:]
    return moved


def realigned(clip, offset):
    """Clip without the pictures, or the sound, that have no counterpart once its AV offset is undone."""
    cut = abs(offset)
    if cut == 0:
        return clip
    first, last = (cut, None) if offset > 0 else (None, -cut)
    frames = {version: pictures[first:last] for version, pictures in clip.frames.items()}
    sound = slice(None, -cut * SAMPLES_PER_FRAME) if offset > 0 else slice(cut * SAMPLES_PER_FRAME, None)
    return replace(clip, frames=frames, audio=clip.audio[sound])


def write_pictures(frames, out):
    """Write 224x224 pictures as run_pipeline writes its crops."""
    with video_writer(Path(out), frame_rate=FRAME_RATE, width=CROP_SIZE, height=CROP_SIZE) as writer:
        for frame in frames:
            writer.write(frame)


def _half_frames(path):
    """T x 112 x 112 grey pictures of a clip, through the JPEG files that scoring makes."""
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        conversions.start_frames(path, folder).finish()
        for file in frame_files(Path(folder)):
            image = read_frame(file)
            if image.shape != (CROP_SIZE, CROP_SIZE, 3):
                size = f"{image.shape[1]}x{image.shape[0]}"
                raise TrainingError(f"{path}: frames are {size}, not {CROP_SIZE}x{CROP_SIZE} face crops")
            grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            frames.append(cv2.resize(grey, (HALF, HALF), interpolation=cv2.INTER_AREA))
    if not frames:
        raise TrainingError(f"{path}: no frames")
    return np.stack(frames)


def read_audio(path):
    """A clip's sound as int16 samples at 16 kHz.

    Raises:
        MediaError: it has none.
    """
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.wav"
        conversions.start_audio(path, sound).finish()
        return conversions.read_wav(sound)


def decode(path):
    """({version: frames}, int16 samples) of a 224x224 face clip.

    Raises:
        MediaError: the file cannot be read, or has no sound.
        TrainingError: it is no face crop.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        crop = Path(folder) / "crop.avi"
        frames = {"jpeg": _half_frames(path)}
        write_pictures(decode_frames(path), crop)
        frames["xvid_jpeg"] = _half_frames(crop)
    shortest = min(len(f) for f in frames.values())
    return {version: f[:shortest] for version, f in frames.items()}, read_audio(path)


def _cache_files(path, cache):
    """Where a clip's decoded frames, by version, and its sound are kept."""
    return {v: cache / f"{path.stem}.{v}.npy" for v in VERSIONS}, cache / f"{path.stem}.audio.npy"


def _fill_cache(path, cache):
    files, audio_file = _cache_files(path, cache)
    if not audio_file.exists():
        frames, audio = decode(path)
        for file, array in (*((files[v], frames[v]) for v in VERSIONS), (audio_file, audio)):
            _save(file, array)


def _save(file, array):
    part = file.with_name(f"{uuid4().hex}.part.npy")  # several trainers may fill one cache at a time
    np.save(part, array)
    part.replace(file)


def render_clips(count, cache, *, first_seed=0, seconds=RENDERED_SECONDS):
    """``count`` rendered talking faces, each somebody else, from seed ``first_seed`` on; kept in ``cache``."""
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    clips = []
    for seed in range(first_seed, first_seed + count):
        pictures, sound = (cache / f"{RENDERED}-{seed}-{seconds}.{part}.npy" for part in ("frames", "audio"))
        if not sound.exists():
            clip = render_clip(seed, seconds)
            with tempfile.TemporaryDirectory() as folder:
                crop = Path(folder) / "crop.avi"
                write_pictures(clip.frames, crop)
                _save(pictures, _half_frames(crop))
            _save(sound, clip.audio)
        frames = np.load(pictures, mmap_mode="r")
        clips.append(
            Clip(
                name=pictures.name,
                person=f"{RENDERED}-{seed}",
                source=RENDERED,
                frames=dict.fromkeys(VERSIONS, frames),
                audio=np.load(sound),
                offset=0,
                extra={"weight": 1.0},
            )
        )
    return clips


def clip_of(row, frames=None, audio=None):
    """Clip of a row of the index."""
    known = row["published_confidence"] != ""
    return Clip(
        name=row["clip"],
        person=row["person"],
        source=row["source"],
        frames=frames,
        audio=audio,
        faces=int(row["faces_in_video"] or 1),
        confidence=float(row["published_confidence"]) if known else None,
        min_dist=float(row["published_min_dist"]) if known else None,
        # the sound was moved to undo the published offset, but not where that seemed to mean nothing
        offset=int(row["published_offset"]) - int(row["shift_applied"]) if known else None,
        real=row["kind"] == "real",
        extra={"early": EARLY_SOUND.get(row["source"], 0)},
    )


def load_clips(folder, rows, cache, *, workers=2):
    """Clips of ``rows`` (of ``folder/index.tsv``), decoded into the folder ``cache`` when first asked for."""
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / "clips" / row["clip"] for row in rows]
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda path: _fill_cache(path, cache), paths):
            pass
    clips = []
    for row, path in zip(rows, paths):  # one after the other: Python 3.11 parses arrays' heads wrongly in threads
        files, audio_file = _cache_files(path, cache)
        clip = clip_of(row, {v: np.load(file, mmap_mode="r") for v, file in files.items()}, np.load(audio_file))
        clip.audio = delayed(clip.audio, clip.extra["early"] * SAMPLES_PER_FRAME)
        clips.append(clip)
    return clips


def move_sound(path, out, samples):
    """Copy of a clip whose sound comes later by ``samples`` (same length, silence at the open end).

    ``out`` should be a .mkv: an .avi knows no order of pictures but the stored one, and gets two more at its start.
    """
    audio = delayed(read_audio(path), samples)
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.wav"
        wavfile.write(sound, SAMPLE_RATE, audio)
        streams = ("-map", "0:v:0", "-map", "1:a:0", "-c", "copy")
        Ffmpeg(["-i", absolute(path), "-i", sound, *streams, absolute(out)], source=path).finish()
