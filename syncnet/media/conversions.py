"""The ffmpeg conversions of the published pipeline."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLE_RATE
from syncnet.errors import MediaError
from syncnet.media.containers import indexed_frames, input_flags, main_video_index, read_timing
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg, absolute
from syncnet.media.frame_rate import audio_start_filter, rate_filter
from syncnet.results.layout import FRAME_PATTERN, new_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from syncnet.media.containers import Sound, Streams, Timing
    from syncnet.media.fingerprint import Behaviour

# Equivalent of `-async 1` of ffmpeg up to 6: fill gaps, and start at time 0 whatever the first time stamp.
ASYNC_FILTER = "aresample=async=1:first_pts=0"
# ffmpeg up to 6 resamples audio of up to 16 bits as 16-bit integers; ffmpeg 7 and later as floating point.
SHORT_FORMATS = ("u8", "s16", "u8p", "s16p")
AS_SHORT = ":internal_sample_fmt=s16p"
ONE_FRAME_EACH = ("-bsf:v", "setts=duration=1")  # without it, videos of a lower rate give a longer AVI
LONG_QUEUE = ("-max_muxing_queue_size", "99999")  # packets; ffmpeg 4 ends with an error if a frame is 3 s late
WAV_FLAGS = ("-ac", "1", "-vn", "-acodec", "pcm_s16le", "-ar", str(SAMPLE_RATE))
PIPELINE_QUALITY = ("-qscale:v", "2")


def async_flags(streams: Streams, *, before: Iterable[str] = (), has_async: bool = False) -> tuple[str, ...]:
    """Return ffmpeg's arguments that make audio start at time 0 and fill its gaps with silence.

    Args:
        streams: streams of the input.
        before: filters to apply first.
        has_async: as in ``fingerprint.Behaviour``. ffmpeg's own flag also covers audio whose sample rate or channels
            change on the way, where the filter pads the rest from time 0 once more.
    """
    if not streams.audio:
        return ()
    if has_async:
        return ("-async", "1")
    resampling = ASYNC_FILTER + (AS_SHORT if streams.sample_format in SHORT_FORMATS else "")
    return ("-af", ",".join([*before, resampling]))


def rate_flags(timing: Timing, script: Path, *, keeps_gaps: bool) -> tuple[str, ...]:
    """Return ffmpeg's arguments that convert a video to ``FRAME_RATE`` as for the published scores.

    Args:
        timing: time stamps of the video.
        script: file to write the filter to. The filter can exceed the length limit of an argument, and ffmpeg up to
            version 6 rejects ``-vf`` together with ``-af``.
        keeps_gaps: as in ``fingerprint.Behaviour``.
    """
    if keeps_gaps and not timing.disputed:
        return ("-r", str(FRAME_RATE))
    script.write_text(rate_filter(timing), encoding="ascii")
    if keeps_gaps:
        return ("-filter_script:v", absolute(script), "-r", str(FRAME_RATE))
    return ("-/filter:v", absolute(script), "-enc_time_base:v", f"1:{FRAME_RATE}", *ONE_FRAME_EACH)


def start_conversion(
    source: str | os.PathLike[str],
    video: str | os.PathLike[str],
    *,
    script: Path,
    streams: Streams,
    behaviour: Behaviour,
    sound: Sound | None = None,
) -> Ffmpeg:
    """Start converting a video to an AVI file of ``FRAME_RATE`` (step 1 of run_pipeline).

    Args:
        source: the input video.
        video: path of the AVI file.
        script: as in ``rate_flags``.
        streams: streams of the input video.
        behaviour: ``fingerprint.behaviour()``, the properties of the ffmpeg in use.
        sound: audio to use in place of what ffmpeg selects in the input video; both start together.
    """
    # with its own flags ffmpeg 4 and 5 need no time stamps: a long file is not read twice
    timing = read_timing(source, only_disputed=behaviour.keeps_gaps and behaviour.has_async)
    inputs, mapping, before = [*input_flags(source)], [], audio_start_filter(timing)
    if sound:
        number, streams = 0, sound.streams
        if absolute(sound.path) != absolute(source):
            number, before = 1, []
            inputs += input_flags(sound.path)
        mapping = ["-map", f"0:{main_video_index(source)}", "-map", f"{number}:{sound.index}"]
    flags = (
        *mapping,
        *PIPELINE_QUALITY,
        *async_flags(streams, before=before, has_async=behaviour.has_async),
        *rate_flags(timing, script, keeps_gaps=behaviour.keeps_gaps),
        *LONG_QUEUE,
    )
    return Ffmpeg([*inputs, *flags, "-f", "avi", *ERRORS_ONLY, absolute(video)], source=source)


def start_frames(video: str | os.PathLike[str], folder: Path, *, quality: tuple[str, ...] = ()) -> Ffmpeg:
    """Start extracting all frames of a video to ``000001.jpg``, ``000002.jpg`` and so on.

    Args:
        video: the input video.
        folder: existing folder for the frames.
        quality: ``PIPELINE_QUALITY``, or empty for ffmpeg's default, on which SyncNet's scores depend.
    """
    return Ffmpeg([*input_flags(video), *ERRORS_ONLY, *frames_output(quality)], source=video, cwd=folder)


def start_audio(
    video: str | os.PathLike[str],
    wav: str | os.PathLike[str],
    *,
    streams: Streams | None = None,
    index: int | None = None,
) -> Ffmpeg:
    """Start extracting the audio of a video to a 16 kHz mono WAV file.

    Args:
        video: the input video.
        wav: path of the WAV file.
        streams: streams of the video, to start at time 0 and fill gaps with silence; None to keep the audio as it is.
        index: index of the audio stream among all streams; None for the one that ffmpeg selects.
    """
    mapping = () if index is None else ("-map", f"0:{index}")
    flags = async_flags(streams) if streams else ()
    return Ffmpeg([*input_flags(video), *mapping, *ERRORS_ONLY, *flags, *audio_output(wav)], source=video)


def start_unpacking(
    video: str | os.PathLike[str], folder: Path, wav: str | os.PathLike[str], *, quality: tuple[str, ...] = ()
) -> Ffmpeg:
    """Start extracting frames and audio with a single ffmpeg, as ``start_frames`` and ``start_audio`` do.

    For a short video, starting a second ffmpeg takes longer than extracting the audio.
    """
    outputs = (*frames_output(quality), *audio_output(wav))
    return Ffmpeg([*input_flags(video), *ERRORS_ONLY, *outputs], source=video, cwd=folder)


def frames_output(quality: tuple[str, ...]) -> tuple[str, ...]:
    return (*quality, "-threads", "1", "-f", "image2", FRAME_PATTERN)


def audio_output(wav: str | os.PathLike[str]) -> tuple[str, ...]:
    return (*WAV_FLAGS, "-f", "wav", absolute(wav))


def read_wav(wav: str | os.PathLike[str]) -> np.ndarray:
    """Read a 16-bit mono WAV file.

    Returns:
        (samples,) array, int16.
    """
    with wave.open(str(wav), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def wav_length(wav: str | os.PathLike[str]) -> int:
    """Return the number of samples in a mono WAV file, from its header."""
    with wave.open(str(wav), "rb") as file:
        return file.getnframes()


def shorten_wav(wav: str | os.PathLike[str], *, samples: int) -> None:
    """Cut a 16-bit mono WAV file to at most ``samples`` samples."""
    if wav_length(wav) <= samples:
        return
    with wave.open(str(wav), "rb") as file:
        parameters, kept = file.getparams(), file.readframes(samples)
    with wave.open(str(wav), "wb") as file:
        file.setparams(parameters)
        file.writeframes(kept)


def mux(video: Path, audio: Path, output: Path, *, frames: int) -> None:
    """Combine a video file and an audio file into an AVI file, without re-encoding.

    Args:
        video: the video file.
        audio: the audio file.
        output: path of the AVI file.
        frames: expected number of video frames.

    Raises:
        MediaError: ffmpeg failed, or the output has fewer or more frames than expected (for example on a full disk).
    """
    flags = ("-c:v", "copy", "-c:a", "copy", "-f", "avi", *ERRORS_ONLY)
    with new_file(output) as temporary:
        Ffmpeg([*input_flags(video), *input_flags(audio), *flags, absolute(temporary)], source=output).finish()
        written = indexed_frames(temporary)
        if written != frames:
            raise MediaError(
                f"{output}: {written} of {frames} frames written: is the disk full? Free some space and run the "
                "command again"
            )


def frame_count(video: str | os.PathLike[str]) -> int | None:
    """Return the number of frames that a video's container states; None if it states none."""
    capture = cv2.VideoCapture(absolute(video), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None
