"""Lag far below a frame, its error and drift: synthetic curves, and rendered people whose sound is moved."""

import re

import numpy as np
import pytest

from benchmarks.lag_error import STRETCHES, Stretch, stretches, table, take_distances
from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, WINDOW_FRAMES
from syncnet.defaults import VSHIFT
from syncnet.sync import lag, scoring
from syncnet.sync.lag import Lag
from SyncNetInstance import SyncNetInstance
from training.face.talking_face import render_clip
from training.syncnet.clips import delayed
from training.syncnet.lag_zero import audio_features, video_features

COLUMNS = np.arange(2 * VSHIFT + 1)
FLOOR, DEPTH = 120.0, 45.0  # squared distances: far from the minimum, and how far they fall there
WIDTH = 1.6  # of the minimum, in columns
NOISE = 12.0


def distances(lag_ms, *, windows=125, drift_ms_per_min=0.0, noise=NOISE, seed=0):
    """Distances whose squares are a Gaussian valley; windows that overlap have similar noise, as in speech."""
    rng = np.random.default_rng(seed)
    minutes = (np.arange(windows) - (windows - 1) / 2) / (60 * FRAME_RATE)
    places = VSHIFT - (lag_ms + drift_ms_per_min * minutes) / MILLISECONDS_PER_FRAME
    depth = DEPTH * rng.uniform(0, 2, windows)
    valley = depth[:, None] * np.exp(-((COLUMNS - places[:, None]) ** 2) / (2 * WIDTH**2))
    rough = rng.normal(size=(windows + WINDOW_FRAMES - 1, len(COLUMNS) + WINDOW_FRAMES - 1))
    smooth = np.lib.stride_tricks.sliding_window_view(rough, (WINDOW_FRAMES, WINDOW_FRAMES)).mean(axis=(2, 3))
    return np.sqrt(np.maximum(FLOOR - valley + noise * WINDOW_FRAMES * smooth, 1.0)).astype(np.float32)


@pytest.mark.parametrize("lag_ms", [-370, -115, -55, -20, -7.5, 0, 3, 20, 35, 75, 260])
def test_lag_far_below_a_frame(lag_ms):
    assert lag.measure(distances(lag_ms, noise=0)).ms == pytest.approx(lag_ms, abs=0.2)


@pytest.fixture(scope="module")
def net():
    net = SyncNetInstance("cpu")
    net.loadParameters("data/starter/syncnet.pt")
    return net


@pytest.fixture(scope="module")
def rendered(net):
    """Video features and samples of a rendered person."""
    clip = render_clip(9500, 6.0)
    return video_features(net, clip.frames), clip.audio


def test_lag_is_not_drawn_towards_whole_frames(net, rendered):
    """Sound moved over a frame is followed; a parabola through mean distances would be wrong by up to 3 ms."""
    video, samples = rendered
    moved = range(-20, 25, 5)
    errors = []
    for early_ms in moved:
        audio = audio_features(net, delayed(samples, -early_ms * 16))
        errors.append(lag.measure(scoring.distances(video, audio, vshift=VSHIFT)).ms - early_ms)
    assert np.ptp(errors) < 2
    assert abs(np.mean(errors)) < 6


def test_zero_and_late_pictures_move_the_lag():
    """Pictures from after their windows' times fit later sound, which looks late."""
    dists = distances(30)
    plain = lag.measure(dists)
    moved = lag.measure(dists, zero_ms=4.0, picture_ms=1.5)
    assert moved.ms == pytest.approx(plain.ms - 4.0 + 1.5)
    assert moved.error_ms == plain.error_ms


def test_only_windows_with_audio_count():
    """Of the last 200 windows no audio exists; whatever they are compared with must not matter."""
    dists = distances(-55, windows=400)
    spoilt = dists.copy()
    spoilt[200:] = distances(-10, windows=200)
    assert lag.measure(spoilt, audio=range(-VSHIFT, 202)).ms == pytest.approx(lag.measure(dists[:200]).ms, abs=1)
    assert lag.measure(spoilt).ms > -45


@pytest.mark.parametrize("lag_ms", [-VSHIFT * 40, VSHIFT * 40])
def test_at_the_edge_the_error_is_the_whole_search(lag_ms):
    found = lag.measure(distances(lag_ms, windows=600, noise=0))
    assert found == Lag(lag_ms, VSHIFT * 40)


def test_without_any_audio_the_error_is_the_whole_search():
    assert lag.measure(distances(0), audio=range(0)).error_ms == VSHIFT * 40


@pytest.mark.parametrize("vshift", [1, 2, 3])
def test_small_searches(vshift):
    dists = distances(12, noise=0)[:, VSHIFT - vshift : VSHIFT + vshift + 1]
    assert lag.measure(dists).ms == pytest.approx(12, abs=6)


def test_two_windows_say_nothing():
    assert lag.measure(distances(0, noise=0)[:2]) == Lag(0.0, VSHIFT * 40)


def test_error_covers_and_shrinks():
    """Synthetic stretches: 95 % of intervals contain the true lag, and four times the windows halve them."""
    widths = {}
    for windows in (60, 240):
        found = [lag.measure(distances(14, windows=windows, seed=seed)) for seed in range(200)]
        covered = np.mean([abs(some.ms - 14) <= some.error_ms for some in found])
        assert 0.9 <= covered <= 0.99
        widths[windows] = np.median([some.error_ms for some in found])
    assert widths[240] == pytest.approx(widths[60] / 2, rel=0.3)


def test_error_is_the_same_every_time():
    assert lag.measure(distances(5)) == lag.measure(distances(5))


@pytest.mark.slow
def test_error_covers_rendered_people(net):
    found = []
    for seed in (9600, 9601):
        found += stretches([take_distances(net, seed, take, seconds=14.0) for take in range(2)])
    assert len(found) >= 50
    assert np.mean([abs(some.error) <= some.half_width for some in found]) >= 0.88


def test_table_of_coverage():
    some = [Stretch(2, 1.0, 2.0), Stretch(2, -3.0, 2.0), Stretch(5, 1.0, 1.0)]
    lines = table(some)
    assert [line.split()[:3] for line in lines[1:]] == [
        ["2", "2", "50.0%"],
        ["5", "1", "100.0%"],
        ["all", "3", "66.7%"],
    ]
    assert {2, 5} <= set(STRETCHES)


@pytest.mark.parametrize("drift", [-300, -60, -10, 10, 60, 300])
def test_drift(drift):
    found = lag.measure(distances(40, windows=60 * FRAME_RATE, drift_ms_per_min=drift))
    assert found.drift_ms_per_min == pytest.approx(
        drift, abs=max(0.05 * abs(drift), found.drift_error_ms_per_min * 1.5)
    )
    assert found.drift_error_ms_per_min < 10
    assert found.ms == pytest.approx(40, abs=max(1.0, found.error_ms * 1.5))


def test_no_drift_is_within_its_error():
    found = [lag.measure(distances(-18, windows=600, seed=seed)) for seed in range(200)]
    covered = np.mean([abs(some.drift_ms_per_min) <= some.drift_error_ms_per_min for some in found])
    assert 0.9 <= covered <= 0.99


def test_short_tracks_have_no_drift():
    found = lag.measure(distances(0, windows=20 * FRAME_RATE))
    assert found.drift_ms_per_min is None
    assert found.drift_error_ms_per_min is None
    assert lag.measure(distances(0, windows=20 * FRAME_RATE + 1)).drift_ms_per_min is not None


def test_drift_beyond_the_search_is_not_given():
    found = lag.measure(distances(560, windows=60 * FRAME_RATE, drift_ms_per_min=200))
    assert found.drift_ms_per_min is None


def test_video_is_weighted_by_error():
    lags = [(5.0, Lag(10.0, 1.0)), (3.0, Lag(40.0, 2.0)), (2.9, Lag(500.0, 1.0))]
    found = lag.of_video(lags)
    assert found.ms == pytest.approx((10 + 40 / 4) / 1.25)
    assert found.error_ms == pytest.approx(1 / np.sqrt(1.25))


def test_video_without_a_single_lag():
    apart = lag.of_video([(5.0, Lag(-20.0, 1.0)), (5.0, Lag(40.5, 1.0))])
    assert isinstance(apart, reasons.Reason)
    assert apart.code == reasons.TRACKS_DISAGREE
    assert isinstance(lag.of_video([(5.0, Lag(-20.0, 1.0)), (5.0, Lag(40.0, 1.0))]), Lag)
    for lags in ([], [(2.99, Lag(0.0, 1.0))]):
        assert lag.of_video(lags).code == reasons.NO_CONFIDENT_TRACK


@pytest.mark.parametrize(
    ("lag_ms", "where", "ebu", "atsc", "noticed"),
    [
        (15, "15 ms early", True, True, False),
        (16, "16 ms early", True, False, False),
        (41, "41 ms early", False, False, False),
        (46, "46 ms early", False, False, True),
        (-45, "45 ms late", True, True, False),
        (-60, "60 ms late", True, False, False),
        (-61, "61 ms late", False, False, False),
        (-126, "126 ms late", False, False, True),
        (0.2, "neither early nor late", True, True, False),
    ],
)
def test_tolerances(lag_ms, where, ebu, atsc, noticed):
    text = lag.tolerances(lag_ms)
    assert text.startswith(f"The sound is {where}: ")
    assert ("within EBU R37" in text) == ebu
    assert ("outside EBU R37" in text) != ebu
    assert ("within ATSC IS-191" in text) == atsc
    assert ("viewers may notice" in text) == noticed
    assert re.findall(r"\d+ ms early, \d+ ms late", text) == [
        "40 ms early, 60 ms late", "15 ms early, 45 ms late", "45 ms early, 125 ms late",
    ]  # fmt: skip
    assert "\n" not in text
