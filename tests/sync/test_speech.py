"""Tests of telling speech from silence."""

import numpy as np
import pytest

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.sync import speech
from training.face.voice import speak

SECONDS = 2.0
FULL_SCALE = 32767


@pytest.fixture(scope="module")
def talk() -> tuple[np.ndarray, np.ndarray]:
    """Return two seconds of silence, of speech, of silence and of speech, and where the speech is."""
    said = [speak(SECONDS, seed=seed, pause=(0.1, 0.2)).audio for seed in (1, 2)]
    silence = np.zeros(len(said[0]), np.int16)
    truth = np.repeat([False, True, False, True], round(SECONDS * FRAME_RATE))
    return np.concatenate([silence, said[0], silence, said[1]]), truth


def noisy(audio: np.ndarray, *, below_db: float, colour: int = 1) -> np.ndarray:
    """Add steady noise, white or, with a ``colour`` above 1, with less at high frequencies."""
    rng = np.random.default_rng(3)
    noise = np.convolve(rng.standard_normal(len(audio)), np.ones(colour) / np.sqrt(colour), mode="same")
    loud = np.sqrt(np.square(audio[np.abs(audio) > 100].astype(float)).mean())
    return np.clip(audio + noise * loud * 10 ** (-below_db / 20), -FULL_SCALE, FULL_SCALE).astype(np.int16)


def check(found: np.ndarray, truth: np.ndarray, *, within: int = 8) -> None:
    """Check that all frames farther than ``within`` from a change are right."""
    changes = np.flatnonzero(np.diff(truth))
    apart = np.abs(np.arange(len(truth))[:, None] - changes - 0.5).min(axis=1) > within
    assert (found == truth)[apart].mean() > 0.97


@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_speech_of_any_loudness_is_found(talk: tuple[np.ndarray, np.ndarray], gain: float) -> None:
    audio, truth = talk
    check(speech.present(speech.measure((audio * gain).astype(np.int16))), truth)


@pytest.mark.parametrize("colour", [1, 20])
def test_speech_is_found_under_steady_noise(talk: tuple[np.ndarray, np.ndarray], colour: int) -> None:
    audio, truth = talk
    check(speech.present(speech.measure(noisy(audio, below_db=15, colour=colour))), truth)


def test_silence_and_steady_noise_are_not_speech() -> None:
    silence = np.zeros(20 * FRAME_RATE * SAMPLES_PER_FRAME, np.int16)
    assert not speech.present(speech.measure(silence)).any()
    noise = np.random.default_rng(0).normal(0, 500, len(silence)).astype(np.int16)
    assert not speech.present(speech.measure(noise)).any()


def test_a_level_may_be_measured_piece_by_piece(talk: tuple[np.ndarray, np.ndarray]) -> None:
    audio, _ = talk
    whole = speech.measure(audio[:-100])
    assert whole.shape == (len(audio) // SAMPLES_PER_FRAME - 1, len(speech.BANDS_HZ) - 1)
    assert whole.dtype == np.float32
    cut = 7 * SAMPLES_PER_FRAME
    assert np.array_equal(np.concatenate([speech.measure(audio[:cut]), speech.measure(audio[cut:-100])]), whole)


def test_no_sound_has_no_speech() -> None:
    levels = speech.measure(np.zeros(10, np.int16))
    assert levels.shape == (0, len(speech.BANDS_HZ) - 1)
    assert speech.present(levels).shape == (0,)


def test_short_silences_are_bridged_and_clicks_left_out() -> None:
    levels = np.full((300, len(speech.BANDS_HZ) - 1), -60, np.float32)
    for first, end in ((50, 100), (109, 150), (170, 200), (250, 251)):
        levels[first:end] = -25 - 20 * (np.arange(end - first)[:, None] % 2)
    found = np.flatnonzero(speech.present(levels))
    assert (found[0], found[-1]) == (pytest.approx(50, abs=1), pytest.approx(199, abs=1))
    [gap] = np.flatnonzero(np.diff(found) > 1)
    assert (found[gap], found[gap + 1]) == (pytest.approx(149, abs=1), pytest.approx(170, abs=1))


def test_the_floor_follows_a_long_recording(talk: tuple[np.ndarray, np.ndarray]) -> None:
    """The second part of the recording has much more noise than the first."""
    audio, truth = talk
    parts = [noisy(np.tile(audio, 15), below_db=below) for below in (40, 15)]
    found = speech.present(speech.measure(np.concatenate(parts)))
    minute = 60 * FRAME_RATE
    check(found[:minute], np.tile(truth, 15)[:minute])
    check(found[-minute:], np.tile(truth, 15)[-minute:])


def test_heard_is_more_than_silence_or_a_floor_of_noise(talk: tuple[np.ndarray, np.ndarray]) -> None:
    audio, truth = talk
    check(speech.heard(speech.measure(audio)), truth)
    time = np.arange(4 * FRAME_RATE * SAMPLES_PER_FRAME) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(0, 100, len(time))
    assert not speech.heard(speech.measure(noise.astype(np.int16))).any()
    tone = FULL_SCALE / 8 * np.sin(2 * np.pi * 440 * time)
    assert speech.heard(speech.measure(tone.astype(np.int16))).all()


@pytest.mark.parametrize("frames", [6, 12, 24])
def test_short_steady_sound_is_heard(frames: int) -> None:
    """A vowel may be as steady as noise."""
    time = np.arange(frames * SAMPLES_PER_FRAME) / SAMPLE_RATE
    vowel = speech.measure((500 * (2 * (150 * time % 1) - 1)).astype(np.int16))
    assert vowel.max() < speech.LOUD_DB and not speech.present(vowel).any()
    assert speech.heard(vowel).all()
    assert not speech.heard(speech.measure(np.zeros(len(time), np.int16))).any()
