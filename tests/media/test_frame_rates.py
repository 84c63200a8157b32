"""Conversion to 25 fps: every ffmpeg selects the same frames as ffmpeg 5.1, on which published scores depend.

frame_goldens.json contains the result of ``ffmpeg 5.1 -r 25`` for each video of ``numbered.cases``. To regenerate it:
``SYNCNET_FFMPEG=/path/to/ffmpeg-5.1 python -m tests.frame_goldens``.
"""

import json
from pathlib import Path

import pytest

from syncnet.media import frame_rate
from syncnet.media.containers import read_timing
from syncnet.media.frame_rate import irregular_frames
from tests import numbered

GOLDENS = json.loads((Path(__file__).parent / "frame_goldens.json").read_text(encoding="utf-8"))
CASES = numbered.cases()


def test_every_case_has_a_golden():
    assert set(CASES) == set(GOLDENS)
    assert any(golden["numbers"] != list(range(len(golden["numbers"]))) for golden in GOLDENS.values())


@pytest.mark.parametrize("name", CASES)
def test_frames_equal_those_of_ffmpeg_5(name, tmp_path):
    suffix, arguments = CASES[name]
    source = numbered.write(tmp_path / f"source{suffix}", **arguments)
    numbers, frames_in_avi = numbered.converted(source, tmp_path)
    assert numbers == GOLDENS[name]["numbers"]
    assert frames_in_avi == GOLDENS[name]["frames_in_avi"]


def test_only_relevant_frame_durations_are_in_the_filter(tmp_path):
    suffix, arguments = CASES["variable 60, b0.mp4"]
    timing = read_timing(numbered.write(tmp_path / f"a{suffix}", **arguments))
    assert 0 < len(irregular_frames(timing)) < len(timing.frames) / 4


def test_search_tree_of_many_durations():
    """20,000 durations give an expression that exceeds the length limit of an argument."""
    pairs = [(ticks, 0.5) for ticks in range(10**9, 10**9 + 20000)]
    text = f"st(3,PTS);st(1,{frame_rate.search_tree(pairs, '1')});PTS"
    assert len(text) > 1_000_000
