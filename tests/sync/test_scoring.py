"""Scores, confidences and speakers against straightforward implementations."""

import subprocess
import sys

import numpy as np
import pytest
import python_speech_features
import scipy.signal
import torch
from filter_program import environment

from syncnet.constants import WINDOW_FRAMES
from syncnet.median import median_filter
from syncnet.sync import scoring
from syncnet.sync.framewise import EDGE_DISTANCE, frame_confidence, speaking_confidence, window_confidence
from syncnet.sync.speakers import NOBODY, Span, spans, speaking_tracks


@pytest.mark.parametrize("size", [1, 5, 9, 13])
@pytest.mark.parametrize("length", [1, 4, 9, 40])
def test_median_filter(length, size):
    values = np.random.default_rng(length).normal(size=length)
    expected = scipy.signal.medfilt(values, size)
    np.testing.assert_array_equal(median_filter(values, size), expected)


def piece(extra):
    """Number of samples of the first piece of MFCCs, plus ``extra``."""
    return (scoring.MFCC_PIECE - 1) * scoring.STEP_SAMPLES + scoring.MFCC_WINDOW_SAMPLES + extra


@pytest.mark.parametrize(
    "length", [1, 399, 400, 401, 16000, piece(-1), piece(0), piece(1), piece(160), piece(161), 2_000_000]
)
def test_mfcc_piece_by_piece(length):
    samples = np.random.default_rng(0).integers(-3000, 3000, length).astype(np.int16)
    whole = python_speech_features.mfcc(samples, 16000).T
    pieces = scoring.mfcc(samples)
    assert pieces.shape == whole.shape
    np.testing.assert_allclose(pieces, whole, rtol=1e-9, atol=1e-9)


def test_audio_windows():
    samples = np.random.default_rng(0).integers(-3000, 3000, 16000).astype(np.int16)
    windows = scoring.audio_windows(samples)
    coefficients = python_speech_features.mfcc(samples, 16000).T
    assert windows.shape == (20, 1, 13, 20)
    for i, window in enumerate(windows):
        np.testing.assert_allclose(window[0], coefficients[:, 4 * i : 4 * i + 20], rtol=1e-6)


def test_audio_shorter_than_a_window():
    assert scoring.audio_windows(np.zeros(100, np.int16)).shape == (0, 1, 13, 20)


@pytest.mark.parametrize(
    ("video", "audio", "windows"), [(100, 100, 95), (100, 60, 55), (6, 9, 1), (5, 9, 0), (0, 0, 0)]
)
def test_window_count(video, audio, windows):
    assert scoring.window_count(video, audio) == windows


@pytest.mark.parametrize("piece", [1, 2, 5, 12, 100])
def test_distances(piece, monkeypatch):
    monkeypatch.setattr(scoring, "DISTANCE_PIECE", piece)
    torch.manual_seed(0)
    video, audio = torch.randn(12, 8), torch.randn(12, 8)
    ours = scoring.distances(video, audio, vshift=3)
    assert ours.shape == (12, 7)
    for i in range(12):
        for k in range(7):
            row = i + k - 3
            other = audio[row] if 0 <= row < 12 else torch.zeros(8)
            expected = torch.nn.functional.pairwise_distance(video[i : i + 1], other[None]).item()
            assert ours[i, k] == pytest.approx(expected, abs=1e-6)


def test_rows():
    parts = [torch.rand(n, 3) for n in (2, 1, 3)]
    rows = scoring.Rows(8)
    for part in parts:
        rows.append(part)
    assert torch.equal(rows.tensor(), torch.cat(parts))


TEN_MINUTES = """
import os
import numpy as np, torch
from filter_program import peak_megabytes
from syncnet.sync import scoring
from syncnet.models.devices import keep_freed_memory

keep_freed_memory()
torch.set_num_threads(1)
scoring.distances(torch.ones(99, 1024), torch.ones(99, 1024), vshift=15)
scoring.mfcc(np.ones(99999, np.int16))
samples, rows = np.ones(9_600_000, np.int16), scoring.Rows(15_000)
for _ in range(150):
    rows.append(torch.ones(100, 1024))
features = rows.tensor()
before = peak_megabytes(os.getpid())
{call}
print(peak_megabytes(os.getpid()) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("call", ["scoring.distances(features, features, vshift=15)", "scoring.audio_windows(samples)"])
def test_ten_minutes_take_little_memory(call):
    """Not counting the audio and the features themselves, 18 MB and 59 MB."""
    program = [sys.executable, "-c", TEN_MINUTES.format(call=call)]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_offset_sign(shift):
    """Audio feature i + shift matches video feature i: the audio is late, so the offset is -shift."""
    torch.manual_seed(0)
    video = torch.randn(60, 8)
    audio = torch.roll(video, shift, dims=0)
    score = scoring.score(scoring.distances(video, audio, vshift=5), video_frames=65, audio_frames=65)
    assert score.offset == -shift


def test_score():
    dists = np.array([[5, 2, 4, 6, 7], [7, 2, 6, 6, 9]], np.float32)
    score = scoring.score(dists, video_frames=7, audio_frames=8)
    assert (score.offset, score.min_dist, score.confidence) == (1, 2, 4)


def test_confidences():
    dists = np.random.default_rng(0).uniform(5, 9, (30, 7)).astype(np.float32)
    best = dists.mean(axis=0).argmin()
    median = np.median(dists.mean(axis=0))
    np.testing.assert_allclose(
        window_confidence(dists), scipy.signal.medfilt((median - dists[:, best]).astype(float), 9), rtol=1e-5
    )
    padded = np.concatenate([[EDGE_DISTANCE] * 3, dists[:, best], [EDGE_DISTANCE] * 3])
    assert EDGE_DISTANCE == 10
    np.testing.assert_allclose(frame_confidence(dists), scipy.signal.medfilt(median - padded, 9), rtol=1e-5)


def test_speaking_confidence_is_of_the_frames_that_were_scored():
    """One value per frame, the ends copied from the nearest window: no padding constant can make a face speak."""
    dists = np.full((20, 7), 25.0, np.float32)
    dists[:, 2] = 25 - np.arange(20) / 10
    own = np.median(dists.mean(axis=0)) - dists[:, 2]
    found = speaking_confidence(dists)
    assert len(found) == 20 + WINDOW_FRAMES
    np.testing.assert_allclose(found[2 + 4 : 2 + 16], own[4:16], rtol=1e-5)  # rising: its own median
    assert found.min() >= own.min() and found.max() <= own.max()


def test_speakers():
    first = np.array([3, 3, 1, 1, 5, 5], float)
    second = np.array([4, 4, 1, 6], float)
    speaker = speaking_tracks([0, 2], [first, second], threshold=2)
    assert speaker.tolist() == [0, 0, 1, 1, 0, 1]
    assert spans(speaker) == [Span(0, 1, 0), Span(2, 3, 1), Span(4, 4, 0), Span(5, 5, 1)]


def test_nobody_speaks():
    speaker = speaking_tracks([4], [np.array([2.0, 1.0])], threshold=2)
    assert speaker.tolist() == [NOBODY] * 6
    assert spans(speaker) == []
    assert spans(speaking_tracks([], [])) == []
