"""Jumps and drifts of the offset within a track, in synthetic distances whose answer is known."""

import numpy as np
import pytest

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, WINDOW_FRAMES
from syncnet.defaults import VSHIFT
from syncnet.steps import doubts
from syncnet.sync import changes, scoring

COLUMNS = np.arange(2 * VSHIFT + 1)
FAR, DEPTH = 15.0, 8.0  # distances: far from the minimum, and how far they fall there on average
WIDTH = 1.6  # of the minimum, in columns
NOISE = 1.5
WINDOWS = 275
PLACE_TOLERANCE = 8  # frames
SEEDS = range(10)


def distances(offsets, *, depth=DEPTH, seed=0):
    """Return distances of windows with these offsets, in frames; windows that overlap have similar noise."""
    rng = np.random.default_rng(seed)
    offsets = np.asarray(offsets, float)
    places = VSHIFT - offsets[:, None]
    depths = np.broadcast_to(depth, len(offsets)) * rng.uniform(0, 2, len(offsets))
    rough = rng.normal(size=(len(offsets) + WINDOW_FRAMES - 1, len(COLUMNS) + WINDOW_FRAMES - 1))
    smooth = np.lib.stride_tricks.sliding_window_view(rough, (WINDOW_FRAMES, WINDOW_FRAMES)).mean(axis=(2, 3))
    valley = depths[:, None] * np.exp(-((COLUMNS - places) ** 2) / (2 * WIDTH**2))
    return (FAR - valley + NOISE * WINDOW_FRAMES * smooth).astype(np.float32)


def find(dists, *, heard=True):
    return changes.find(dists, heard=np.broadcast_to(heard, len(dists) + WINDOW_FRAMES))


def step(at, before, after, *, windows=WINDOWS):
    return np.where(np.arange(windows) < round(at * windows), before, after)


@pytest.mark.parametrize("frames", [3, -3, 4, -6, 10])
@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_jumps_are_found(frames, at):
    for seed in SEEDS:
        found = find(distances(step(at, 1, 1 - frames), seed=seed))
        assert found is not None and not found.is_drift
        [only] = found.steps
        assert (only.before, only.after) == (1, 1 - frames)
        assert abs(only.frame - changes.CENTRE - at * WINDOWS) <= PLACE_TOLERANCE


def test_several_jumps_are_found():
    offsets = np.repeat([0, -6, 2], 120)
    found = find(distances(offsets))
    assert [(one.before, one.after) for one in found.steps] == [(0, -6), (-6, 2)] and not found.is_drift


@pytest.mark.parametrize(("speed", "seconds"), [(2, 30), (3, 30), (10, 20), (-10, 30), (1, 60), (-3, 60), (10, 60)])
def test_drifts_are_found(speed, seconds):
    total = speed * seconds / MILLISECONDS_PER_FRAME
    for seed in SEEDS[:5]:
        found = find(distances(np.linspace(total / 2, -total / 2, seconds * FRAME_RATE), seed=seed))
        assert found is not None and found.is_drift
        [only] = found.steps
        assert abs(only.before - only.after - total) <= 1.2


def test_a_drift_that_leaves_the_range_is_found():
    found = find(distances(np.linspace(0, -18, 45 * FRAME_RATE)))
    assert found.is_drift and found.steps[0].after < -12


def alternating(windows=WINDOWS):
    return DEPTH * (np.arange(windows) // 40 % 2)


@pytest.mark.parametrize(
    ("offsets", "depth"),
    [
        (np.zeros(WINDOWS), DEPTH),
        (np.full(WINDOWS, -7), DEPTH),
        (np.zeros(60 * FRAME_RATE), DEPTH),
        (np.zeros(WINDOWS), 0.0),  # a listener
        (np.zeros(1000), 0.0),
        (np.zeros(WINDOWS), alternating()),
        (np.zeros(WINDOWS), DEPTH * step(0.5, 1, 0)),  # talks in one half only
        (np.zeros(WINDOWS), DEPTH * step(0.25, 0, 1)),
        (np.zeros(1000), DEPTH * step(0.5, 1, 0, windows=1000)),
        (step(0.5, 0, 1), DEPTH),  # a lag between two frames
        (np.linspace(0.25, -0.25, 30 * FRAME_RATE), DEPTH),  # 20 ms
        (step(0.5, 0, -6, windows=40), DEPTH),  # too short to tell
    ],
)
def test_no_change_where_there_is_none(offsets, depth):
    for seed in SEEDS:
        assert find(distances(offsets, depth=depth, seed=seed)) is None


def test_silence_has_no_offset():
    """The features of silence, and of what is beyond the sound, are the same at all shifts."""
    dists = distances(np.zeros(WINDOWS))
    dists[150:] = dists[150:, :1]
    for column in COLUMNS:
        ends = np.arange(WINDOWS) + column - VSHIFT >= WINDOWS
        dists[ends, column] = 6.0
    assert find(dists) is None
    assert find(np.full((WINDOWS, len(COLUMNS)), 8.0, np.float32)) is None


def test_a_stretch_needs_speech():
    dists = distances(step(0.5, 0, -6))
    assert find(dists) is not None
    assert find(dists, heard=np.arange(WINDOWS + WINDOW_FRAMES) < WINDOWS // 2) is None


def test_other_units_give_the_same():
    dists = distances(step(0.5, 0, -6))
    assert find(3 * dists) == find(dists)


def of_track(dists, *, heard=True):
    frames = len(dists) + WINDOW_FRAMES
    score = scoring.score(dists, video_frames=frames, audio_frames=frames)
    return doubts.of_track(score, np.broadcast_to(heard, frames), start=2.0)


def test_reasons_name_times_and_offsets():
    [jump] = of_track(distances(np.repeat([0, -6], 150)))
    assert jump.code == reasons.OFFSET_CHANGES
    assert "from 0 to -6 at 8." in jump.text and "cut" in jump.text
    [drift] = of_track(distances(np.linspace(2.5, -2.5, 748 - WINDOW_FRAMES)))
    assert drift.code == reasons.OFFSET_CHANGES
    assert "at 2.0 s" in drift.text and "at 31.9 s" in drift.text and "--fix_drift" in drift.text
    [short] = of_track(distances(np.linspace(2.5, -2.5, 400 - WINDOW_FRAMES)))
    assert short.code == reasons.OFFSET_CHANGES and "drifts" in short.text
    assert "--fix_drift" not in short.text, "which is refused in tracks without a drift of their own"
    assert of_track(distances(np.zeros(WINDOWS))) == []


@pytest.mark.parametrize(("windows", "few"), [(1, True), (29, True), (30, False), (100, False)])
def test_few_windows(windows, few):
    found = of_track(distances(np.zeros(windows)))
    assert [reason.code for reason in found] == [reasons.FEW_WINDOWS] * few
    assert all(f"{windows} windows" in reason.text and "30" in reason.text for reason in found)


def test_a_track_is_silent_unless_it_is_heard_for_five_frames():
    frames = np.arange(100 + WINDOW_FRAMES)
    [silent] = of_track(distances(np.zeros(100)), heard=frames < 4)
    assert silent.code == reasons.SILENT and "4 of the 105" in silent.text
    assert of_track(distances(np.zeros(100)), heard=(frames >= 50) & (frames < 55)) == []
