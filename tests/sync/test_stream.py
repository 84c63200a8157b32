"""Audio features of a stream of sound against those of the whole."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from syncnet.constants import SAMPLES_PER_FRAME
from syncnet.media.sound import SoundInMemory
from syncnet.sync import scoring
from syncnet.sync.stream import BLOCK, AudioFeatures

FRAMES = 180


class Noise(SoundInMemory):
    """Noise that starts at a sample, with a record of what was forgotten."""

    def __init__(self, *, first=0, frames=FRAMES):
        samples = np.random.default_rng(0).integers(-9000, 9000, frames * SAMPLES_PER_FRAME).astype(np.int16)
        super().__init__(samples)
        self.first, self.forgotten = first, -(10**9)

    def read(self, first, last):
        assert first >= self.forgotten
        return super().read(first - self.first, last - self.first)

    def length(self, wanted):
        return self.first + len(self.samples)

    def forget(self, before):
        self.forgotten = max(self.forgotten, before)


def as_features(windows):
    """Return the coefficients themselves."""
    return torch.from_numpy(np.ascontiguousarray(windows)).flatten(1)


def features(sound):
    return AudioFeatures(sound, as_features)


@pytest.mark.parametrize(("first", "last"), [(0, 175), (3, 8), (49, 51), (50, 100), (149, 160)])
def test_a_span_is_that_part_of_the_whole(first, last):
    sound = Noise()
    whole = as_features(scoring.audio_windows(sound.samples))
    torch.testing.assert_close(features(sound).span(first, last), whole[first:last], rtol=0, atol=1e-5)


@pytest.mark.parametrize("late", [-15 * SAMPLES_PER_FRAME, 3 * SAMPLES_PER_FRAME, 60 * SAMPLES_PER_FRAME])
def test_zero_where_there_is_no_sound(late):
    sound = Noise(first=late)
    found, start = features(sound), late // SAMPLES_PER_FRAME
    covered = found.windows(10**6)
    whole = as_features(scoring.audio_windows(sound.samples))
    assert covered == range(start, start + len(whole))
    span = found.span(-20, 300)
    expected = torch.zeros(320, span.shape[1])
    expected[start + 20 : start + 20 + len(whole)] = whole
    # the first window has no sample before it for the pre-emphasis, whole or not
    torch.testing.assert_close(span, expected, rtol=0, atol=1e-5)
    assert found.windows(70) == range(start, 70)


def test_a_sound_between_two_frames_starts_with_its_first_whole_window():
    assert features(Noise(first=3 * SAMPLES_PER_FRAME + 1)).windows(50) == range(4, 50)


def test_forgotten_windows_free_memory_and_later_ones_stay_right():
    sound = Noise()
    found, whole = features(sound), as_features(scoring.audio_windows(sound.samples))
    for first in range(0, 160, 7):
        torch.testing.assert_close(found.span(first, first + 12), whole[first : first + 12], rtol=0, atol=1e-5)
        found.forget(first)
        assert len(found.blocks) <= 2
    assert sound.forgotten > 100 * SAMPLES_PER_FRAME


def test_several_threads():
    calls = []

    def compute(windows):
        calls.append(len(windows))
        return as_features(windows)

    sound = Noise()
    found = AudioFeatures(sound, compute)
    whole = as_features(scoring.audio_windows(sound.samples))
    with ThreadPoolExecutor(8) as pool:
        spans = list(pool.map(lambda first: found.span(first, first + 20), range(150)))
    for first, span in enumerate(spans):
        torch.testing.assert_close(span, whole[first : first + 20], rtol=0, atol=1e-5)
    assert len(calls) == 1 + -(-170 // BLOCK)  # each block once
