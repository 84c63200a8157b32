"""ffmpeg: the only place that starts it, and every conversion that the suite needs."""

import logging
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from syncnet import FRAME_RATE, SAMPLE_RATE, reasons
from syncnet.errors import DiskFullError, MediaError, ToolError, tells_no_space
from syncnet.layout import FRAME_PATTERN, new_file

logger = logging.getLogger("syncnet")

GLOBAL_FLAGS = ("-nostdin", "-hide_banner", "-y")
# What `-async 1` stood for until ffmpeg 5: fill gaps, and start at time 0 whatever the first timestamp.
ASYNC_FILTER = "aresample=async=1:first_pts=0"
WAV_FLAGS = ("-ac", "1", "-vn", "-acodec", "pcm_s16le", "-ar", str(SAMPLE_RATE))
STREAM_LINE = re.compile(r"^\s*Stream #\d+:\d+.*?: (Video|Audio): (.*)$", re.MULTILINE)
ATTACHED_PICTURE = "(attached pic)"
DETAIL_LENGTH = 200
ERRORS_ONLY = ("-loglevel", "error")
PIPELINE_QUALITY = ("-qscale:v", "2")
MUXED_FRAMES = re.compile(r"^frame=\s*(\d+)", re.MULTILINE)


@lru_cache
def find_ffmpeg():
    """Path of ffmpeg: the one on PATH, else the one that the package imageio-ffmpeg brings.

    Raises:
        ToolError: there is none.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise ToolError(
            "ffmpeg: not found: install it (apt install ffmpeg) or its package (pip install imageio-ffmpeg)"
        ) from error


@lru_cache
def ffmpeg_version():
    """Version of ffmpeg as it names itself, such as ``5.1.9-0+deb12u1``."""
    words = Ffmpeg(["-version"], source="ffmpeg").finish().split()
    return words[2] if len(words) > 2 else "unknown"


def absolute(path):
    """The path as ffmpeg and OpenCV take it: absolute, so that no name looks like a flag or a protocol."""
    return str(Path(path).absolute())


class Ffmpeg:
    """A running ffmpeg, on a list of arguments, without a shell and without standard input.

    Args:
        arguments: what follows the program's name.
        source: the file that it works on, for the error.
        cwd: folder to run in, where the output is a pattern (a ``%`` in a folder's name would be part of it).

    Attributes:
        complaint: the last line that it printed on stderr although it ended well; empty before ``finish``.

    Raises:
        ToolError: it cannot be started.
    """

    def __init__(self, arguments, *, source, cwd=None):
        self.source, self.complaint = source, ""
        # a file, not a pipe: nobody reads while it runs, and a damaged input can say a lot
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, closed by kill()
        try:
            self.process = subprocess.Popen(
                [find_ffmpeg(), *GLOBAL_FLAGS, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self.log,
                cwd=cwd,
            )
        except OSError as error:
            raise ToolError(f"{find_ffmpeg()}: cannot be started ({error.strerror}): install ffmpeg") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def running(self):
        return self.process.poll() is None

    @property
    def succeeded(self):
        return self.process.poll() == 0

    def kill(self):
        """End it if it still runs."""
        if self.running:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def wait(self):
        """Wait for its end, whatever that is: what it printed on stdout and on stderr."""
        stdout = self.process.communicate()[0].decode(errors="replace")
        self.log.seek(0)
        return stdout, self.log.read().decode(errors="replace")

    def finish(self, *, code=None):
        """Wait for its end: what it printed on stdout.

        Args:
            code: of the ``MediaError`` where ffmpeg finds fault with its input.

        Raises:
            DiskFullError: there was no room for its output, whatever its exit code says of that.
            MediaError: it failed; the message carries the end of its stderr.
        """
        try:
            stdout, stderr = self.wait()
        finally:
            self.kill()
        status = self.process.returncode
        if tells_no_space(stderr):
            raise DiskFullError(
                f"{self.source}: no room for what ffmpeg makes of it ({last_line(stderr)}): free some and run it again"
            )
        if status < 0:
            raise MediaError(f"{self.source}: ffmpeg was killed (signal {-status}) half-way: run the command again")
        if status:
            raise MediaError(f"{self.source}: ffmpeg failed: {last_line(stderr)}", code=code)
        if stderr.strip():
            self.complaint = last_line(stderr)
            logger.debug("%s: ffmpeg: %s", self.source, self.complaint)
        return stdout


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:DETAIL_LENGTH] if lines else "it said nothing"


@dataclass(frozen=True)
class Streams:
    """Which streams a media file has; a cover picture is no video."""

    video: bool
    audio: bool


def probe(path):
    """Which streams a file has.

    Raises:
        MediaError: ffmpeg cannot read it as media.
    """
    # without an output ffmpeg lists the streams and exits with 1: imageio-ffmpeg brings no ffprobe
    with Ffmpeg(["-i", absolute(path)], source=path) as process:
        stderr = process.wait()[1]
    streams = STREAM_LINE.findall(stderr)
    if not streams:
        detail = last_line(stderr).removeprefix(f"{absolute(path)}: ")
        raise MediaError(f"{path}: not a media file that ffmpeg can read ({detail})", code=reasons.NOT_MEDIA)
    return Streams(
        video=any(kind == "Video" and ATTACHED_PICTURE not in text for kind, text in streams),
        audio=any(kind == "Audio" for kind, _ in streams),
    )


def check_streams(path):
    """The streams of a file that has video.

    Raises:
        MediaError: no media, or no video in it.
    """
    streams = probe(path)
    if not streams.video:
        raise MediaError(f"{path}: has no video stream", code=reasons.NO_VIDEO)
    return streams


def async_filter(streams):
    return ("-af", ASYNC_FILTER) if streams.audio else ()


def start_conversion(source, video, *, streams, frame_rate=FRAME_RATE):
    """Start converting any video to an AVI of a constant frame rate (step 1 of run_pipeline)."""
    flags = ("-qscale:v", "2", *async_filter(streams), "-r", frame_rate, "-f", "avi", *ERRORS_ONLY)
    return Ffmpeg(["-i", absolute(source), *flags, absolute(video)], source=source)


def start_frames(video, folder, *, quality=()):
    """Start writing every frame of a video into a folder, as 000001.jpg and so on.

    Args:
        quality: ``PIPELINE_QUALITY``, or nothing for ffmpeg's default, which SyncNet's scores depend on.
    """
    return Ffmpeg(["-i", absolute(video), *ERRORS_ONLY, *frames_output(quality)], source=video, cwd=folder)


def start_audio(video, wav, *, fill_gaps=False):
    """Start extracting the sound as 16 kHz mono.

    Args:
        fill_gaps: start at time 0 and fill what is missing with silence.
    """
    flags = ("-af", ASYNC_FILTER) if fill_gaps else ()
    return Ffmpeg(["-i", absolute(video), *ERRORS_ONLY, *flags, *audio_output(wav)], source=video)


def start_unpacking(video, folder, wav, *, quality=()):
    """``start_frames`` and ``start_audio`` by one ffmpeg: starting it takes longer than the sound of a short video."""
    outputs = (*frames_output(quality), *audio_output(wav))
    return Ffmpeg(["-i", absolute(video), *ERRORS_ONLY, *outputs], source=video, cwd=folder)


def frames_output(quality):
    return (*quality, "-threads", "1", "-f", "image2", FRAME_PATTERN)


def audio_output(wav):
    return (*WAV_FLAGS, "-f", "wav", absolute(wav))


def read_wav(wav):
    """Samples of a 16-bit mono WAV file, int16."""
    with wave.open(str(wav), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def wav_length(wav):
    """How many samples a mono WAV file has; it need not be read for that."""
    with wave.open(str(wav), "rb") as file:
        return file.getnframes()


def mux(video, audio, output, *, frames):
    """Put a picture and a sound file into one AVI, both as they are.

    Args:
        frames: how many frames of video there must be.

    Raises:
        MediaError: ffmpeg failed, or frames are missing (a full disk).
    """
    inputs = ("-i", absolute(video), "-i", absolute(audio))
    flags = ("-c:v", "copy", "-c:a", "copy", "-f", "avi", "-progress", "pipe:1", *ERRORS_ONLY)
    with new_file(output) as aside:
        progress = Ffmpeg([*inputs, *flags, absolute(aside)], source=output).finish()
        written = MUXED_FRAMES.findall(progress)
        if not written or int(written[-1]) != frames:
            raise MediaError(f"{output}: {written[-1] if written else 0} of {frames} frames written: is the disk full?")


def frame_count(video):
    """Frames that a video's container names; None where it names none."""
    capture = cv2.VideoCapture(absolute(video), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None
