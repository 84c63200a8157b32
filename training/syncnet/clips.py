"""Talking-face clips as arrays, decoded once in the scorer's way and then read from a cache.

A face clip is 224x224 at 25 fps with 16 kHz mono audio. The trainer uses 2x2 averages (112x112), which is all that its
first layer sees (``half_lip.py``), in grey: lips are read from shapes, and it takes a third of the computation. Two
versions of the frames are kept: one through the JPEG step of scoring, and one through the XVID encoding of
run_pipeline's crops and then that JPEG step.
"""

import tempfile
from collections.abc import Iterable, Sequence
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
CLIPS_PER_PERSON = 4  # further clips do not raise a person's weight
RENDERED = "rendered"
RENDERED_SECONDS = 3.4
# Frames by which the audio of GRID's recordings precedes the video (measured; see the model card).
EARLY_AUDIO = {"GRID corpus": 1, "rizkiarm/LipNet": 1}


@dataclass
class Clip:
    """A clip of one talking face.

    Attributes:
        frames: By version (see ``VERSIONS``), T x 112 x 112, grey, uint8.
        audio: int16 samples at 16 kHz.
        faces: Number of faces in the source video.
        real: True for a recording of a real person.
        extra: ``weight``, the weight of the clip in training, and ``early``, the frames by which its source's audio
            precedes the video.
    """

    name: str
    person: str
    source: str
    frames: dict
    audio: np.ndarray
    faces: int = 1
    confidence: float | None = None  # of the published network; None where unknown
    min_dist: float | None = None  # likewise
    offset: int | None = None  # AV offset of the clip as it is, in frames, by the published network; None where unknown
    real: bool = False
    extra: dict = field(default_factory=dict)

    @property
    def windows(self) -> int:
        """Number of scored windows (video and audio windows at the same position)."""
        frames = len(self.frames[VERSIONS[0]])
        return max(0, min(frames, len(self.audio) // SAMPLES_PER_FRAME) - WINDOW_FRAMES)

    @property
    def in_place(self) -> bool:
        """True if, as far as known, the audio is in sync with the video."""
        if self.offset is not None:
            return self.offset == 0
        return self.faces == 1  # one of several faces may be a listener's

    def frames_at(self, version: str, places: np.ndarray) -> np.ndarray:
        """Return the frames nearest to fractional frame numbers, len(places) x 112 x 112."""
        last = len(self.frames[version]) - 1
        return np.ascontiguousarray(self.frames[version][np.rint(places).astype(int).clip(0, last)])

    def audio_for(self, start: int, span: int, speed: float = 1.0) -> np.ndarray:
        """Return the int16 samples of windows start to start + span - 1 of the clip played ``speed`` times as fast."""
        first, count = start * SAMPLES_PER_FRAME, (span + WINDOW_FRAMES) * SAMPLES_PER_FRAME
        if speed == 1.0:
            return self.audio[first : first + count]
        places = np.arange(first, first + count) * speed
        places = places[places <= len(self.audio) - 1]
        needed = self.audio[int(places[0]) : int(places[-1]) + 2]
        return np.interp(places - int(places[0]), np.arange(len(needed)), needed).astype(np.int16)


def mfcc(audio: np.ndarray) -> np.ndarray:
    """Convert int16 samples to steps x 13 unscaled MFCCs (defaults of python_speech_features, as in scoring)."""
    return python_speech_features.mfcc(audio, SAMPLE_RATE).astype(np.float32)


def mfcc_windows(coefficients: np.ndarray, count: int) -> np.ndarray:
    """Cut MFCCs into windows: window i is steps 4i to 4i + 19.

    Args:
        coefficients: steps x 13; missing steps at the end repeat the last one.
        count: Number of windows.

    Returns:
        count x 13 x 20, a view.
    """
    need = (count - 1) * STEPS_PER_FRAME + WINDOW_STEPS
    if len(coefficients) < need:
        coefficients = np.pad(coefficients, ((0, need - len(coefficients)), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, WINDOW_STEPS, axis=0)
    return windows[: count * STEPS_PER_FRAME : STEPS_PER_FRAME]


def delayed(audio: np.ndarray, samples: int) -> np.ndarray:
    """Delay audio by ``samples`` (negative: advance it), keeping its length and filling the gap with zeros."""
    if samples == 0:
        return audio
    moved = np.zeros_like(audio)
    if samples > 0:
        moved[samples:] = audio[:-samples]
    else:
        moved[:samples] = audio[-samples:]
    return moved


def realigned(clip: Clip, offset: int) -> Clip:
    """Return the clip with its AV offset undone, without the frames or audio that have no counterpart then."""
    cut = abs(offset)
    if cut == 0:
        return clip
    first, last = (cut, None) if offset > 0 else (None, -cut)
    frames = {version: frames[first:last] for version, frames in clip.frames.items()}
    kept = slice(None, -cut * SAMPLES_PER_FRAME) if offset > 0 else slice(cut * SAMPLES_PER_FRAME, None)
    return replace(clip, frames=frames, audio=clip.audio[kept])


def write_crop(frames: Iterable[np.ndarray], out: str | Path) -> None:
    """Write 224x224x3 BGR frames to a video, encoded like run_pipeline's crops."""
    with video_writer(Path(out), frame_rate=FRAME_RATE, width=CROP_SIZE, height=CROP_SIZE) as writer:
        for frame in frames:
            writer.write(frame)


def _half_frames(path):
    """Return the frames of a clip, T x 112 x 112 grey, read from the JPEG files that scoring makes."""
    frames = []
    with tempfile.TemporaryDirectory() as folder:
        conversions.start_frames(path, folder).finish()
        for file in frame_files(Path(folder)):
            image = read_frame(file)
            if image.shape != (CROP_SIZE, CROP_SIZE, 3):
                size = f"{image.shape[1]}x{image.shape[0]}"
                raise TrainingError(
                    f"{path}: frames are {size}, not {CROP_SIZE}x{CROP_SIZE} face crops; crop them with run_pipeline"
                )
            grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            frames.append(cv2.resize(grey, (HALF, HALF), interpolation=cv2.INTER_AREA))
    if not frames:
        raise TrainingError(f"{path}: no video frames; remove the clip from index.tsv")
    return np.stack(frames)


def read_audio(path: str | Path) -> np.ndarray:
    """Return the audio of a clip as int16 samples at 16 kHz.

    Raises:
        MediaError: The file has no audio.
    """
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "audio.wav"
        conversions.start_audio(path, wav).finish()
        return conversions.read_wav(wav)


def decode(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Decode a 224x224 face clip.

    Returns:
        The frames by version, T x 112 x 112 each, and the int16 samples at 16 kHz.

    Raises:
        MediaError: The file cannot be read, or has no audio.
        TrainingError: The file is not a face crop.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        crop = Path(folder) / "crop.avi"
        frames = {"jpeg": _half_frames(path)}
        write_crop(decode_frames(path), crop)
        frames["xvid_jpeg"] = _half_frames(crop)
    shortest = min(len(f) for f in frames.values())
    return {version: f[:shortest] for version, f in frames.items()}, read_audio(path)


def _cache_files(path, cache):
    """Return the cache files of a clip: of its frames, by version, and of its audio."""
    return {v: cache / f"{path.stem}.{v}.npy" for v in VERSIONS}, cache / f"{path.stem}.audio.npy"


def _fill_cache(path, cache):
    files, audio_file = _cache_files(path, cache)
    if not audio_file.exists():
        frames, audio = decode(path)
        for file, array in (*((files[v], frames[v]) for v in VERSIONS), (audio_file, audio)):
            _save(file, array)


def _save(file, array):
    part = file.with_name(f"{uuid4().hex}.part.npy")  # several trainers may fill one cache at once
    np.save(part, array)
    part.replace(file)


def render_clips(
    count: int, cache: str | Path, *, first_seed: int = 0, seconds: float = RENDERED_SECONDS
) -> list[Clip]:
    """Return rendered talking faces, each of another person.

    Args:
        count: Number of clips.
        cache: Folder that keeps them.
        first_seed: Seed of the first clip; the others follow.
        seconds: Length of a clip.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    clips = []
    for seed in range(first_seed, first_seed + count):
        frames_file, audio_file = (cache / f"{RENDERED}-{seed}-{seconds}.{part}.npy" for part in ("frames", "audio"))
        if not audio_file.exists():
            clip = render_clip(seed, seconds)
            with tempfile.TemporaryDirectory() as folder:
                crop = Path(folder) / "crop.avi"
                write_crop(clip.frames, crop)
                _save(frames_file, _half_frames(crop))
            _save(audio_file, clip.audio)
        frames = np.load(frames_file, mmap_mode="r")
        clips.append(
            Clip(
                name=frames_file.name,
                person=f"{RENDERED}-{seed}",
                source=RENDERED,
                frames=dict.fromkeys(VERSIONS, frames),
                audio=np.load(audio_file),
                offset=0,
                extra={"weight": 1.0},
            )
        )
    return clips


def clip_from_row(
    row: dict[str, str], frames: dict[str, np.ndarray] | None = None, audio: np.ndarray | None = None
) -> Clip:
    """Return the ``Clip`` of a row of the index."""
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
        # the clips' audio was shifted to undo the published offset, except where the offset seemed meaningless
        offset=int(row["published_offset"]) - int(row["shift_applied"]) if known else None,
        real=row["kind"] == "real",
        extra={"early": EARLY_AUDIO.get(row["source"], 0)},
    )


def load_clips(
    folder: str | Path, rows: Sequence[dict[str, str]], cache: str | Path, *, workers: int = 2
) -> list[Clip]:
    """Load the clips of some rows of ``folder/index.tsv``.

    Args:
        folder: Folder with index.tsv and clips/.
        rows: Rows of the index.
        cache: Folder for the decoded clips, filled on first use.
        workers: Number of threads that decode.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    paths = [Path(folder) / "clips" / row["clip"] for row in rows]
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda path: _fill_cache(path, cache), paths):
            pass
    clips = []
    for row, path in zip(rows, paths):  # no threads here: NumPy's header parsing is not thread-safe on Python 3.11
        files, audio_file = _cache_files(path, cache)
        clip = clip_from_row(row, {v: np.load(file, mmap_mode="r") for v, file in files.items()}, np.load(audio_file))
        clip.audio = delayed(clip.audio, clip.extra["early"] * SAMPLES_PER_FRAME)
        clips.append(clip)
    return clips


def shift_audio(path: str | Path, out: str | Path, samples: int) -> None:
    """Write a copy of a clip whose audio is delayed, with the same length and silence in the gap.

    Args:
        path: The clip.
        out: File to write; should be a .mkv, because an .avi cannot store the order of reordered frames and gets two
            extra frames at its start.
        samples: Delay at 16 kHz; negative to advance the audio.
    """
    audio = delayed(read_audio(path), samples)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "audio.wav"
        wavfile.write(wav, SAMPLE_RATE, audio)
        streams = ("-map", "0:v:0", "-map", "1:a:0", "-c", "copy")
        Ffmpeg(["-i", absolute(path), "-i", wav, *streams, absolute(out)], source=path).finish()
