"""What the benchmarks of few_windows and offset_changes count, in dialogues whose answer is known."""

import numpy as np
import pytest

from benchmarks import changes, few_windows
from benchmarks.dialogues import NOBODY
from benchmarks.speakers import Scored
from syncnet.defaults import VSHIFT
from syncnet.sync.speakers import CENTRE

FAR, NEAR, NOISE = 15.0, 5.0, 0.5  # distances, and their spread
WINDOWS = 400


@pytest.fixture(scope="module")
def dialogue():
    """Return a dialogue of two faces that speak for half of it each, 80 ms late."""
    rng = np.random.default_rng(0)
    dists = rng.normal(FAR, NOISE, (2, WINDOWS, 2 * VSHIFT + 1)).astype(np.float32)
    speaker = np.full(WINDOWS + 2 * CENTRE, NOBODY)
    for face, part in enumerate((slice(0, WINDOWS // 2), slice(WINDOWS // 2, WINDOWS))):
        dists[face, part, VSHIFT + 2] -= FAR - NEAR
        speaker[part.start + CENTRE : part.stop + CENTRE] = face
    frames = len(speaker)
    audio = rng.normal(0, 3000, frames * 640).astype(np.int16)
    return Scored("rendered", (), True, [0, 0], [frames] * 2, list(dists), audio, speaker, [], -80.0)


def test_right_and_wrong_pairs(dialogue):
    [(count, right, wrong)] = few_windows.rows([dialogue], counts=(20,))
    assert count == 20 and len(right) == len(wrong) == WINDOWS // 20
    assert right.min() > 8 > 2 > wrong.max()
    assert few_windows.share_above(right, wrong) == 0
    assert "20" in list(few_windows.table([(count, right, wrong)]))[1]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([{6: 0.4, 20: 0.06, 25: 0.05, 30: 0.0}], 25),
        ([{6: 0.4, 20: 0.0, 25: 0.0}, {6: 0.5, 20: 0.1, 25: 0.01}], 25),
        ([{6: 0.0, 20: 0.2, 25: 0.01}], 25),  # from 6 on would be chance
        ([{6: 0.2}], None),
    ],
)
def test_the_smallest_number_that_is_enough(shares, expected):
    assert few_windows.enough(shares) == expected


def test_changes_are_counted(dialogue):
    assert changes.own_tracks([dialogue]) == [None, None]
    found = dict(changes.shares([dialogue], 12, count=2))
    assert found["speaker"] == found["listener"] == found["half"] == 0
    assert found["jump of 6 at 50%"] == found["jump of 3 at 25%"] == 1
    assert found["drift of 1 ms/s"] == 0 and found["drift of 10 ms/s, as a drift"] == 1
