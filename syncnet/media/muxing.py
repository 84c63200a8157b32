"""Containers that can be written: what they hold of a file, and the streams that are copied into them."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
from av.bitstream import BitStreamFilterContext

from syncnet.media.containers import AVI, main_video, open_container
from syncnet.media.grid import decoded
from syncnet.media.packets import packets_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": AVI,
    ".ts": "mpegts",
}
TS, MOV, MATROSKA = "mpegts", ("mp4", "mov"), ("matroska", "webm")
WITH_CHAPTERS = (*MOV, *MATROSKA)
# libavformat writes every codec into MPEG-TS, but nobody could read others than these.
TS_CODECS = frozenset(
    [
        *("h264", "hevc", "vvc", "av1", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "cavs"),
        *("aac", "aac_latm", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "opus"),
        *("dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "klv", "timed_id3"),
    ]
)
# Edit lists count in this unit, usually milliseconds.
MOV_OPTIONS = {"movie_timescale": "48000"}

# Matroska has covers as attachments: their names and types.
COVERS = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "gif": ("cover.gif", "image/gif"),
    "webp": ("cover.webp", "image/webp"),
}
ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
LENGTHS = b"\x01"  # first byte of the headers of H.264 whose packets are not in Annex B
PRORES = ("apco", "apcs", "apcn", "apch", "ap4h", "ap4x")  # say what the packets are
KEPT_CODEC_TAGS = ("hvc1", "hev1", "dvh1")  # of MP4
HIGHEST_RATE = 120  # frames per second that are no unit of time stamps
SAME_RATE = 0.001  # of the frame rate

AUTOMATIC = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})  # tags
TIMECODE = "timecode"
MOV_LANGUAGES = {"fre": "fra", "rum": "ron", "cze": "ces", "slo": "slk", "swe": "sve"}  # MOV knows few


def container_name(format: str) -> str:
    """Return the name of a container as users know it."""
    return next(suffix[1:] for suffix, name in FORMATS.items() if name == format)


def name_of(stream: Stream) -> str:
    """Return the name of a stream's codec."""
    context = stream.codec_context
    if context is not None:
        return context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"  # sound and pictures of an unknown codec have none


def is_cover(stream: Stream) -> bool:
    """Return True for a picture that stands for the whole file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def is_written_anew(stream: Stream, container: InputContainer, format: str) -> bool:
    """Return True for streams in which MP4 and MOV keep titles of chapters and time codes: tags say the same."""
    if "mov" not in container.format.name or stream.type != "data":
        return False
    return TIMECODE in tags_of(stream) or (bool(container.chapters()) and name_of(stream) == "bin_data")


def hides_order(container: InputContainer) -> bool:
    """Return True for AVI whose main picture has reordered frames, of which libavformat makes up wrong times."""
    picture = main_video(container)
    return container.format.name == AVI and name_of(picture) in ANNEX_B and picture.codec_context.has_b_frames


def holds(format: str, stream: Stream) -> bool:
    """Return True if a container can hold a stream as it is, which a header of that stream alone tells."""
    name = name_of(stream)
    if format == TS and name not in TS_CODECS:
        return False
    if stream.type == "attachment":
        return format == "matroska"
    if is_cover(stream) and not (format == "mp4" or (format == "matroska" and name in COVERS)):
        return False
    if is_cover(stream) and format == "matroska":
        return True
    if format == AVI and stream.type not in ("video", "audio"):
        return False
    return can_begin(format, lambda out: add_copy(out, stream))


def can_begin(format: str, add: Callable[[OutputContainer], object]) -> bool:
    """Return True if a container can be begun with the stream that ``add`` adds."""
    out = av.open(io.BytesIO(), "w", format=format)
    try:
        add(out)
        out.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def add_copy(out: OutputContainer, stream: Any) -> Stream | None:
    """Add a stream that is copied; return None for one that has no packets."""
    if stream.type == "attachment":
        out.add_stream_from_template(stream)
        return None
    if out.format.name in MATROSKA and is_cover(stream):
        name, kind = COVERS[name_of(stream)]
        with open_container(stream.container.name) as container:
            data = next(packet for packet in packets_of(container) if packet.stream.index == stream.index)
            out.add_attachment(stream.metadata.get("filename", name), kind, bytes(data))
        return None
    added = out.add_stream_from_template(stream, opaque=True)
    copy_tags(stream, added, out)
    added.disposition = stream.disposition
    if stream.type == "video" and not is_cover(stream):
        rate = stream.average_rate or stream.guessed_rate
        base = stream.base_rate if (stream.base_rate or 0) <= HIGHEST_RATE else rate  # of all frames' times
        if rate:
            added.codec_context.framerate = rate
        if stream.sample_aspect_ratio:
            added.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
        if out.format.name == AVI and base:
            added.time_base = 1 / base
        if annex_b_needed(out, stream):
            added.codec_context.extradata = None  # the filter puts it in front of key frames
        tag = stream.codec_tag
        if len(tag) == 4 and tag.isprintable() and keeps_codec_tag(tag, stream.container.format.name, out.format.name):
            added.codec_context.codec_tag = tag
    return added


def keeps_codec_tag(tag: str, source: str, format: str) -> bool:
    """Return True if a container can give a picture the same four letters as the source: for players that mind."""
    if tag in PRORES:
        return format in ("mov", "matroska")
    if "mov" in source and format in MOV:
        return format == "mov" or tag in KEPT_CODEC_TAGS
    return source == format == AVI


def annex_b_needed(out: OutputContainer, stream: Any) -> bool:
    """Return True for packets that AVI does not take as they are, and its muxer does not convert."""
    if out.format.name != AVI or name_of(stream) not in ANNEX_B:
        return False
    return (stream.codec_context.extradata or b"")[:1] == LENGTHS


def copy_tags(stream: Stream, added: Stream, out: OutputContainer) -> None:
    """Copy the tags of a stream, as the container needs them."""
    added.metadata.update({key: value for key, value in stream.metadata.items() if not is_statistic(key)})
    if out.format.name == "mov" and stream.language in MOV_LANGUAGES:
        added.metadata["language"] = MOV_LANGUAGES[stream.language]


def is_statistic(key: str) -> bool:
    """Return True for tags of Matroska that describe the encoded stream."""
    return key.upper().startswith(("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS", "ENCODER"))


def add_tags_and_chapters(out: OutputContainer, container: InputContainer, *, origin: Fraction) -> None:
    """Copy the tags and chapters of a file, whose streams have been added; ``origin`` becomes time 0."""
    # MP4 and MOV would give covers the file's time code too
    timed = out.format.name in MOV and any(TIMECODE in tags_of(stream) for stream in out.streams)
    left_out = AUTOMATIC | {TIMECODE} if timed else AUTOMATIC
    out.metadata.update({key: value for key, value in container.metadata.items() if key.lower() not in left_out})
    if out.format.name in WITH_CHAPTERS:
        out.set_chapters([moved_chapter(chapter, origin) for chapter in container.chapters()])


def moved_chapter(chapter: Any, origin: Fraction) -> Any:
    """Return a chapter as PyAV describes it, after ``origin`` has become time 0."""
    ticks = round(origin / chapter["time_base"])
    # Matroska refuses times before 0
    return {**chapter, "start": max(0, chapter["start"] - ticks), "end": max(0, chapter["end"] - ticks)}


class Copier:
    """Writes the packets of a stream.

    Args:
        out: the container, which has been begun, so that the streams' units of time are known.
        stream: the stream of the source.
        added: the stream of the output.
        offset: seconds to add to time stamps.
        decoding: as in ``Survey``.
    """

    def __init__(
        self,
        out: OutputContainer,
        stream: Stream,
        added: Stream,
        *,
        offset: Fraction,
        decoding: tuple[int, int] | None,
    ) -> None:
        self.out, self.added = out, added
        self.unit = cast("Fraction", added.time_base)
        self.scale = cast("Fraction", stream.time_base) / self.unit
        self.ticks = round(offset / self.unit)
        self.decoding = decoding
        self.last: int | None = None
        self.least = 1 if stream.type in ("video", "audio") else 0  # ticks from packet to packet
        name = name_of(stream)
        self.filter = BitStreamFilterContext(ANNEX_B[name], stream) if annex_b_needed(out, stream) else None

    def write(self, packet: Packet) -> None:
        """Write a packet."""
        for found in [packet] if self.filter is None else self.filter.filter(packet):
            self._move(found)
            found.stream = self.added
            self.out.mux_one(found)

    def _move(self, packet: Packet) -> None:
        """Move a packet's time stamps, and make those of decoding grow, as containers demand."""
        length = round((packet.duration or 0) * self.scale)
        if packet.pts is not None:
            packet.pts = round(packet.pts * self.scale) + self.ticks
        if packet.dts is not None:
            packet.dts = round(packet.dts * self.scale) + self.ticks
        elif self.last is not None:
            packet.dts = self.last + (length or 1)
        elif self.decoding is not None:
            first, before = self.decoding
            packet.dts = round(first * self.scale) + self.ticks - before * (length or 1)
        else:
            packet.dts = packet.pts
        packet.duration, packet.time_base = length, self.unit
        if packet.dts is None:
            return
        if self.last is not None and packet.dts < self.last + self.least:
            packet.dts = self.last + self.least
            packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)
        self.last = packet.dts


def lost(source: Path, output: Path, *, format: str, indices: Collection[int]) -> Iterator[str]:
    """Yield a line for everything about tags and rotation that the container of the output does not hold.

    Args:
        source, output: the files.
        format: ffmpeg's name of the container.
        indices: of the streams of the source that were written.
    """
    name = container_name(format)
    with open_container(source) as before, open_container(output) as after:
        missing = tags_of(before) - tags_of(after).union(*map(tags_of, after.streams))
        if missing:
            yield f"tags are left out: {name} does not hold {', '.join(sorted(missing))}"
        for kept, old in zip(tagged(after), (stream for stream in tagged(before) if stream.index in indices)):
            missing = {"language", "title"} & (tags_of(old) - tags_of(kept))
            if missing:
                yield f"stream {old.index}: its {' and '.join(sorted(missing))} left out: {name} does not hold it"
        if format in MATROSKA:
            rate, found = (float(main_video(container).average_rate or 0) for container in (before, after))
            if abs(rate - found) > SAME_RATE * rate:  # PyAV before 18 does not pass it on
                yield f"the frame rate, {rate:.2f}, is not written, so that readers take it for {found:.2f}"
        rotation = rotation_of(before)
        if rotation != rotation_of(after):
            yield f"rotation by {rotation} degrees is left out: {name} does not hold it"


def tagged(container: InputContainer) -> Iterator[Stream]:
    """Yield the streams whose tags matter to players, which all containers keep in order."""
    for stream in container.streams:
        if stream.type in ("video", "audio", "subtitle") and not is_cover(stream):
            yield stream


def tags_of(item: Any) -> set[str]:
    """Return the names of the tags of a container or stream that are not written by programs."""
    return {key.lower() for key, value in item.metadata.items() if value != "und"} - AUTOMATIC


def rotation_of(container: InputContainer) -> int:
    """Return the degrees by which the main picture is to be turned."""
    frame = next(decoded(container, main_video(container)), None)
    return 0 if frame is None else frame.rotation
