"""Fingerprint of an ffmpeg: a hash of its output for a fixed test video. Equal fingerprints give equal scores.

The suite's own conversions compute it once per ffmpeg executable, and the user's cache folder stores it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import platformdirs

from syncnet.errors import MediaError, SyncNetError, ToolError
from syncnet.media import conversions
from syncnet.media.containers import check_streams, indexed_frames, open_container
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT, ffmpeg_version, find_ffmpeg
from syncnet.media.frames import read_frame
from syncnet.results.layout import frame_files, new_file

DIGITS = 16
FRAMES, SOURCE_RATE = 25, Fraction(25, 2)  # 2 s at half of FRAME_RATE, so that every other output frame is a duplicate
WIDTH, HEIGHT = 96, 64
SAMPLE_RATE, SAMPLES = 44100, 88200
LATE_SAMPLES = 4410  # by which the audio starts after the video


@dataclass(frozen=True)
class Behaviour:
    """Properties of an ffmpeg on which the suite depends.

    Attributes:
        version: the version that ffmpeg reports.
        fingerprint: hash of the decoded frames and MP3 packets that it produces, in hexadecimal.
        keeps_gaps: True if its ``-r`` leaves gaps between frames, as in versions up to 6, and False if it fills them
            with duplicates.
        has_async: True if its flag ``-async`` works, as in versions up to 5.
    """

    version: str
    fingerprint: str
    keeps_gaps: bool
    has_async: bool


@lru_cache
def behaviour() -> Behaviour:
    """Return the properties of the ffmpeg in use, from the cache if it has them."""
    try:
        path = cache_file()
    except RuntimeError:  # a user without a home folder
        return examine()
    try:
        return read_cache(path)
    except (OSError, ValueError, TypeError, RecursionError):  # missing or damaged
        found = examine()
    with contextlib.suppress(OSError, SyncNetError):  # if the cache cannot be written, each process computes it
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def read_cache(path: Path) -> Behaviour:
    """Read the properties of an ffmpeg from a cache file.

    Raises:
        OSError, ValueError, TypeError, RecursionError: the file is missing or damaged.
    """
    found = Behaviour(**json.loads(path.read_text(encoding="utf-8")))
    kinds = {"version": str, "fingerprint": str, "keeps_gaps": bool, "has_async": bool}
    if any(type(value) is not kinds[name] for name, value in asdict(found).items()):
        raise TypeError("a value of another type")
    return found


def cache_file() -> Path:
    """Return the cache file for the ffmpeg in use. Its name changes with ffmpeg, OpenCV, PyAV and the test video.

    Raises:
        RuntimeError: the user has no home folder.
    """
    program = Path(find_ffmpeg().path).resolve()
    state = program.stat()
    key = (str(program), state.st_size, state.st_mtime_ns, cv2.__version__, av.__version__, PUBLISHED_FINGERPRINT)
    name = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()[:DIGITS]
    return Path(platformdirs.user_cache_dir("syncnet", appauthor=False)) / f"ffmpeg-{name}.json"


def examine() -> Behaviour:
    """Compute the properties of the ffmpeg in use by converting a test video.

    Raises:
        ToolError: this ffmpeg converts frame rates in an unknown way.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, video, frames = (Path(folder) / name for name in ("test.nut", "test.avi", "frames"))
        write_test_video(source)
        found = Behaviour(version=ffmpeg_version(), fingerprint="", keeps_gaps=True, has_async=False)
        if not convert(source, video, found):
            found = replace(found, keeps_gaps=False)
            if not convert(source, video, found):
                raise ToolError(
                    f"{find_ffmpeg().path}: converts a test video to other frames than any known ffmpeg: choose "
                    "another one (unset SYNCNET_FFMPEG for the packaged one)"
                )
        audio = audio_packets(video)
        frames.mkdir()
        conversions.start_frames(video, frames).finish()
        content = hashlib.sha256(b"".join(read_frame(file).tobytes() for file in frame_files(frames)) + audio)
        # ffmpeg 7 accepts the flag and ignores it
        with_flag = replace(found, has_async=True)
        has_async = found.keeps_gaps and convert(source, video, with_flag) and audio_packets(video) == audio
        return replace(found, fingerprint=content.hexdigest()[:DIGITS], has_async=has_async)


def audio_packets(video: Path) -> bytes:
    """Return the audio packets of a video, one after the other."""
    with open_container(video) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def convert(source: Path, video: Path, behaviour: Behaviour) -> bool:
    """Convert the test video as for an ffmpeg with these properties. Return True if the result has each frame once."""
    script, streams = video.with_suffix(".txt"), check_streams(source)
    with contextlib.suppress(MediaError):  # this ffmpeg does not know the flags
        conversions.start_conversion(source, video, script=script, streams=streams, behaviour=behaviour).finish()
        return indexed_frames(video) == FRAMES
    return False


def write_test_video(path: Path) -> None:
    """Write an uncompressed test image and tone, computed in integers to be identical on all machines."""
    rows, columns, index = np.ogrid[:HEIGHT, :WIDTH, :FRAMES]
    image = (rows * rows // 3 + columns * (5 + 2 * index) + rows * columns // 7 + 40 * index) % 256
    at = np.arange(SAMPLES)
    tone = (at * 37 % 200 - 100) * (at // 50 % 120) + (at * at // 97 % 64 - 32) * 20
    with av.open(str(path), "w", format="nut") as container:
        video = container.add_stream("rawvideo", rate=SOURCE_RATE, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number in range(FRAMES):
            luma = image[:, :, number]
            planes = np.concatenate([luma, luma[::2] // 2 + 64]).astype(np.uint8)  # chroma has half as many rows
            container.mux(video.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, LATE_SAMPLES, Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
