"""Rehearsals: noise is written as sound, to measure by how much readers of the output would find the sound late.

Delays of encoders, and what containers tell of them, depend on the versions of the libraries.
"""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

from syncnet.media.containers import main_video
from syncnet.media.grid import decoded
from syncnet.media.packets import packets_of, time_of
from syncnet.media.sound import samples_of
from syncnet.media.tracks import silence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from syncnet.media.tracks import Track

SECONDS = Fraction(2)  # length of a rehearsal
REHEARSALS = 3
LOUDNESS = 0.3
SAME_SAMPLES = 4  # a decoder's delay may be wrong by as many, as measured
SAME_TIME = 0.0006  # seconds; time stamps of Matroska are whole milliseconds


def rehearse(
    tracks: Sequence[Track], write: Callable[[Sequence[Track], io.BytesIO], None], *, ahead: Fraction
) -> tuple[tuple[Track, ...], bool]:
    """Choose ``cut`` and ``late`` of tracks so that readers find their sound where it belongs.

    Args:
        tracks: those of the output, in its order.
        write: writes ``SECONDS`` of the output, with ``noise_of`` each track as sound.
        ahead: seconds from the first packet of the picture to the first that can be decoded, where the sound belongs.

    Returns:
        The tracks; and True if the last rehearsal found nothing to correct.
    """
    for _ in range(REHEARSALS):
        file = io.BytesIO()
        write(tracks, file)
        found = [corrected(track, file, position, ahead=ahead) for position, track in enumerate(tracks)]
        if found == list(tracks):
            return tuple(found), True
        tracks = found
    return tuple(tracks), False


def corrected(track: Track, file: io.BytesIO, position: int, *, ahead: Fraction) -> Track:
    """Return a track with ``cut`` or ``late`` corrected by what a rehearsal tells.

    Args:
        track: how it was written.
        file: the container.
        position: index among its audio streams.
        ahead: as in ``rehearse``.
    """
    samples, stamp = heard(file, position, track)
    stamp -= float(ahead)
    if not len(samples):
        return track
    plain = lateness(samples)
    late = plain + round(stamp * track.sample_rate)
    if abs(plain) > SAME_SAMPLES and track.cut + plain >= 0:
        return replace(track, cut=track.cut + plain)
    if abs(late) > SAME_TIME * track.sample_rate:
        return replace(track, late=track.late - late)
    return track


def noise(count: int) -> np.ndarray:
    """Return the same noise every time, from -1 to 1."""
    return np.random.default_rng(0).uniform(-LOUDNESS, LOUDNESS, count)


def noise_of(track: Track, count: int) -> Generator[np.ndarray]:
    """Yield the samples of a track in a rehearsal: the same noise in all channels."""
    sound = noise(count)
    like = silence(track, 1)
    kind = like.dtype
    if kind.kind == "f":
        samples = sound.astype(kind)
    else:
        top = np.iinfo(kind).max + 1
        samples = (sound * top / 2 + top / 2 if kind == np.uint8 else sound * top).astype(kind)
    yield np.repeat(samples[None], len(like), axis=0)


def heard(file: io.BytesIO, position: int, track: Track) -> tuple[np.ndarray, float]:
    """Decode a rehearsal.

    Args:
        file: the container.
        position: index among its audio streams.
        track: how it was written.

    Returns:
        Samples from -1 to 1 of the first channel, and the time stamp of the first, in seconds from the first packet
        of the picture.
    """
    samples: list[np.ndarray] = []
    stamp: float | None = None
    file.seek(0)
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
        converter = av.AudioResampler(format="flt", layout=track.layout, rate=track.sample_rate)
        for frame in decoded(container, stream):
            if stamp is None:
                stamp = (frame.time or 0.0) - float(start)
            frame.pts = None
            samples += [samples_of(found)[0] for found in converter.resample(frame)]
    return np.concatenate(samples) if samples else np.zeros(0), stamp or 0.0


def lateness(samples: np.ndarray) -> int:
    """Return by how many samples the noise of a rehearsal is late."""
    size = 2 * len(samples)
    spectrum = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(noise(len(samples)), size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return best if best < len(samples) else best - size
