"""The lag of direct mode against the truth, in files of many kinds made from the sample."""

from fractions import Fraction
from pathlib import Path

import pytest

from benchmarks.moved import Case, decoded_source, drop_packets, make, measure
from benchmarks.truth import ALWAYS_MS, MOSTLY, MOSTLY_MS
from syncnet.constants import FRAME_RATE

SAMPLE = Path(__file__).resolve().parents[2] / "data/sample.mp4"
EXACT_MS = 0.7  # of the measured truth: time stamps in Matroska are whole milliseconds
PICKED_MS = 2.0  # the same at other frame rates, whose frames are picked from the sample
CASES = [
    Case("frame rate", "mp4", "aac", 44100, -55),
    Case("variable rate", "mkv", "flac", 48000, 75, None),
    Case("frame rate", "ts", "aac", 48000, -115, Fraction(30000, 1001)),
    Case("frame rate", "mov", "pcm_s16le", 8000, -370, Fraction(60)),
    Case("container", "mpg", "mp2", 48000, 35, Fraction(24), "mpeg2video"),
    Case("late sound", "mp4", move_ms=75, late_sound=0.3),
    Case("hole", "ts", move_ms=260, change=drop_packets),
    Case("two sounds", "mkv", move_ms=-115, other_sound=True),
]


@pytest.fixture(scope="module")
def sample():
    return decoded_source(SAMPLE)


@pytest.fixture(scope="module")
def files(sample, tmp_path_factory):
    """Return the path and the truth of every file."""
    found = []
    for number, case in enumerate(CASES):
        folder = tmp_path_factory.mktemp(f"file{number}")
        source = sample.at(case.times(len(sample.times) / FRAME_RATE))
        path = make(case, source, folder)
        found.append((path, measure(path, source, stream=case.stream)))
    return found


@pytest.mark.slow
def test_the_streams_lie_where_they_were_put(files):
    for case, (_, truth) in zip(CASES, files):
        expected = case.move_ms - 1000 * case.late_sound
        assert abs(truth.lag_ms - expected) < (EXACT_MS if case.rate == FRAME_RATE else PICKED_MS), case


@pytest.mark.slow
def test_the_lag_is_true(files):
    from syncnet import score_video

    errors = []
    for case, (path, truth) in zip(CASES, files):
        lag = score_video(path, mode="direct").to_dict()["lag_ms"]
        assert lag is not None, case
        errors.append(abs(lag - truth.lag_ms))
        assert errors[-1] < ALWAYS_MS, (case, lag, truth)
    assert sum(error < MOSTLY_MS for error in errors) >= MOSTLY * len(errors), dict(zip(map(str, CASES), errors))
