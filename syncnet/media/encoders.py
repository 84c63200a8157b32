"""Encoders of sound: which one writes a codec into a container, and what it can be given."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import av
from av.codec.codec import Codec, UnknownCodecError

from syncnet.media.containers import AVI
from syncnet.media.muxing import TS, TS_CODECS, can_begin

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext

OPUS = "libopus"
ENCODERS = {"mp3": "libmp3lame", "opus": OPUS}  # of another name than their codec
# What replaces a codec that cannot be written, best first: those of the same family, then the usual ones.
SUBSTITUTES = {
    "vorbis": (OPUS,),
    "wmapro": ("wmav2",),
    "dts": ("ac3", "eac3"),
    "truehd": ("flac", "alac"),
    "mlp": ("flac", "alac"),
}
UNFIT = ((AVI, "wmav1"), (AVI, "wmav2"))  # whose first frame AVI's readers lose
LOSSY = ("aac", OPUS, "libmp3lame", "ac3", "mp2")
LOSSLESS = ("flac", "alac", "pcm_s24le")
LOSSLESS_OF = {"u8": "pcm_u8", "s16": "pcm_s16le", "s32": "pcm_s24le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}

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
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
LAYOUTS = ("7.1", "6.1", "5.1", "5.0", "quad", "stereo", "mono")  # for encoders that do not take the source's


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
    """Return True if PyAV has an encoder of sound of this name that is fit for use."""
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
    rate = nearest_rate(codec, USUAL_RATE)
    return can_begin(format, lambda out: out.add_stream(encoder, rate=rate, bit_rate=2 * USUAL_BIT_RATE))


def lossless(codec: Codec) -> bool:
    """Return True if a codec loses nothing; WavPack's usual form does not."""
    return codec.lossless and (not codec.lossy or codec.canonical_name == "wavpack")


def packed_format(codec: Codec, sample_format: str) -> str:
    """Return the packed sample format in which an encoder is fed: the source's, or the one that loses least."""
    kinds = {found.name.removesuffix("p") for found in codec.audio_formats or []}
    kind = sample_format.removesuffix("p")
    if kind in kinds:
        return kind
    return next(best for best in ("flt", "s32", "dbl", "s16", "u8") if best in kinds)


def encoder_format(codec: Codec, packed: str) -> str:
    """Return the sample format that an encoder takes for a packed one: the same, or the planar one."""
    names = [found.name for found in codec.audio_formats or []]
    return packed if packed in names else f"{packed}p"


def layout_of(context: AudioCodecContext) -> str:
    """Return the channel layout of a stream; the usual one of as many channels where the file does not tell."""
    if context.channels > 2 and context.layout.name != f"{context.channels} channels":
        return context.layout.name
    return USUAL_LAYOUTS.get(context.channels, context.layout.name)


def nearest_layout(codec: Codec, layout: str) -> str:
    """Return the channel layout in which an encoder takes sound: the same, or that of most channels up to as many."""
    others = (other for other in LAYOUTS if channels_of(other) <= channels_of(layout))
    return next((found for found in (layout, *others) if takes(codec, found)), layout)


def takes(codec: Codec, layout: str) -> bool:
    """Return True if an encoder can be opened with a channel layout."""
    context: Any = av.CodecContext.create(codec.name, "w")
    context.layout, context.format = layout, (codec.audio_formats or [])[0]
    context.sample_rate = nearest_rate(codec, USUAL_RATE)
    try:
        context.open()
    except av.FFmpegError:
        return False
    return True


def channels_of(layout: str) -> int:
    """Return the number of channels of a layout."""
    return av.AudioLayout(layout).nb_channels


def nearest_rate(codec: Codec, sample_rate: int) -> int:
    """Return the sample rate at which an encoder can write sound that loses nothing, or the highest."""
    rates = sorted(codec.audio_rates or [])
    if not rates or sample_rate in rates:
        return sample_rate
    return next((rate for rate in rates if rate >= sample_rate), rates[-1])


def choose_bit_rate(
    encoder: Codec, source: AudioCodecContext, *, sample_rate: int, measured: int, replaced: bool
) -> int:
    """Choose a bit rate at which the sound is no worse than its source.

    Args:
        encoder: that of the output.
        source: decoder of the sound.
        sample_rate: of the output.
        measured: bits per second of the source; 0 if unknown.
        replaced: the codec, or its profile, is another than the source's.

    Returns:
        Bits per second; 0 for lossless codecs.
    """
    if lossless(encoder):
        return 0
    usual, declared = USUAL_BIT_RATE * source.channels, source.bit_rate or 0
    wanted = max(declared, measured, usual if replaced or not declared else 0)
    if lossless(source.codec):
        wanted = usual
    return allowed_bit_rate(encoder.name, wanted, channels=source.channels, sample_rate=sample_rate)


def allowed_bit_rate(encoder: str, wanted: int, *, channels: int, sample_rate: int) -> int:
    """Return the lowest bit rate of an encoder that is at least that wanted, or its highest, in bits per second.

    Args:
        encoder: PyAV's name.
        wanted: bits per second.
        channels, sample_rate: of the sound.
    """
    if encoder == OPUS:
        return min(wanted, OPUS_BIT_RATE * channels)
    table = (LOW_BIT_RATES if sample_rate <= LOW_SAMPLE_RATE else BIT_RATES).get(encoder)
    if table is None:
        return wanted
    return next((rate * 1000 for rate in table if rate * 1000 >= wanted * ROUNDING), table[-1] * 1000)
