"""Media files as containers: their streams, time stamps and index, read by PyAV without decoding anything."""

import contextlib
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import av

from syncnet import reasons
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import absolute

# Formats that hold their media themselves. Everything else is refused, whatever a file's name: playlists, session
# descriptions and image sequences (HLS, DASH, ffconcat, SDP ...) make ffmpeg open other files and hosts.
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "nut", "mxf", "gxf", "rm", "wtv", "dv", "nsv"),
    *("nuv", "ivf", "swf", "bink", "smk", "roq", "yuv4mpegpipe"),
    *("h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "mjpeg", "vc1", "dirac", "gif", "apng"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "au", "caf", "amr", "ape", "ac3", "eac3", "dts", "tta", "wv"),
)
INPUT_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
DEFAULT_BONUS = 5_000_000  # what ffmpeg's choice of a stream adds for the default disposition
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Streams:
    """Which streams a media file has; a cover image is no video.

    Attributes:
        video, audio: whether there is one.
        sample_format: of the decoded audio, as ffmpeg names it, such as ``s16`` or ``fltp``; empty without audio.
    """

    video: bool
    audio: bool
    sample_format: str = ""


@dataclass(frozen=True)
class Timing:
    """Time stamps of a video stream.

    Attributes:
        time_base: seconds per tick.
        start: time at which the container starts, in seconds, as ffmpeg takes it up to version 7.
        audible_start: the same as newer versions take it: in Matroska and WebM without what an audio decoder throws
            away at its start.
        rate: frames a second as the container suggests; 0 if it does not.
        duration: of most frames, in ticks; 0 where unknown.
        frames: presentation time and duration of every frame, in ticks, in order of time; empty where the durations
            are not the frames' own.
    """

    time_base: Fraction
    start: Fraction
    audible_start: Fraction
    rate: Fraction
    duration: int
    frames: list

    @property
    def skipped(self):
        """By how much ``audible_start`` is later than ``start``, in seconds."""
        return self.audible_start - self.start


def input_flags(path):
    """Arguments of ffmpeg for an input file, which keep it from opening anything else."""
    options = [part for name, value in INPUT_OPTIONS.items() for part in (f"-{name}", value)]
    return (*options, "-i", absolute(path))


def open_container(path):
    """Open a media file for reading its packets.

    Returns:
        ``av.container.InputContainer``, to be used as a context.

    Raises:
        MediaError: it is no media file, or none of ``FORMATS``.
    """
    try:
        return av.open(absolute(path), options=INPUT_OPTIONS)
    except (av.FFmpegError, OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path}: not a media file that can be read ({detail})", code=reasons.NOT_MEDIA) from error


def probe(path):
    """Tell which streams a file has.

    Returns:
        ``Streams``.

    Raises:
        MediaError: it is no media file.
    """
    with open_container(path) as container:
        audio = main_audio(container)
        return Streams(
            video=bool(video_streams(container)),
            audio=audio is not None,
            sample_format=sample_format(audio),
        )


def check_streams(path):
    """Tell which streams a file with video has.

    Returns:
        ``Streams``.

    Raises:
        MediaError: it is no media file, or has no video.
    """
    streams = probe(path)
    if not streams.video:
        raise MediaError(f"{path}: has no video stream", code=reasons.NO_VIDEO)
    return streams


def video_streams(container):
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def main_video(container):
    """The video stream that ffmpeg chooses: the largest, and the default one before others."""
    return max(video_streams(container), key=lambda s: s.width * s.height + preference(s))


def main_audio(container):
    """The audio stream that ffmpeg chooses: the one with most channels, and the default one before others; or None."""
    return max(container.streams.audio, key=lambda s: s.channels + preference(s), default=None)


def preference(stream):
    return DEFAULT_BONUS if stream.disposition & av.stream.Disposition.default else 0


def sample_format(audio):
    return audio.format.name if audio is not None and audio.format is not None else ""


def read_timing(path):
    """Read the time stamps of a file's video.

    Durations are those of ffmpeg 5.1, on whose rate conversion published scores depend: where frames of an MP4 or MOV
    file are stored out of order, each counts as long as the nominal frame rate says, else as long as the file says.

    Returns:
        ``Timing``.
    """
    frames, starts = [], {}
    with open_container(path) as container:
        stream, audio = main_video(container), main_audio(container)
        own_durations = "mov" not in container.format.name
        with contextlib.suppress(av.FFmpegError, OSError):  # a damaged file: what can be read counts
            for packet in container.demux([stream] if audio is None else [stream, audio]):
                if not packet.size or packet.pts is None:
                    continue
                starts.setdefault(packet.stream, packet.pts * packet.time_base)
                if packet.stream == stream:
                    if not own_durations and packet.dts != packet.pts:
                        frames = []
                        break
                    frames.append((packet.pts, packet.duration or 0))
        counts = Counter(duration for _, duration in frames)
        start = audible_start = Fraction(container.start_time or 0, MICROSECONDS)
        if "matroska" in container.format.name:
            start = min([start, *starts.values()])
        return Timing(
            time_base=stream.time_base,
            start=start,
            audible_start=audible_start,
            rate=Fraction(stream.guessed_rate or 0),
            duration=counts.most_common(1)[0][0] if counts else nominal_duration(stream),
            frames=sorted(frames),
        )


def nominal_duration(stream):
    """Duration of a frame at the stream's nominal rate, in ticks, rounded down; 0 if it has none."""
    rate = stream.codec_context.framerate or stream.base_rate
    return int(1 / (rate * stream.time_base)) if rate else 0


def indexed_frames(path):
    """Count the frames that the index of a video file lists: 0 if it was not written to its end."""
    with open_container(path) as container:
        return len(container.streams.video[0].index_entries)
