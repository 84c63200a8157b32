"""Audio streams that are encoded: their samples, and how they are written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.codec.codec import Codec

from syncnet.media.containers import AVI
from syncnet.media.encoders import (
    ENCODERS,
    OPUS,
    can_encode,
    channels_of,
    choose_bit_rate,
    choose_encoder,
    encoder_format,
    layout_of,
    lossless,
    nearest_layout,
    nearest_rate,
    packed_format,
)
from syncnet.media.muxing import MATROSKA, container_name, copy_tags, name_of
from syncnet.media.sound import samples_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

NOT_WRITTEN = (
    "HE-AAC",
    "HE-AACv2",
    "LD",
    "ELD",
    "Main",
    "SSR",
    "LTP",
    "xHE-AAC",
)  # profiles of AAC that need other encoders
BLOCK = 16_384  # samples of silence at a time
LARGEST_RATE = 500_000  # of the resampler, whose ratio is that of two whole numbers


@dataclass(frozen=True)
class Track:
    """How an audio stream is written.

    Attributes:
        index: of the stream in the source.
        encoder: PyAV's name.
        source_rate, sample_rate: samples per second, before and after.
        layout: of the channels.
        format: packed sample format: PyAV cannot read or make planar frames of 8 channels.
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


def choose_track(stream: AudioStream, *, format: str, wanted: str | None, measured: int) -> tuple[Track, list[str]]:
    """Choose how an audio stream is written.

    Args:
        stream: the stream of the source.
        format: ffmpeg's name of the container to write.
        wanted: codec or encoder to use; None for the stream's own or the nearest.
        measured: its bits per second; 0 if unknown.

    Returns:
        The track; and a line for each property of the stream that cannot be kept.
    """
    context, name = stream.codec_context, name_of(stream)
    encoder = choose_encoder(
        name, exact=lossless(context.codec), sample_format=context.format.name, format=format, wanted=wanted
    )
    codec = Codec(encoder, "w")
    own, unwritten = codec.canonical_name == name, context.profile in NOT_WRITTEN
    replaced = unwritten or not own
    sample_rate, layout = nearest_rate(codec, context.sample_rate), layout_of(context)
    track = Track(
        index=stream.index,
        encoder=encoder,
        source_rate=context.sample_rate,
        sample_rate=sample_rate,
        layout=nearest_layout(codec, layout),
        format=packed_format(codec, context.format.name),
        bit_rate=choose_bit_rate(codec, context, sample_rate=sample_rate, measured=measured, replaced=replaced),
    )
    notes = []
    if replaced and wanted is None:
        what = f"{name} ({context.profile})" if unwritten else name
        refused = can_encode(ENCODERS.get(name, name)) and not unwritten
        reason = f"{container_name(format)} cannot hold {what}" if refused else f"{what} cannot be encoded"
        becomes = "aac (LC)" if own else codec.canonical_name
        notes.append(f"stream {stream.index}: sound becomes {becomes}: {reason}")
    if channels_of(track.layout) < channels_of(layout):
        notes.append(f"stream {stream.index}: sound becomes {track.layout}: {encoder} cannot encode {layout}")
    return track, notes


def silence(track: Track, count: int) -> np.ndarray:
    """Return samples of silence, channels x ``count``."""
    dtypes = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
    return np.full((channels_of(track.layout), count), 128 if track.format == "u8" else 0, dtypes[track.format])


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
                yield samples_of(graph.pull())  # type: ignore[arg-type]
            except (av.BlockingIOError, av.EOFError):
                return

    position = 0
    for block in blocks:
        graph.push(frame_of(block, track, at=position, sample_rate=incoming))
        position += block.shape[1]
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


def frame_of(samples: np.ndarray, track: Track, *, at: int, sample_rate: int) -> av.AudioFrame:
    """Return samples, channels x N, as a frame that starts with sample ``at``."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T).reshape(1, -1), format=track.format, layout=track.layout
    )
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, at, Fraction(1, sample_rate)
    return frame


def add_track(out: OutputContainer, stream: Stream, track: Track) -> tuple[Stream, AudioCodecContext]:
    """Add a stream that is encoded; return it and its encoder."""
    if out.format.name in MATROSKA and track.bit_rate and track.encoder != OPUS:
        # Only FFmpeg 8 and newer heed the delay that Matroska declares for codecs other than Opus. A stream from NUT
        # has none to declare, so that the rehearsal finds it and has it cut off.
        file = io.BytesIO()
        with av.open(file, "w", format="nut") as nut:
            context = add_encoder(nut, track).codec_context
            nut.mux(context.encode(frame_of(silence(track, BLOCK), track, at=0, sample_rate=track.sample_rate)))
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


class TrackWriter:
    """Encodes a track and writes it, as far as the picture is written.

    Args:
        out: the container.
        stream: its stream.
        encoder: of the track.
        track: how it is written.
        blocks: the samples.
        start: time of the source at which they start, in seconds.
        origin: time of the source that becomes 0.
    """

    def __init__(
        self,
        out: OutputContainer,
        stream: Stream,
        encoder: AudioCodecContext,
        track: Track,
        blocks: Iterator[np.ndarray],
        *,
        start: Fraction,
        origin: Fraction,
    ) -> None:
        self.out, self.stream, self.encoder, self.track, self.blocks = out, stream, encoder, track, blocks
        self.start = start
        self.zero = round((start - origin) * track.sample_rate)
        self.done = 0  # samples

    def write(self, *, until: Fraction) -> None:
        """Write the samples up to a time of the source."""
        while self.start + Fraction(self.done, self.track.sample_rate) <= until:
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
        at += self.zero + self.track.late
        self._mux(self.encoder.encode(frame_of(block, self.track, at=at, sample_rate=self.track.sample_rate)))

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            if not packet.size and self.out.format.name == AVI:
                continue  # FLAC's last one is a new header
            packet.stream = self.stream
            self.out.mux_one(packet)
