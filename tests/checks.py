"""Assertions about runs that failed, or that found nothing to score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from syncnet.results.layout import Layout

if TYPE_CHECKING:
    from conftest import Ran


def one_error(ran: Ran, *words: object, code: int = 1) -> None:
    """Assert that a run ended with one line on stderr that contains all words."""
    assert ran.code == code, ran
    assert len(ran.err) == 1, ran.err
    assert ": error: " in ran.err[0]
    for word in words:
        assert str(word) in ran.err[0]
    assert "Traceback" not in "".join(ran.out + ran.err)


def nothing_half_finished(layout: Layout) -> None:
    """Assert that no temporary file or folder is left, and that tracks exist only with their clips."""
    if layout.data_dir.is_dir():
        assert not [path for path in layout.data_dir.rglob("*") if ".part" in path.name]
        assert not layout.tmp.exists()
    if layout.tracks.exists():
        assert layout.crops.is_dir()


def reason_codes(layout: Layout) -> list[str]:
    """Return the reason codes of a scores.json without tracks."""
    report = json.loads(layout.scores.read_text(encoding="utf-8"))
    assert report["tracks"] == []
    assert report["speakers"] == []
    return [reason["code"] for reason in report["reasons"]]


def nothing_to_use(layout: Layout, *codes: str) -> None:
    """Assert that a failed run left its reasons in scores.json and nothing a later step would take for results."""
    nothing_half_finished(layout)
    assert reason_codes(layout) == list(codes)
    assert not layout.crops.exists()
    assert not layout.tracks.exists()
    assert not layout.offsets.exists()


def scored_without_track(ran: Ran, layout: Layout, *codes: str) -> None:
    """Assert that a run succeeded without a track, with each reason in scores.json and on stderr."""
    assert ran.code == 0, ran
    nothing_half_finished(layout)
    assert reason_codes(layout) == list(codes)
    assert layout.crop_files() == []
    report = json.loads(layout.scores.read_text(encoding="utf-8"))
    for reason in report["reasons"]:
        assert [line for line in ran.err if line.endswith(reason["text"])], ran.err
