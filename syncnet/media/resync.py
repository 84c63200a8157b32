"""Move the sound of a media file against its picture, which is copied bit for bit.

PyAV does all of it: it keeps rotation, colour tags, chapters and covers alike whatever ffmpeg is installed, and encodes
while it copies, without a second file.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.codec import Codec, UnknownCodecError

from syncnet import reasons
from syncnet.constants import FRAME_RATE
from syncnet.errors import DiskFullError, MediaError, SyncNetError, UsageError, no_space
from syncnet.media.containers import (
    MICROSECONDS,
    check_streams,
    main_video,
    main_video_index,
    open_container,
    video_streams,
)
from syncnet.media.ffmpeg import absolute
from syncnet.media.grid import Grid, decoded
from syncnet.media.sound import placed
from syncnet.progress import Progress, silent
from syncnet.results.layout import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

COPY = "copy"  # of --audio_codec: move time stamps alone

FORMATS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
}
AVI, TS, MOV, MATROSKA = "avi", "mpegts", ("mp4", "mov"), ("matroska", "webm")
ANNEX_B = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
PRORES = ("apco", "apcs", "apcn", "apch", "ap4h", "ap4x")  # say what the packets are
KEPT_CODEC_TAGS = ("hvc1", "hev1", "dvh1")  # of MP4
LENGTHS = b"\x01"  # first byte of the headers of H.264 whose packets are not in Annex B
SAME_RATE = 0.001  # of the frame rate
HIGHEST_RATE = 120  # frames per second that are no unit of time stamps
# Edit lists count in this unit, usually milliseconds.
MUXER_OPTIONS = {format: {"movie_timescale": "48000"} for format in MOV}
TIMECODE = "timecode"
# Matroska has covers as attachments: their names and types.
COVERS = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "gif": ("cover.gif", "image/gif"),
    "webp": ("cover.webp", "image/webp"),
}
MOV_LANGUAGES = {"fre": "fra", "rum": "ron", "cze": "ces", "slo": "slk", "swe": "sve"}  # MOV knows few
AUTOMATIC = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})  # tags
OPUS = "opus"
WITH_CHAPTERS = (*MOV, *MATROSKA)
# libavformat writes every codec into MPEG-TS, but nobody could read others than these.
TS_CODECS = frozenset(
    [
        *("h264", "hevc", "vvc", "av1", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "cavs"),
        *("aac", "aac_latm", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "opus"),
        *("dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "klv", "timed_id3"),
    ]
)

ENCODERS = {"mp3": "libmp3lame", "opus": "libopus"}  # of another name than their codec
# What replaces a codec that cannot be written, best first: those of the same family, then the usual ones.
SUBSTITUTES = {
    "vorbis": ("libopus",),
    "wmapro": ("wmav2",),
    "dts": ("ac3", "eac3"),
    "truehd": ("flac", "alac"),
    "mlp": ("flac", "alac"),
}
UNFIT = ((AVI, "wmav1"), (AVI, "wmav2"))  # whose first frame AVI's readers lose
LOSSY = ("aac", "libopus", "libmp3lame", "ac3", "mp2")
LOSSLESS = ("flac", "alac", "pcm_s24le")
LOSSLESS_OF = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s24le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
NOT_WRITTEN = ("HE-AAC", "HE-AACv2", "LD", "ELD", "Main", "SSR", "LTP", "xHE-AAC")  # profiles of AAC

USUAL_BIT_RATE = 96_000  # per channel, where none is declared
OPUS_BIT_RATE = 256_000  # per channel, the highest
ROUNDING = 0.97  # of a bit rate that was measured
MPEG1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # up to 24 kHz
BIT_RATES = {
    "libmp3lame": MPEG1,
    "mp2": (*MPEG1, 384),
    "ac3": (*MPEG1, 384, 448, 512, 576, 640),
}
LOW_BIT_RATES = {"libmp3lame": MPEG2, "mp2": MPEG2}
LOW_SAMPLE_RATE = 24_000
USUAL_RATE = 48_000

SHORT = 0.1  # seconds by which a picture is late because of an encoder's delay alone

BLOCK = 16_384  # samples of silence at a time
LARGEST_RATE = 500_000  # of the resampler, whose ratio is that of two whole numbers
REHEARSAL = 2.0  # seconds
REHEARSALS = 3
SAME_SAMPLES = 4  # a decoder's delay may be wrong by as many, as measured
SAME_TIME = 0.0006  # seconds; time stamps of Matroska are whole milliseconds


@dataclass(frozen=True)
class Shift:
    """By how much sound is moved: what a player plays at time t, it plays ``delay_ms_at(t)`` later.

    Attributes:
        delay_ms: milliseconds, negative to move the sound to an earlier time; with a drift, those at ``at_s``.
        drift_ms_per_min: milliseconds by which the delay grows in a minute.
        at_s: time in a player, in seconds.
    """

    delay_ms: float
    drift_ms_per_min: float = 0.0
    at_s: float = 0.0

    @property
    def stretch(self) -> Fraction:
        """Seconds that a second of sound lasts afterwards."""
        return 1 + Fraction(self.drift_ms_per_min) / 60_000

    def delay_ms_at(self, time: float) -> float:
        """Return the milliseconds by which the sound at a time in a player is delayed."""
        return self.delay_ms + self.drift_ms_per_min * (time - self.at_s) / 60


@dataclass(frozen=True)
class Moved:
    """What ``move_sound`` wrote.

    Attributes:
        codecs: per audio stream the name of the codec that it was written with.
        notes: one line for everything that could not be kept as it was.
    """

    codecs: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What the packets of a file tell.

    Attributes:
        packets: their number.
        seconds: length of each stream.
        size: bytes of each stream.
        decoding: first time stamp of decoding of each stream, in its ticks, and the number of packets before it, which
            have none where frames are reordered and the container stores none.
        start, end: time stamps of the start and end of the main picture, in seconds.
        hides: the picture starts with frames that are decoded but not shown, after a cut without encoding.
        complaint: what cannot be read at the end; empty if nothing.
    """

    packets: int
    seconds: dict[int, float]
    size: dict[int, int]
    decoding: dict[int, tuple[int, int]]
    start: Fraction
    end: Fraction
    hides: bool
    complaint: str


@dataclass(frozen=True)
class Clock:
    """Times in the source, in seconds by its own time stamps.

    Attributes:
        origin: becomes 0.
        start: start of the picture.
        player: start of a player's clock.
        end: end of the picture.
    """

    origin: Fraction
    start: Fraction
    player: Fraction
    end: Fraction


@dataclass(frozen=True)
class Track:
    """How an audio stream is written.

    Attributes:
        index: of the stream in the source.
        encoder: PyAV's name.
        source_rate, sample_rate: samples per second, before and after.
        layout: of the channels.
        format: planar sample format.
        bit_rate: 0 for lossless codecs.
        cut: samples to leave out at the front, in whose place a reader finds the encoder's delay.
        late: samples by which time stamps are set later.
    """

    index: int
    encoder: str
    source_rate: int
    sample_rate: int
    layout: str
    format: str
    bit_rate: int
    cut: int = 0
    late: int = 0


def move_sound(
    source: Path, output: Path, *, shift: Shift, audio_codec: str | None = None, progress: Progress = silent
) -> Moved:
    """Write a copy of a media file whose sound is moved.

    The sound begins and ends with the picture, with silence in front or without its first samples. The output appears
    complete or not at all.

    Args:
        source: the file; all its audio streams move together.
        output: the new file; its suffix gives the container.
        shift: by how much.
        audio_codec: ffmpeg's name of the codec of all audio streams; None for those of the source, ``COPY`` to move
            time stamps alone.
        progress: shows how many packets are written.

    Raises:
        MediaError: the source cannot be read, or has no audio.
        UsageError: the container is not one of those that can be written, or cannot hold the codec, or ``COPY`` with a
            drift.
        DiskFullError: the disk is full.
        SyncNetError: the output cannot be written for another reason.
    """
    format = check_target(output, audio_codec=audio_codec)
    check_holds(source, format=format, audio_codec=audio_codec)
    if audio_codec == COPY and shift.drift_ms_per_min:
        raise UsageError(f"--audio_codec {COPY}: cannot take out a drift, which needs new samples: choose a codec")
    if not check_streams(source).audio:
        raise MediaError(f"{source}: has no audio stream that can be decoded", code=reasons.NO_AUDIO)
    main = main_video_index(source)
    found = survey(source, main)
    with Grid(source) as grid:
        player = Fraction(grid.container.start_time or 0, MICROSECONDS)
        # AVI has no time stamps but those of decoding, whose first is that of the first picture
        delay = found.start - player if grid.container.format.name == AVI else Fraction(grid.delay)
        start = player + max(Fraction(0), delay).limit_denominator(MICROSECONDS)
    hidden = start - found.start if found.hides and format not in MOV else Fraction(0)
    start -= hidden
    late = start - player > SHORT and format != AVI
    clock = Clock(player if late else start, start, player, found.end)
    try:
        plan = Plan(source, format, clock, shift, main, audio_codec, found)
        with new_file(output) as temporary:
            plan.write(absolute(temporary), progress=progress)
            notes = (*plan.notes, *lost(source, temporary, plan))
    except av.FFmpegError as error:
        kind = DiskFullError if no_space(error) else SyncNetError  # type: ignore[arg-type]
        raise kind(f"{output}: cannot write it ({error.strerror or error})") from error
    if hidden:
        name = container_name(format)
        notes = (*notes, f"{name} shows {float(hidden):.2f} s of pictures at the start that the source hides")
    return Moved(tuple(plan.codecs()), notes)


def check_target(output: Path, *, audio_codec: str | None) -> str:
    """Return ffmpeg's name of the container that a name asks for.

    Args:
        output, audio_codec: as in ``move_sound``.

    Raises:
        UsageError: it cannot be written, or cannot hold the codec.
    """
    format = FORMATS.get(output.suffix.lower())
    if format is None:
        raise UsageError(f"{output}: cannot be written: choose a name that ends in one of {', '.join(FORMATS)}")
    if audio_codec == COPY and format == AVI:
        raise UsageError(f"{output}: AVI has no time stamps that --audio_codec {COPY} could move: choose a codec")
    encoder = None if audio_codec in (None, COPY) else ENCODERS.get(audio_codec or "", audio_codec)
    if encoder and not can_write(encoder, format):
        raise UsageError(
            f"--audio_codec {audio_codec}: cannot be written into {container_name(format)}: choose another"
        )
    return format


def check_holds(source: Path, *, format: str, audio_codec: str | None) -> None:
    """Check that a container can hold what is copied of picture and sound.

    Args:
        source, audio_codec: as in ``move_sound``.
        format: ffmpeg's name of the container, from ``check_target``.

    Raises:
        MediaError: the source cannot be read.
        UsageError: the container cannot hold them.
    """
    with open_container(source) as container:
        pictures = [main_video(container)] if video_streams(container) else []  # without one, it cannot be measured
        for stream in pictures:
            if not holds(format, stream):
                raise UsageError(
                    f"{source}: {container_name(format)} cannot hold its picture ({name_of(stream)}): choose another "
                    "container for the output"
                )
        for sound in container.streams.audio if audio_codec == COPY else ():
            if not holds(format, sound):
                raise UsageError(
                    f"{source}: {container_name(format)} cannot hold its sound ({name_of(sound)}) as it is: choose "
                    "another --audio_codec"
                )


def survey(path: Path, main: int) -> Survey:
    """Read all packets of a file.

    Args:
        path: the file.
        main: index of the main picture.
    """
    packets, hides, size, before = 0, False, dict[int, int](), dict[int, int]()
    decoding, first, last = dict[int, tuple[int, int]](), dict[int, Fraction](), dict[int, Fraction]()
    with open_container(path) as container:
        usual = 1 / Fraction(main_video(container).guessed_rate or FRAME_RATE)
        complaints: list[str] = []
        for packet in packets_of(container, complaints.append):
            packets += 1
            index = packet.stream.index
            size[index] = size.get(index, 0) + packet.size
            if packet.dts is None:
                before[index] = before.get(index, 0) + 1
            else:
                decoding.setdefault(index, (packet.dts, before.get(index, 0)))
            stamp = time_of(packet, container)
            if stamp is None:
                continue
            hides |= packet.is_discard and index == main
            length = (packet.duration or 0) * packet.time_base or (usual if index == main else 0)
            first[index] = min(first.get(index, stamp), stamp)
            last[index] = max(last.get(index, stamp), stamp + length)
    seconds = {index: float(last[index] - first[index]) for index in first}
    zero = Fraction(0)
    complaint = "".join(complaints)
    return Survey(packets, seconds, size, decoding, first.get(main, zero), last.get(main, zero), hides, complaint)


def time_of(packet: Packet, container: InputContainer) -> Fraction | None:
    """Return a packet's time stamp in seconds; AVI has only the order of decoding."""
    stamp = packet.dts if container.format.name == AVI else packet.pts
    return None if stamp is None else stamp * packet.time_base


def packets_of(container: InputContainer, complain: Callable[[str], None] = lambda detail: None) -> Iterator[Packet]:
    """Yield the packets of a file, up to where it is damaged, which ``complain`` is told."""
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            complain(getattr(error, "strerror", None) or str(error))
            return
        if packet is None:
            return
        if packet.size:
            yield packet


class Plan:
    """What becomes of each stream of a file.

    Args:
        source: the file.
        format: ffmpeg's name of the container to write.
        clock: its times.
        shift: by how much the sound moves.
        main: index of the main picture.
        audio_codec: as in ``move_sound``.
        found: its packets.

    Attributes:
        tracks: audio streams that are encoded.
        copied: indices of the streams that are copied.
        notes: as in ``Moved``.
    """

    def __init__(
        self,
        source: Path,
        format: str,
        clock: Clock,
        shift: Shift,
        main: int,
        audio_codec: str | None,
        found: Survey,
    ) -> None:
        self.source, self.format, self.clock, self.shift, self.main = source, format, clock, shift, main
        self.found = found
        self.notes: list[str] = []
        if found.complaint:
            self.notes.append(f"the source is damaged after {float(found.end):.1f} s: {found.complaint}")
        self.tracks: list[Track] = []
        self.copied: list[int] = []
        self.moved: set[int] = set()  # audio streams among those copied
        self.names: dict[int, str] = {}
        with open_container(source) as container:
            self.chapters = bool(container.chapters())
            if self.chapters and format not in WITH_CHAPTERS:
                self.notes.append(f"chapters are left out: {container_name(format)} has none")
            for stream in container.streams:
                if stream.type == "audio" and stream.codec_context is not None:
                    self._add_audio(stream, audio_codec)  # type: ignore[arg-type]
                elif is_written_anew(stream, container, format):
                    continue
                elif holds(format, stream):
                    self.copied.append(stream.index)
                else:
                    self.notes.append(
                        f"stream {stream.index} ({stream.type}, {name_of(stream)}) is left out: "
                        f"{container_name(format)} cannot hold it"
                    )
        if self.tracks and all(self._rehearse() for _ in range(REHEARSALS)):
            self.notes.append(f"{container_name(format)} may play the sound off by up to a frame of its codec")

    def codecs(self) -> Iterator[str]:
        """Yield the codec of each audio stream that is written."""
        for index in sorted({track.index for track in self.tracks} | self.moved):
            yield self.names[index]

    def _add_audio(self, stream: AudioStream, audio_codec: str | None) -> None:
        name, number = name_of(stream), stream.index
        if audio_codec == COPY:
            self.copied.append(number)
            self.moved.add(number)
            self.names[number] = name
            return
        context = stream.codec_context
        profile = context.profile or ""
        encoder = choose_encoder(
            name,
            exact=lossless(context.codec),
            sample_format=context.format.name,
            format=self.format,
            wanted=audio_codec,
        )
        codec = Codec(encoder, "w")
        self.names[number] = codec.canonical_name
        replaced = codec.canonical_name != name or profile in NOT_WRITTEN
        if replaced and audio_codec is None:
            what = f"{name} ({profile})" if profile in NOT_WRITTEN else name
            refused = can_encode(ENCODERS.get(name, name)) and profile not in NOT_WRITTEN
            reason = f"{container_name(self.format)} cannot hold {what}" if refused else f"{what} cannot be encoded"
            becomes = "aac (LC)" if codec.canonical_name == name else codec.canonical_name
            self.notes.append(f"stream {number}: sound becomes {becomes}: {reason}")
        self.tracks.append(
            Track(
                index=number,
                encoder=encoder,
                source_rate=context.sample_rate,
                sample_rate=nearest_rate(codec, context.sample_rate),
                layout=layout_of(context),
                format=planar_format(codec, context.format.name),
                bit_rate=0 if lossless(codec) else self._bit_rate(stream, encoder, replaced=replaced),
            )
        )

    def _bit_rate(self, stream: AudioStream, encoder: str, *, replaced: bool) -> int:
        context = stream.codec_context
        usual = USUAL_BIT_RATE * context.channels
        if lossless(context.codec):
            return allowed_bit_rate(encoder, usual, channels=context.channels, sample_rate=context.sample_rate)
        seconds = self.found.seconds.get(stream.index)
        measured = int(self.found.size[stream.index] * 8 / seconds) if seconds else 0
        least = usual if replaced or not context.bit_rate else 0
        wanted = max(context.bit_rate or 0, measured, least)
        return allowed_bit_rate(encoder, wanted, channels=context.channels, sample_rate=context.sample_rate)

    def _rehearse(self) -> bool:
        """Write the start with noise as sound, and measure by how much readers find it late.

        Delays of encoders, and what containers tell of them, depend on the versions of the libraries.

        Returns:
            True if a track changed, so that another rehearsal is of use.
        """
        file = io.BytesIO()
        end = min(self.clock.end, self.clock.start + Fraction(REHEARSAL))
        self._write(file, end=end, sound=rehearsal_noise, progress=silent, rehearsal=True)
        changed = False
        for position, track in enumerate(self.tracks):
            samples, stamp = heard(io.BytesIO(file.getvalue()), position, track)
            if not len(samples):
                continue
            plain = lateness(samples)
            late = plain + round(stamp * track.sample_rate)
            if abs(plain) > SAME_SAMPLES and track.cut + plain >= 0:
                self.tracks[position] = replace(track, cut=track.cut + plain)
                changed = True
            elif abs(late) > SAME_TIME * track.sample_rate:
                self.tracks[position] = replace(track, late=track.late - late)
                changed = True
        return changed

    def write(self, target: str, *, progress: Progress) -> None:
        """Write the output.

        Raises:
            av.FFmpegError: it cannot be written.
        """
        self._write(target, end=self.clock.end, sound=self._sound, progress=progress)

    def _sound(self, track: Track, count: int) -> Generator[np.ndarray]:
        """Yield the moved sound of a track, sample by sample from the start of the picture."""
        stretch = self.shift.stretch
        ahead = self.clock.start - self.clock.player  # of the picture, in a player
        # what is played with the first picture: t + delay(t) = ahead
        first = ahead - Fraction(self.shift.delay_ms) / 1000 + (stretch - 1) * Fraction(self.shift.at_s)
        first = first / stretch - ahead
        number = round(first * track.source_rate)
        with open_container(self.source) as container:
            for stream in container.streams:
                if stream.index != track.index:
                    stream.discard = av.stream.Discard.all
            pieces = placed(
                container,
                container.streams[track.index],  # type: ignore[arg-type]
                zero=float(self.clock.start),
                before=max(0, -number),
                sample_rate=track.source_rate,
                layout=track.layout,
                format=track.format,
            )
            blocks = contiguous(pieces, first=number, track=track)
            ratio = stretch * track.sample_rate / track.source_rate
            if ratio != 1:
                blocks = resampled(blocks, ratio=ratio, track=track)
            yield from exactly(blocks, count, track)

    def _write(
        self,
        target: str | io.BytesIO,
        *,
        end: Fraction,
        sound: Callable[[Track, int], Generator[np.ndarray]],
        progress: Progress,
        rehearsal: bool = False,
    ) -> None:
        """Write the streams, with what ``sound`` yields for each track up to a time of the source.

        A rehearsal ends there.
        """
        with (
            open_container(self.source) as container,
            av.open(target, "w", format=self.format, options=MUXER_OPTIONS.get(self.format, {})) as out,
            contextlib.ExitStack() as stack,
        ):
            streams, encoders = self._add_streams(container, out)
            writers = []
            for track in self.tracks:
                blocks = stack.enter_context(contextlib.closing(sound(track, self._samples(track, end))))
                writers.append(TrackWriter(out, streams[track.index], encoders[track.index], track, self.clock, blocks))
            out.start_encoding()  # now the streams' units of time are known
            delay = Fraction(self.shift.delay_ms) / 1000
            copiers = {
                index: Copier(
                    out,
                    container.streams[index],
                    streams[index],
                    offset=(delay if index in self.moved else 0) - self.clock.origin,
                    decoding=self.found.decoding.get(index),
                )
                for index in self.copied
                if index in streams
            }
            for packet in progress(packets_of(container), total=self.found.packets, desc="writing"):
                index = packet.stream.index
                stamp = time_of(packet, container)
                if rehearsal and stamp is not None and stamp >= end:
                    if index == self.main and stamp >= end + REHEARSAL:
                        break
                    continue
                if index == self.main and stamp is not None:
                    for writer in writers:
                        writer.write(until=stamp)
                if index in copiers:
                    copiers[index].write(packet)
            for writer in writers:
                writer.finish()

    def _samples(self, track: Track, end: Fraction) -> int:
        return max(1, round((end - self.clock.start) * track.sample_rate))

    def _add_streams(
        self, container: InputContainer, out: OutputContainer
    ) -> tuple[dict[int, Stream], dict[int, AudioCodecContext]]:
        """Add streams, chapters and tags; return streams and encoders by the stream's index in the source."""
        encoders: dict[int, AudioCodecContext] = {}
        tracks = {track.index: track for track in self.tracks}
        streams: dict[int, Stream] = {}
        for stream in container.streams:
            if stream.index in tracks:
                streams[stream.index], encoders[stream.index] = add_track(out, stream, tracks[stream.index])
            elif stream.index in self.copied:
                added = add_copy(out, stream)
                if added is not None:
                    streams[stream.index] = added
        # MP4 and MOV would give covers the file's time code too
        timed = self.format in MOV and any(TIMECODE in tags_of(stream) for stream in streams.values())
        left_out = AUTOMATIC | {TIMECODE} if timed else AUTOMATIC
        out.metadata.update({key: value for key, value in container.metadata.items() if key.lower() not in left_out})
        if self.chapters and self.format in WITH_CHAPTERS:
            out.set_chapters([moved_chapter(chapter, self.clock.origin) for chapter in container.chapters()])
        return streams, encoders


def lost(source: Path, output: Path, plan: Plan) -> Iterator[str]:
    """Yield a line for everything about tags and rotation that the container of the output does not hold."""
    name = container_name(plan.format)
    with open_container(source) as before, open_container(output) as after:
        missing = tags_of(before) - tags_of(after).union(*map(tags_of, after.streams))
        if missing:
            yield f"tags are left out: {name} does not hold {', '.join(sorted(missing))}"
        indices = {track.index for track in plan.tracks} | set(plan.copied)
        for kept, old in zip(tagged(after), (stream for stream in tagged(before) if stream.index in indices)):
            missing = {"language", "title"} & (tags_of(old) - tags_of(kept))
            if missing:
                yield f"stream {old.index}: its {' and '.join(sorted(missing))} left out: {name} does not hold it"
        if plan.format in MATROSKA:
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
    frame = next(decoded(container, main_video(container), lambda detail: None), None)
    return 0 if frame is None else frame.rotation


class Copier:
    """Writes the packets of a stream.

    Args:
        out: the container, whose header is written.
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
        assert stream.time_base is not None and added.time_base is not None, "both are open"
        self.unit: Fraction = added.time_base
        self.scale = stream.time_base / self.unit
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


class TrackWriter:
    """Encodes a track and writes it, as far as the picture is written.

    Args:
        out: the container.
        stream: its stream.
        encoder: of the track.
        track: how it is written.
        clock: times of the source.
        blocks: the samples.
    """

    def __init__(
        self,
        out: OutputContainer,
        stream: Stream,
        encoder: AudioCodecContext,
        track: Track,
        clock: Clock,
        blocks: Iterator[np.ndarray],
    ) -> None:
        self.out, self.stream, self.encoder, self.track, self.clock = out, stream, encoder, track, clock
        self.blocks = blocks
        self.zero = round((clock.start - clock.origin) * track.sample_rate)
        self.done = 0  # samples

    def write(self, *, until: Fraction) -> None:
        """Write the samples up to a time of the source."""
        while self.clock.start + Fraction(self.done, self.track.sample_rate) <= until:
            block = next(self.blocks, None)
            if block is None:
                return
            self._encode(block)

    def finish(self) -> None:
        """Write the rest."""
        for block in self.blocks:
            self._encode(block)
        self._mux(self.encoder.encode(None))

    def _encode(self, block: np.ndarray) -> None:
        skipped = max(0, self.track.cut - self.done)
        at = self.done + min(skipped, block.shape[1])
        self.done += block.shape[1]
        block = block[:, skipped:]
        if not block.shape[1]:
            return
        frame = frame_of(block, self.track, at=self.zero + at + self.track.late)
        self._mux(self.encoder.encode(frame))

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            if not packet.size and self.out.format.name == AVI:
                continue  # FLAC's last one is a new header
            packet.stream = self.stream
            self.out.mux_one(packet)


def name_of(stream: Stream) -> str:
    """Return the name of a stream's codec."""
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else stream.name or "unknown"


def container_name(format: str) -> str:
    return next(suffix[1:] for suffix, name in FORMATS.items() if name == format)


def is_written_anew(stream: Stream, container: InputContainer, format: str) -> bool:
    """Return True for streams in which MP4 and MOV keep titles of chapters and time codes: tags say the same."""
    if "mov" not in container.format.name or stream.type != "data":
        return False
    return TIMECODE in tags_of(stream) or (bool(container.chapters()) and name_of(stream) == "bin_data")


def is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


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
    out = av.open(io.BytesIO(), "w", format=format)
    try:
        add_copy(out, stream)
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


def add_track(out: OutputContainer, stream: Stream, track: Track) -> tuple[Stream, AudioCodecContext]:
    """Add a stream that is encoded; return it and its encoder."""
    if out.format.name in MATROSKA and track.bit_rate and track.encoder != ENCODERS[OPUS]:
        # Only FFmpeg 8 and newer heed the delay that Matroska declares for codecs other than Opus. A stream from NUT
        # has none to declare, so that the rehearsal finds it and has it cut off.
        file = io.BytesIO()
        with av.open(file, "w", format="nut") as nut:
            context = add_encoder(nut, track).codec_context
            nut.mux(context.encode(frame_of(silence(track, BLOCK), track, at=0)))
            nut.mux(context.encode(None))
        file.seek(0)
        added = out.add_stream_from_template(av.open(file).streams[0], opaque=True)
        context = add_encoder(av.open(io.BytesIO(), "w", format="nut"), track).codec_context
    else:
        added = add_encoder(out, track)
        context = added.codec_context
    copy_tags(stream, added, out)
    added.disposition = stream.disposition
    return added, context


def add_encoder(out: OutputContainer, track: Track) -> Any:
    """Add a stream with a track's encoder."""
    added = out.add_stream(track.encoder, rate=track.sample_rate)
    context: Any = added.codec_context
    context.layout = track.layout
    context.format = encoder_format(Codec(track.encoder, "w"), track.format)
    context.time_base = added.time_base = Fraction(1, track.sample_rate)
    if track.bit_rate:
        context.bit_rate = track.bit_rate
    return added


def frame_of(samples: np.ndarray, track: Track, *, at: int) -> av.AudioFrame:
    """Return samples, channels x N, as a frame that starts with sample ``at``."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=track.format, layout=track.layout)
    frame.sample_rate, frame.pts, frame.time_base = track.sample_rate, at, Fraction(1, track.sample_rate)
    return frame


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


def moved_chapter(chapter: Any, origin: Fraction) -> Any:
    ticks = round(origin / chapter["time_base"])
    return {**chapter, "start": max(0, chapter["start"] - ticks), "end": max(0, chapter["end"] - ticks)}


def lossless(codec: Codec) -> bool:
    return codec.lossless and (not codec.lossy or codec.canonical_name == "wavpack")


def choose_encoder(name: str, *, exact: bool, sample_format: str, format: str, wanted: str | None) -> str:
    """Choose the encoder of an audio stream: that of its codec, or the nearest that can be written.

    Args:
        name: its codec.
        exact: that is lossless.
        sample_format: of its decoder.
        format: ffmpeg's name of the container to write.
        wanted: codec or encoder to use instead, from ``check_target``; None for the stream's own.

    Returns:
        PyAV's name of the encoder.
    """
    if wanted is not None:
        return ENCODERS.get(wanted, wanted)
    kind = sample_format.removesuffix("p")
    family = (ENCODERS.get(name, name), *SUBSTITUTES.get(name, ()))
    if name.startswith("pcm_"):
        family = (*family, LOSSLESS_OF.get(kind, "pcm_s16le"))
    usual = (*LOSSLESS, LOSSLESS_OF.get(kind, "pcm_s16le"), *LOSSY) if exact else LOSSY
    return next(encoder for encoder in (*family, *usual) if can_write(encoder, format))


def can_encode(encoder: str) -> bool:
    try:
        codec = Codec(encoder, "w")
    except UnknownCodecError:
        return False
    return codec.type == "audio" and not codec.experimental


@lru_cache
def can_write(encoder: str, format: str) -> bool:
    """Return True if PyAV has an encoder and the container can hold its codec."""
    if not can_encode(encoder):
        return False
    codec = Codec(encoder, "w")
    if (format == TS and codec.canonical_name not in TS_CODECS) or (format, encoder) in UNFIT:
        return False
    out = av.open(io.BytesIO(), "w", format=format)
    try:
        out.add_stream(encoder, rate=nearest_rate(codec, USUAL_RATE), bit_rate=2 * USUAL_BIT_RATE)
        out.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def planar_format(codec: Codec, sample_format: str) -> str:
    """Return the planar sample format in which an encoder is fed: the source's, or the one that loses least."""
    kinds = {found.name.removesuffix("p") for found in codec.audio_formats or []}
    kind = sample_format.removesuffix("p")
    if kind in kinds:
        return f"{kind}p"
    return next(f"{best}p" for best in ("flt", "s32", "dbl", "s16", "u8") if best in kinds)


def encoder_format(codec: Codec, planar: str) -> str:
    names = [found.name for found in codec.audio_formats or []]
    return planar if planar in names else planar.removesuffix("p")


def layout_of(context: Any) -> str:
    """Return the channel layout of a stream; mono and stereo where the file does not tell."""
    return {1: "mono", 2: "stereo"}.get(context.channels, context.layout.name)


def nearest_rate(codec: Codec, sample_rate: int) -> int:
    """Return the sample rate at which an encoder can write sound that loses nothing, or the highest."""
    rates = sorted(codec.audio_rates or [])
    if not rates or sample_rate in rates:
        return sample_rate
    return next((rate for rate in rates if rate >= sample_rate), rates[-1])


def allowed_bit_rate(encoder: str, wanted: int, *, channels: int, sample_rate: int) -> int:
    """Return the lowest bit rate of an encoder that is at least that wanted, or its highest, in bits per second.

    Args:
        encoder: PyAV's name.
        wanted: bits per second.
        channels, sample_rate: of the sound.
    """
    if encoder == ENCODERS[OPUS]:
        return min(wanted, OPUS_BIT_RATE * channels)
    table = (LOW_BIT_RATES if sample_rate <= LOW_SAMPLE_RATE else BIT_RATES).get(encoder)
    if table is None:
        return wanted
    return next((rate * 1000 for rate in table if rate * 1000 >= wanted * ROUNDING), table[-1] * 1000)


def silence(track: Track, count: int) -> np.ndarray:
    """Return samples of silence, channels x ``count``."""
    kind = track.format.removesuffix("p")
    dtype = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}[kind]
    return np.full((channels_of(track), count), 128 if kind == "u8" else 0, dtype)


def channels_of(track: Track) -> int:
    return av.AudioLayout(track.layout).nb_channels


def quiet(track: Track, count: int) -> Iterator[np.ndarray]:
    """Yield blocks of silence, ``count`` samples in all."""
    while count > 0:
        yield silence(track, min(count, BLOCK))
        count -= BLOCK


def contiguous(pieces: Iterable[tuple[int, np.ndarray]], *, first: int, track: Track) -> Iterator[np.ndarray]:
    """Yield samples from a number on without a hole, channels x N arrays."""
    position = first
    for at, samples in pieces:
        if at + samples.shape[1] <= position:
            continue
        yield from quiet(track, at - position)
        start = max(0, position - at)
        yield samples[:, start:]
        position = at + samples.shape[1]


def resampled(blocks: Iterable[np.ndarray], *, ratio: Fraction, track: Track) -> Iterator[np.ndarray]:
    """Yield the samples at ``ratio`` times as many per second."""
    fine = ratio.limit_denominator(LARGEST_RATE)
    scale = max(1, min(LARGEST_RATE // fine.denominator, track.source_rate // fine.denominator or 1))
    incoming, outgoing = fine.denominator * scale, fine.numerator * scale
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=incoming, format=track.format, layout=track.layout, time_base=Fraction(1, incoming)
    )
    options = f"{outgoing}:filter_size=64:cutoff=0.97:internal_sample_fmt=dblp"
    converter = graph.add("aresample", options)
    wanted = graph.add("aformat", f"sample_fmts={track.format}:channel_layouts={track.layout}")
    sink = graph.add("abuffersink")
    graph.link_nodes(source, converter, wanted, sink).configure()

    def ready() -> Iterator[np.ndarray]:
        while True:
            try:
                yield graph.pull().to_ndarray()
            except (av.BlockingIOError, av.EOFError):
                return

    position = 0
    for block in blocks:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=track.format, layout=track.layout)
        frame.sample_rate, frame.pts, frame.time_base = incoming, position, Fraction(1, incoming)
        position += block.shape[1]
        graph.push(frame)
        yield from ready()
    graph.push(None)
    yield from ready()


def exactly(blocks: Iterable[np.ndarray], count: int, track: Track) -> Iterator[np.ndarray]:
    """Yield the first ``count`` samples, followed by silence where there are fewer."""
    for block in blocks:
        if block.shape[1] >= count:
            yield block[:, :count]
            return
        count -= block.shape[1]
        yield block
    yield from quiet(track, count)


def rehearsal_noise(track: Track, count: int) -> Generator[np.ndarray]:
    """Yield the same noise in all channels."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, count)
    like = silence(track, 1)
    kind = like.dtype
    if kind.kind == "f":
        samples = noise.astype(kind)
    else:
        top = np.iinfo(kind).max + 1
        samples = (noise * top / 2 + top / 2 if kind == np.uint8 else noise * top).astype(kind)
    yield np.repeat(samples[None], len(like), axis=0)


def heard(file: io.BytesIO, position: int, track: Track) -> tuple[np.ndarray, float]:
    """Decode a rehearsal.

    Args:
        file: the container.
        position: index among its audio streams.
        track: how it was written.

    Returns:
        Samples from -1 to 1 of the first channel, and the time stamp of the first, in seconds from the first picture.
    """
    samples: list[np.ndarray] = []
    stamp: float | None = None
    with av.open(file, "r") as container:
        main = main_video(container)
        pictures = [
            time_of(packet, container)
            for packet in packets_of(container)
            if packet.stream == main and not packet.is_discard
        ]
        start = min((time for time in pictures if time is not None), default=Fraction(0))
    file.seek(0)
    with av.open(file, "r") as container:
        stream = container.streams.audio[position]
        converter = av.AudioResampler(format="fltp", layout=track.layout, rate=track.sample_rate)
        for frame in decoded(container, stream, lambda detail: None):
            if stamp is None:
                stamp = (frame.time or 0.0) - float(start)
            frame.pts = None
            samples += [found.to_ndarray()[0] for found in converter.resample(frame)]
    return np.concatenate(samples) if samples else np.zeros(0), stamp or 0.0


def lateness(samples: np.ndarray) -> int:
    """Return by how many samples the noise of a rehearsal is late."""
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, len(samples))
    size = 2 * len(samples)
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(noise, size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return best if best < len(samples) else best - size
