"""The conversions of the published pipeline, each by one ffmpeg."""

import wave

import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLE_RATE
from syncnet.errors import MediaError
from syncnet.media.containers import indexed_frames, input_flags, read_timing
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg, absolute
from syncnet.media.frame_rate import audio_start_filter, rate_filter
from syncnet.results.layout import FRAME_PATTERN, new_file

# What `-async 1` stood for until ffmpeg 6: fill gaps, and start at time 0 whatever the first timestamp.
ASYNC_FILTER = "aresample=async=1:first_pts=0"
# Until ffmpeg 6 audio of up to 16 bits was resampled as such; from 7 on it is resampled as floating point.
SHORT_FORMATS = ("u8", "s16", "u8p", "s16p")
AS_SHORT = ":internal_sample_fmt=s16p"
ONE_FRAME_EACH = ("-bsf:v", "setts=duration=1")  # or the AVI would end later in videos of a lower rate
WAV_FLAGS = ("-ac", "1", "-vn", "-acodec", "pcm_s16le", "-ar", str(SAMPLE_RATE))
PIPELINE_QUALITY = ("-qscale:v", "2")


def async_flags(streams, *, before=()):
    """Arguments of ffmpeg that let audio start at time 0 and fill its gaps with silence.

    Args:
        before: filters that come first.
    """
    if not streams.audio:
        return ()
    resampling = ASYNC_FILTER + (AS_SHORT if streams.sample_format in SHORT_FORMATS else "")
    return ("-af", ",".join([*before, resampling]))


def rate_flags(timing, script, *, keeps_gaps):
    """Arguments of ffmpeg that convert a video to ``FRAME_RATE`` as published scores were.

    Args:
        timing: the video's ``Timing``.
        script: path of a file to write the filter to: it may be longer than an argument can be, and ffmpeg up to
            version 6 takes ``-vf`` beside ``-af`` for a mistake.
        keeps_gaps: as in ``fingerprint.Behaviour``.
    """
    script.write_text(rate_filter(timing), encoding="ascii")
    if keeps_gaps:
        return ("-filter_script:v", absolute(script), "-r", FRAME_RATE)
    return ("-/filter:v", absolute(script), "-enc_time_base:v", f"1:{FRAME_RATE}", *ONE_FRAME_EACH)


def start_conversion(source, video, *, script, streams, keeps_gaps):
    """Start converting any video to an AVI of ``FRAME_RATE`` (step 1 of run_pipeline).

    Args:
        script, keeps_gaps: as in ``rate_flags``.
    """
    timing = read_timing(source)
    flags = (
        *PIPELINE_QUALITY,
        *async_flags(streams, before=audio_start_filter(timing)),
        *rate_flags(timing, script, keeps_gaps=keeps_gaps),
    )
    return Ffmpeg([*input_flags(source), *flags, "-f", "avi", *ERRORS_ONLY, absolute(video)], source=source)


def start_frames(video, folder, *, quality=()):
    """Start writing every frame of a video into a folder, as 000001.jpg and so on.

    Args:
        quality: ``PIPELINE_QUALITY``, or nothing for ffmpeg's default, which SyncNet's scores depend on.
    """
    return Ffmpeg([*input_flags(video), *ERRORS_ONLY, *frames_output(quality)], source=video, cwd=folder)


def start_audio(video, wav, *, streams=None):
    """Start extracting the audio as 16 kHz mono.

    Args:
        streams: of the video, to start at time 0 and fill gaps with silence; None to take the audio as it is.
    """
    flags = async_flags(streams) if streams else ()
    return Ffmpeg([*input_flags(video), *ERRORS_ONLY, *flags, *audio_output(wav)], source=video)


def start_unpacking(video, folder, wav, *, quality=()):
    """``start_frames`` and ``start_audio`` by one ffmpeg: starting it takes longer than the sound of a short video."""
    outputs = (*frames_output(quality), *audio_output(wav))
    return Ffmpeg([*input_flags(video), *ERRORS_ONLY, *outputs], source=video, cwd=folder)


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
    flags = ("-c:v", "copy", "-c:a", "copy", "-f", "avi", *ERRORS_ONLY)
    with new_file(output) as aside:
        Ffmpeg([*input_flags(video), *input_flags(audio), *flags, absolute(aside)], source=output).finish()
        written = indexed_frames(aside)
        if written != frames:
            raise MediaError(f"{output}: {written} of {frames} frames written: is the disk full?")


def frame_count(video):
    """Frames that a video's container names; None where it names none."""
    capture = cv2.VideoCapture(absolute(video), cv2.CAP_FFMPEG)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return count if count > 0 else None
