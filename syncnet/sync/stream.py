"""What a stream of sound is measured for, computed where it is needed; the sound is forgotten afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from syncnet.constants import SAMPLES_PER_FRAME
from syncnet.sync import scoring, speech
from SyncNetModel import AUDIO_WINDOW

BLOCK = 50  # windows that are computed together
LEVELS_BLOCK = 500  # frames of sound that are measured together


class Samples(Protocol):
    """``media.sound.Sound``."""

    @property
    def first(self) -> int: ...

    def read(self, first: int, last: int) -> np.ndarray: ...

    def length(self, wanted: int) -> int: ...

    def forget(self, before: int) -> None: ...


class Levels:
    """What ``speech.measure`` finds in a sound, frame by frame, from frame 0 on.

    Args:
        sound: the sound; sample 0 is at the start of frame 0. It may be forgotten as far as it was measured.
    """

    def __init__(self, sound: Samples) -> None:
        self.sound = sound
        self.parts: list[np.ndarray] = []
        self.measured = 0

    def measure(self, frames: int) -> None:
        """Measure as far as the start of frame ``frames``."""
        while self.measured < frames:
            end = min(frames, self.measured + LEVELS_BLOCK)
            samples = self.sound.read(self.measured * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
            self.parts.append(speech.measure(samples))
            self.measured = end

    def of(self, frames: int) -> np.ndarray:
        """Return the levels of the first frames, frames x K array, float32; beyond the sound they are of silence."""
        self.measure(max(1, frames))
        return np.concatenate(self.parts)[:frames]


def levels_of(sound: Samples, frames: int) -> np.ndarray:
    """Return the levels of a sound that nobody else reads; arguments and result as in ``Levels``."""
    levels = Levels(sound)
    for end in range(0, frames, LEVELS_BLOCK):
        levels.measure(end)
        sound.forget(end * SAMPLES_PER_FRAME)
    return levels.of(frames)


class AudioFeatures:
    """Audio features by window: window i has the sound of the 0.2 s from the start of frame i.

    Windows that the sound does not cover have the features zero, as at the ends of a clip in the published suite.
    Several threads may use it.

    Args:
        sound: the sound; sample 0 is at the start of frame 0.
        compute: returns the N x 1024 features of N x 1 x 13 x 20 windows.
    """

    def __init__(self, sound: Samples, compute: Callable[[np.ndarray], torch.Tensor]) -> None:
        self.sound, self.compute = sound, compute
        self.measured = Levels(sound)
        self.blocks: dict[int, torch.Tensor] = {}
        self.lock = threading.Lock()
        self.first = -(-sound.first // SAMPLES_PER_FRAME)
        one = compute(np.zeros((1, *AUDIO_WINDOW), np.float32))
        self.silent = one.new_zeros(BLOCK, one.shape[1])

    def windows(self, wanted: int) -> range:
        """Return the windows that the sound covers, of those before ``wanted``."""
        with self.lock:
            return range(self.first, min(wanted, self._last(wanted)))

    def span(self, first: int, last: int) -> torch.Tensor:
        """Return the features of windows ``first`` to ``last`` (exclusive)."""
        with self.lock:
            parts = []
            for block in range(first // BLOCK, (last - 1) // BLOCK + 1):
                if block not in self.blocks:
                    self.blocks[block] = self._block(block)
                start = block * BLOCK
                parts.append(self.blocks[block][max(0, first - start) : last - start])
            return torch.cat(parts)

    def forget(self, before: int) -> None:
        """Free the memory of windows before a number; they are not asked for again."""
        with self.lock:
            for block in [b for b in self.blocks if (b + 1) * BLOCK <= before]:
                del self.blocks[block]
            before = before // BLOCK * BLOCK
            self.measured.measure(before)
            self.sound.forget(before * SAMPLES_PER_FRAME - 1)

    def levels(self, frames: int) -> np.ndarray:
        """Return the levels of the first frames, as ``Levels.of`` does."""
        with self.lock:
            return self.measured.of(frames)

    def _last(self, wanted: int) -> int:
        """Return the number after the last window that the sound covers, if it is below ``wanted``."""
        beyond = scoring.window_samples(1) - SAMPLES_PER_FRAME
        end = self.sound.length(wanted * SAMPLES_PER_FRAME + beyond)
        return (end - beyond) // SAMPLES_PER_FRAME

    def _block(self, block: int) -> torch.Tensor:
        start, end = block * BLOCK, (block + 1) * BLOCK
        first, last = max(start, self.first), min(end, self._last(end))
        if first >= last:
            return self.silent
        at = first * SAMPLES_PER_FRAME
        samples = self.sound.read(at - 1, at + scoring.window_samples(last - first))
        found = self.compute(scoring.audio_windows_within(samples))
        features = self.silent.clone()
        features[first - start : last - start] = found
        return features
