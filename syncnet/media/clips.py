"""Clips that the suite writes for other programs: H.264 and AAC in MP4."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.video.stream import VideoStream

from syncnet.constants import FRAME_RATE, SAMPLE_RATE
from syncnet.errors import ToolError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

VIDEO_CODEC, AUDIO_CODEC = "libx264", "aac"
VIDEO_OPTIONS = {"crf": "17", "preset": "fast"}  # visually lossless
AUDIO_BIT_RATE = 64000


class ClipWriter:
    """Writes a clip frame by frame.

    Args:
        path: MP4 file to write.
        width, height: size of the pictures, in pixels.

    Attributes:
        frames: number of frames so far.

    Raises:
        ToolError: PyAV cannot encode H.264.
        OSError: the file cannot be written; also ``av.FFmpegError``.
    """

    def __init__(self, path: Path, *, width: int, height: int) -> None:
        self.container = av.open(str(path.absolute()), "w", format="mp4")
        self.frames = self.samples = 0
        try:
            video = self.container.add_stream(VIDEO_CODEC, rate=FRAME_RATE, options=VIDEO_OPTIONS)
            audio = self.container.add_stream(AUDIO_CODEC, rate=SAMPLE_RATE, layout="mono")
        except UnknownCodecError as error:
            self.container.close()
            raise ToolError(f"PyAV cannot encode {error}: install its package (pip install av)") from error
        assert isinstance(video, VideoStream) and isinstance(audio, AudioStream)
        self.video, self.audio = video, audio
        self.video.width, self.video.height, self.video.pix_fmt = width, height, "yuv420p"
        self.audio.bit_rate = AUDIO_BIT_RATE

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.container.mux(self.video.encode(None))
                self.container.mux(self.audio.encode(None))
        finally:
            self.container.close()

    def add(self, picture: np.ndarray, samples: np.ndarray) -> None:
        """Add a frame.

        Args:
            picture: height x width x 3 array, uint8, BGR.
            samples: its sound at 16 kHz, mono, int16.
        """
        image = av.VideoFrame.from_ndarray(picture, format="bgr24")
        image.pts, image.time_base = self.frames, Fraction(1, FRAME_RATE)
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, self.samples, Fraction(1, SAMPLE_RATE)
        self.container.mux(self.video.encode(image))
        self.container.mux(self.audio.encode(sound))
        self.frames += 1
        self.samples += len(samples)
