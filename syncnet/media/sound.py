"""The sound of a file at 16 kHz, sample by sample on the clock of the container."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import TYPE_CHECKING

import av
import numpy as np

from syncnet.constants import SAMPLE_RATE
from syncnet.media.containers import MICROSECONDS, decodable, numbered_audio, open_container
from syncnet.media.grid import LONGEST_STILL, decoded
from syncnet.media.integrity import Inventory

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Containers round time stamps to a millisecond. A larger step is a hole, or sound that is repeated.
STEP_TOLERANCE = 0.005  # seconds
FULL_SCALE = 32768.0  # of 16-bit samples


def choose_stream(container: InputContainer, path: str | os.PathLike[str], index: int | None) -> AudioStream | None:
    """Return an audio stream: that of an index among the audio streams, or the one that a player takes.

    A player takes the first stream that the file marks as its default, else the first.

    Raises:
        MediaError: there is no stream of this index.
    """
    if index is not None:
        return numbered_audio(container, path, index)
    known = decodable(container.streams.audio)
    marked = [stream for stream in known if stream.disposition & av.stream.Disposition.default]
    return next(iter(marked or known), None)


class Sound:
    """Sound at 16 kHz, mono, read as it is needed.

    Samples are counted from ``zero``. Holes in the sound are silence; of sound that comes twice, the first counts.

    Args:
        path: the media file.
        zero: time stamp of sample 0, in seconds; None for ``after`` seconds after the file's start.
        after: as said; sample 0 of a sound that belongs to a video that starts late.
        stream: index among the audio streams; None for the one that a player takes.
        before: samples before sample 0 that are kept, where the sound starts earlier.
        channel: index of the channel to read; None for the mix of all.

    Attributes:
        exists: False if the file has no audio stream.
        first: number of the first sample that exists.
        end: number after the last sample; None until the end has been read.
        inventory: what the container promises, and what of the sound cannot be read, as far as it was read.

    Raises:
        MediaError: the file is not a media file, or has no such stream.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        zero: float | None = None,
        after: float = 0.0,
        stream: int | None = None,
        before: int = 0,
        channel: int | None = None,
    ) -> None:
        self.channel = channel
        self.container = open_container(path)
        try:
            self.inventory = Inventory(self.container, path)
            self.stream = choose_stream(self.container, path, stream)
            self.exists = self.stream is not None
            if zero is None:
                zero = (self.container.start_time or 0) / MICROSECONDS + after
            layout, format = ("mono", "s16p") if channel is None else (None, "s16")
            self.chunks = placed(
                self.container,
                self.stream,
                zero=zero,
                before=before,
                layout=layout,
                format=format,
                inventory=self.inventory,
            )
            self.parts: deque[np.ndarray] = deque()
            self.first = self.position = self.kept = 0  # position: after what was read; kept: start of ``parts``
            self.needed = -before  # samples before it have been forgotten
            self.end: int | None = None if self.exists else 0
            if self.exists:
                self._advance()
        except BaseException:
            self.container.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def read(self, first: int, last: int) -> np.ndarray:
        """Return samples ``first`` to ``last`` (exclusive), int16; zeros where there is no sound.

        ``first`` must not be before that of an earlier ``forget``.
        """
        while self.end is None and self.position < last:
            self._advance()
        samples = np.zeros(max(0, last - first), np.int16)
        at = self.kept
        for part in self.parts:
            low, high = max(first, at), min(last, at + len(part))
            if low < high:
                samples[low - first : high - first] = part[low - at : high - at]
            at += len(part)
        return samples

    def length(self, wanted: int) -> int:
        """Return the number after the last sample, or ``wanted`` if the sound is known to last at least as long."""
        while self.end is None and self.position < wanted:
            self._advance()
        return self.position

    def forget(self, before: int) -> None:
        """Free the memory of samples before a number, also of those that have not been read yet."""
        self.needed = max(self.needed, before)
        self._drop()

    def _drop(self) -> None:
        while self.parts and self.kept + len(self.parts[0]) <= self.needed:
            self.kept += len(self.parts.popleft())

    def _advance(self) -> None:
        """Read the next piece of sound."""
        found = next(self.chunks, None)
        if found is None:
            self.end = self.position
            return
        at, samples = found[0], found[1][self.channel or 0]
        if not self.parts and self.position == self.kept == 0:
            self.first = self.position = self.kept = at
        elif at > self.position:
            self.parts.append(np.zeros(at - self.position, np.int16))
        self.parts.append(samples)
        self.position = at + len(samples)
        self._drop()


def placed(
    container: InputContainer,
    stream: AudioStream | None,
    *,
    zero: float,
    before: int,
    sample_rate: int = SAMPLE_RATE,
    layout: str | None = "mono",
    format: str = "s16p",
    inventory: Inventory | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield pieces of sound, each with the number of its first sample, in order and without overlap.

    Args:
        container: the open file.
        stream: one of its streams; None for no sound.
        zero: time stamp of sample 0, in seconds.
        before: samples before sample 0 that are kept, where the sound starts earlier.
        sample_rate, layout, format: of the samples; no layout to keep all channels, in a packed format.
        inventory: as in ``decoded``.

    Yields:
        Number of the first sample, and a channels x N array.
    """
    done: int | None = None
    for at, samples in _resampled(container, stream, zero, sample_rate, layout, format, inventory):
        start = -before if done is None else done
        if at < start:
            samples = samples[:, start - at :]
            at = start
        if samples.shape[1]:
            done = at + samples.shape[1]
            yield at, samples


def _resampled(
    container: InputContainer,
    stream: AudioStream | None,
    zero: float,
    sample_rate: int,
    layout: str | None,
    format: str,
    inventory: Inventory | None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield pieces of sound, each with the number of its first sample, as the time stamps say."""
    resampler: av.AudioResampler | None = None
    kind: tuple[object, ...] = ()
    expected = 0.0
    at = 0

    def pieces(frames: list[AudioFrame]) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal at
        for frame in frames:
            samples = samples_of(frame)
            yield at, samples
            at += samples.shape[1]

    for frame in decoded(container, stream, inventory):
        time = expected if frame.time is None else frame.time
        found = frame.format.name, frame.layout.name, frame.sample_rate
        if resampler is not None and time > expected + LONGEST_STILL:
            break
        if resampler is None or found != kind or abs(time - expected) > STEP_TOLERANCE:
            if resampler is not None:
                yield from pieces(resampler.resample(None))
            resampler, kind = av.AudioResampler(format=format, layout=layout or frame.layout, rate=sample_rate), found
            at, expected = round((time - zero) * sample_rate), time
        frame.pts = None  # the resampler would fill holes by them
        yield from pieces(resampler.resample(frame))
        expected += frame.samples / frame.sample_rate
    if resampler is not None:
        yield from pieces(resampler.resample(None))


def samples_of(frame: AudioFrame) -> np.ndarray:
    """Return the samples of a frame, channels x N."""
    samples = frame.to_ndarray()
    return samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T


def single_channels(path: str | os.PathLike[str], *, stream: int | None) -> Iterator[Sound]:
    """Yield the ``Sound`` of every channel of a stream, if it has several; arguments as for ``Sound``.

    Each is open until the next one is asked for.
    """
    with contextlib.closing(Sound(path, stream=stream)) as mixed:
        count = mixed.stream.channels if mixed.stream else 0
    for channel in range(count if count > 1 else 0):
        with contextlib.closing(Sound(path, stream=stream, channel=channel)) as sound:
            yield sound


class SoundInMemory:
    """Sound that is in memory already, with the methods of ``Sound``.

    Args:
        samples: at 16 kHz, mono, int16.
        zero: index of the sample that is sample 0 of this object.
    """

    def __init__(self, samples: np.ndarray, *, zero: int = 0) -> None:
        self.samples, self.zero, self.first = samples, zero, -zero

    def read(self, first: int, last: int) -> np.ndarray:
        """Return samples ``first`` to ``last`` (exclusive); zeros where there is no sound."""
        found = np.zeros(max(0, last - first), np.int16)
        start, end = first + self.zero, last + self.zero
        part = self.samples[max(0, start) : max(0, end)]
        found[max(0, -start) : max(0, -start) + len(part)] = part
        return found

    def length(self, wanted: int) -> int:
        """Return the number after the last sample."""
        return len(self.samples) - self.zero

    def forget(self, before: int) -> None:
        """Do nothing: the samples belong to the caller."""


def resample(samples: np.ndarray, *, sample_rate: int) -> np.ndarray:
    """Convert samples to 16 kHz, mono, int16; the filter delays nothing.

    Args:
        samples: N samples, or channels x N; int16, or float from -1 to 1.
        sample_rate: samples per second.
    """
    from scipy.signal import resample_poly  # takes a quarter of a second to import

    mono = samples if samples.ndim == 1 else samples.mean(axis=0)
    scaled = mono.astype(np.float64) if samples.dtype == np.int16 else mono.astype(np.float64) * FULL_SCALE
    common = math.gcd(sample_rate, SAMPLE_RATE)
    if sample_rate != SAMPLE_RATE:
        scaled = resample_poly(scaled, SAMPLE_RATE // common, sample_rate // common)
    limits = np.iinfo(np.int16)
    return np.clip(np.round(scaled), limits.min, limits.max).astype(np.int16)
