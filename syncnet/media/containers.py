"""Metadata of media files: streams, time stamps and index, read by PyAV without decoding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av

from syncnet import reasons
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import absolute
from syncnet.results.layout import check_input

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import TypeVar

    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)

# Formats that contain their media. All others are refused, whatever the file's extension: playlists, session
# descriptions and image sequences (HLS, DASH, ffconcat, SDP ...) make ffmpeg open other files and hosts.
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "nut", "mxf", "gxf", "rm", "wtv", "dv", "nsv"),
    *(
        "nuv",
        "ivf",
        "swf",
        "bink",
        "smk",
        "roq",
        "yuv4mpegpipe",
        "live_flv",
        "kux",
        "dhav",
        "ty",
        "pva",
        "pmp",
        "lmlm4",
    ),
    *("h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "mjpeg", "vc1", "dirac", "gif", "apng"),
    *("wav", "w64", "mp3", "aac", "flac", "aiff", "au", "caf", "amr", "ape", "ac3", "eac3", "dts", "tta", "wv"),
)
INPUT_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}
DEFAULT_BONUS = 5_000_000  # ffmpeg adds this to a stream's rank for the default disposition
MICROSECONDS = 1_000_000
AVI = "avi"  # libavformat's name of the container


@dataclass(frozen=True)
class Streams:
    """Streams of a media file. A cover image does not count as video.

    Attributes:
        video: True if the file has a video stream.
        audio: True if the file has an audio stream.
        sample_format: ffmpeg's name of the decoded audio's sample format, such as ``s16`` or ``fltp``; empty without
            audio.
    """

    video: bool
    audio: bool
    sample_format: str = ""


@dataclass(frozen=True)
class Sound:
    """An audio stream that replaces the one that ffmpeg would select.

    Attributes:
        path: the media file that has it.
        index: its index among all streams of the file.
        streams: ``Streams`` with its properties.
    """

    path: Path
    index: int
    streams: Streams


@dataclass(frozen=True)
class Timing:
    """Time stamps of a video stream.

    Attributes:
        time_base: seconds per tick.
        start: start time of the container in seconds, as ffmpeg up to version 7 computes it.
        audible_start: start time of the container in seconds, as newer versions compute it: in Matroska and WebM it
            excludes the samples that an audio decoder discards at the start.
        rate: nominal frames per second; 0 if unknown.
        duration: most common frame duration in ticks; 0 if unknown.
        disputed: True if versions of ffmpeg take other durations than 5.1 for the frames of this file: it is a
            fragmented MP4 file, or its codec and its container state different frame rates.
        frames: presentation time and duration of each frame in ticks, sorted by time; empty if the file does not
            give reliable durations per frame.
    """

    time_base: Fraction
    start: Fraction
    audible_start: Fraction
    rate: Fraction
    duration: int
    disputed: bool
    frames: list[tuple[int, int]]

    @property
    def skipped(self) -> Fraction:
        """Difference between ``audible_start`` and ``start``, in seconds."""
        return self.audible_start - self.start


def input_flags(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return ffmpeg's arguments for an input file, with options that keep it from opening any other file."""
    options = [part for name, value in INPUT_OPTIONS.items() for part in (f"-{name}", value)]
    return (*options, "-i", absolute(path))


def open_container(path: str | os.PathLike[str]) -> InputContainer:
    """Open a media file to read its packets.

    Returns:
        The open container, a context manager.

    Raises:
        MediaError: the file is not a media file, or its format is not in ``FORMATS``.
    """
    try:
        # tags in another encoding than UTF-8 are common in old files, and nobody reads them here
        return av.open(absolute(path), options=INPUT_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(
            f"{path}: not a media file, or damaged or in an unsupported format ({detail_of(error)})",
            code=reasons.NOT_MEDIA,
        ) from error


def readable_packets(
    container: InputContainer,
    *streams: VideoStream | AudioStream,
    complain: Callable[[str], object] = lambda detail: None,
) -> Iterator[Packet]:
    """Yield packets, and after them the empty ones that end decoding, up to where the file is damaged.

    Args:
        container: the open file.
        streams: whose packets; of all streams if there are none.
        complain: called with what is wrong there.
    """
    packets = container.demux(*streams)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            complain(detail_of(error))
            return
        if packet is None:
            return
        yield packet


def detail_of(error: Exception) -> str:
    """Return what libav says is wrong."""
    return getattr(error, "strerror", None) or str(error)


def probe(path: str | os.PathLike[str]) -> Streams:
    """Return the streams of a file.

    Raises:
        MediaError: the file is not a media file.
    """
    with open_container(path) as container:
        audio = main_audio(container)
        return Streams(
            video=bool(video_streams(container)),
            audio=audio is not None,
            sample_format=sample_format(audio),
        )


def check_streams(path: str | os.PathLike[str]) -> Streams:
    """Return the streams of a file that must have video.

    Raises:
        MediaError: the file is not a media file, or has no video stream.
    """
    streams = probe(path)
    if not streams.video:
        raise MediaError(f"{path}: has no video stream that can be decoded", code=reasons.NO_VIDEO)
    return streams


def chosen_sound(video: Path, *, streams: Streams, audio: str | Path | None, audio_stream: int | None) -> Sound | None:
    """Return the sound that the user chose; None for what ffmpeg selects in the video, if there is any.

    Args:
        video: path of the video.
        streams: its streams.
        audio: media file whose sound replaces the video's own; None to keep that.
        audio_stream: as in ``find_sound``.

    Raises:
        MediaError: the sound cannot be used.
    """
    if audio:
        return find_sound(check_input(audio, advice=": check --audio"), audio_stream=audio_stream)
    return find_sound(video, audio_stream=audio_stream) if streams.audio and audio_stream is not None else None


def find_sound(path: Path, *, audio_stream: int | None) -> Sound:
    """Choose an audio stream of a file.

    Args:
        path: the media file.
        audio_stream: its index among the audio streams; None for the one that ffmpeg selects.

    Raises:
        MediaError: the file is not a media file, or does not have the stream.
    """
    with open_container(path) as container:
        audio = main_audio(container) if audio_stream is None else numbered_audio(container, path, audio_stream)
        if audio is None:
            raise no_sound(path)
        return Sound(path, audio.index, Streams(video=False, audio=True, sample_format=sample_format(audio)))


def no_sound(path: str | os.PathLike[str]) -> MediaError:
    """Return the error for a file that was chosen for its sound, but has none."""
    return MediaError(f"{path}: has no audio stream that can be decoded: name another file with --audio")


def numbered_audio(container: InputContainer, path: str | os.PathLike[str], number: int) -> AudioStream | None:
    """Return the audio stream of this index among the audio streams; None if there is no audio at all.

    Raises:
        MediaError: there is no stream of this index, or it cannot be decoded.
    """
    streams = container.streams.audio
    if not streams:
        return None
    if not 0 <= number < len(streams):
        count = "1 audio stream" if len(streams) == 1 else f"{len(streams)} audio streams"
        raise MediaError(f"{path}: has {count}, so --audio_stream {number} is not one: they count from 0")
    if streams[number].codec_context is None:
        raise MediaError(f"{path}: audio stream {number} cannot be decoded: choose another --audio_stream")
    return streams[number]


def main_video_index(path: str | os.PathLike[str]) -> int:
    """Return the index of ``main_video`` among all streams of a file."""
    with open_container(path) as container:
        return main_video(container).index


def frame_rate(path: str | os.PathLike[str]) -> float:
    """Return the frames per second of ``main_video``, as far as the container tells; 0 if unknown."""
    with open_container(path) as container:
        return float(main_video(container).guessed_rate or 0)


def video_streams(container: InputContainer) -> list[VideoStream]:
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in decodable(container.streams.video) if not stream.disposition & cover]


def decodable(streams: Iterable[AnyStream]) -> list[AnyStream]:
    """Return the streams whose codec is known; PyAV cannot even name the properties of others."""
    return [stream for stream in streams if stream.codec_context is not None]


def main_video(container: InputContainer) -> VideoStream:
    """Return the video stream that ffmpeg selects: the default one, else the largest."""
    return max(video_streams(container), key=lambda s: s.width * s.height + preference(s))


def main_audio(container: InputContainer) -> AudioStream | None:
    """Return the audio stream that ffmpeg selects: the default one, else the one with the most channels."""
    return max(decodable(container.streams.audio), key=lambda s: s.channels + preference(s), default=None)


def preference(stream: VideoStream | AudioStream) -> int:
    return DEFAULT_BONUS if stream.disposition & av.stream.Disposition.default else 0


def sample_format(audio: AudioStream | None) -> str:
    return audio.format.name if audio is not None and audio.format is not None else ""


def read_timing(path: str | os.PathLike[str], *, only_disputed: bool = False) -> Timing:
    """Read the time stamps of a file's main video stream.

    Durations are those of ffmpeg 5.1, because published scores depend on its frame rate conversion: if an MP4 or MOV
    file stores frames out of order or in fragments, each frame has the nominal duration, otherwise the duration in the
    file.

    Args:
        path: the media file.
        only_disputed: read packets only of formats that can be ``disputed``; the ``Timing`` of others has no frames.
    """
    frames: list[tuple[int, int]] = []
    starts: dict[object, Fraction] = {}
    with open_container(path) as container:
        stream, audio = main_video(container), main_audio(container)
        assert stream.time_base is not None, "an input stream has one"
        is_mov = "mov" in container.format.name
        tracks = [] if only_disputed and not is_mov else [stream] if audio is None else [stream, audio]
        for packet in readable_packets(container, *tracks) if tracks else ():
            if not packet.size or packet.pts is None:
                continue
            starts.setdefault(packet.stream, packet.pts * packet.time_base)
            if packet.stream == stream:
                if is_mov and packet.dts != packet.pts:
                    frames = []
                    break
                frames.append((packet.pts, packet.duration or 0))
        is_fragmented = is_mov and len(frames) > stream.frames
        if is_fragmented:
            frames = []
        nominal = nominal_duration(stream, stream.codec_context.framerate or stream.base_rate)
        counts = Counter(duration for _, duration in frames)
        start = audible_start = Fraction(container.start_time or 0, MICROSECONDS)
        if "matroska" in container.format.name:
            start = min([start, *starts.values()])
        return Timing(
            time_base=stream.time_base,
            start=start,
            audible_start=audible_start,
            rate=Fraction(stream.guessed_rate or 0),
            duration=counts.most_common(1)[0][0] if counts else nominal,
            disputed=is_fragmented or (is_mov and not counts and nominal != nominal_duration(stream, stream.base_rate)),
            frames=sorted(frames),
        )


def nominal_duration(stream: VideoStream, rate: Fraction | None) -> int:
    """Return the frame duration at a rate, in ticks of the stream, rounded down; 0 if the rate is unknown."""
    return int(1 / (rate * stream.time_base)) if rate and stream.time_base else 0


def indexed_frames(path: str | os.PathLike[str]) -> int:
    """Return the number of frames in a video file's index; 0 if the file is incomplete."""
    with open_container(path) as container:
        return len(container.streams.video[0].index_entries)
