"""Tests of the filter's journal: lines are complete or absent, and only one program writes them."""

import errno
import json
import os

import filter_stub
import pytest
from filter_program import records

from syncnet.errors import DiskFullError, SyncNetError
from syncnet.filter import journal as journals
from syncnet.filter.inputs import Video
from syncnet.filter.journal import Journal
from syncnet.filter.outputs import Judged, result, row
from syncnet.filter.quality import DEFAULT, judge
from syncnet.filter.scorer import FAILED, SUCCESS, VideoScore


@pytest.fixture
def journal(tmp_path):
    return lambda: Journal(tmp_path / "results.jsonl", tmp_path / "recipes.json")


def scored(number):
    return Video(f"/v/{number}.mp4", f"{number}.mp4", 1, 2), VideoScore(SUCCESS, tracks=[filter_stub.track(0, 7.0, 1)])


def test_incomplete_line_is_cut_off_at_any_length(journal, tmp_path):
    first = journal()
    for number in range(3):
        first.append(*scored(number), recipe="r")
    whole = (tmp_path / "results.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0] + lines[1]), len(whole)):
        (tmp_path / "results.jsonl").write_bytes(whole[:cut])
        again = journal()
        assert paths(again) == ["/v/0.mp4", "/v/1.mp4"]
        again.append(*scored(2), recipe="r")
        assert (tmp_path / "results.jsonl").read_bytes() == whole
    (tmp_path / "results.jsonl").write_bytes(lines[0] + b"\0\0{garbage\n" + lines[1])
    assert paths(journal()) == ["/v/0.mp4", "/v/1.mp4"]


def derived(opened):
    """Return the results derived from all entries of a journal."""
    records = [record for recipe, paths in opened.entries.items() for record in opened.records(paths, recipe)]
    found = [(record, judge(record, DEFAULT), Judged(record["recipe"], None, [])) for record in records]
    return [(result(*each), row(*each)) for each in found]


def paths(opened):
    """Return the paths of all entries of a journal."""
    return [path for entries in opened.entries.values() for path in entries]


def test_damage_anywhere_in_a_line(journal, tmp_path):
    """A damaged line is ignored, or results can still be derived from it."""
    first = journal()
    for number in range(3):
        first.append(*scored(number), recipe="r")
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    kept = 0
    for at in range(len(lines[1]) - 1):
        damaged = lines[1][:at] + (b"y" if lines[1][at : at + 1] != b"y" else b"z") + lines[1][at + 1 :]
        (tmp_path / "results.jsonl").write_bytes(lines[0] + damaged + lines[2])
        again = journal()
        kept += len(paths(again)) - 2
        assert {"/v/0.mp4", "/v/2.mp4"} <= set(paths(again))
        assert len(derived(again)) == len(paths(again))
    assert 0 < kept < len(lines[1]) / 2  # damage within a string leaves a valid string


@pytest.mark.parametrize("crc32", [{}, {"crc32": 1}])
def test_lines_by_another_program(journal, tmp_path, crc32):
    first = journal()
    video, score = scored(0)
    record = first.append(video, score, recipe="r")
    line = {**record, "video_path": "/v/1.mp4", **crc32}
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    again = journal()
    assert paths(again) == ["/v/0.mp4", "/v/1.mp4"]
    assert len(derived(again)) == 2


def test_names_that_look_like_the_journal_s_own(journal):
    """Only the part of a line before its first list is decoded, whatever a name contains."""
    name = '"}, "tracks": [], "crc32": 7}\n.mp4'
    _, score = scored(0)
    first = journal()
    first.append(Video(f"/v/{name}", name, 1, 2), score, recipe="r")
    first.append(Video("/v/b", "b", 1, 2), score, recipe=name)
    again = journal()
    assert again.entries == first.entries
    assert [record["name"] for recipe in ("r", name) for record in again.records(paths(again), recipe)] == [name, "b"]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"r": '])
def test_damaged_recipes_cost_no_score(journal, tmp_path, caplog, text):
    journal().append(*scored(0), recipe="r")
    (tmp_path / "recipes.json").write_text(text)
    again = journal()
    assert paths(again) == ["/v/0.mp4"] and again.recipes == {}
    assert "recipes.json: damaged" in caplog.text


def test_failed_write_leaves_the_journal_as_it_was(journal, tmp_path, monkeypatch):
    first = journal()
    first.append(*scored(0), recipe="r")
    before = (tmp_path / "results.jsonl").read_bytes()
    write = os.write
    monkeypatch.setattr(journals.os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
    with pytest.raises(DiskFullError, match=r"results\.jsonl: cannot write to this file \(No space left"):
        first.append(*scored(1), recipe="r")
    assert (tmp_path / "results.jsonl").read_bytes() == before
    monkeypatch.undo()
    first.append(*scored(1), recipe="r")
    assert [record["name"] for record in records(tmp_path)] == ["0.mp4", "1.mp4"]


@pytest.mark.parametrize("written", [1.0, 0.5])
def test_interrupted_write_is_known(journal, tmp_path, monkeypatch, written):
    """After Ctrl-C between writing a line and adding its entry, a complete line counts and a partial one does not."""
    first = journal()
    first.append(*scored(0), recipe="r")
    write = os.write

    def interrupted(handle, data):
        write(handle, data[: int(len(data) * written)])
        raise KeyboardInterrupt

    monkeypatch.setattr(journals.os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.append(*scored(1), recipe="r")
    assert paths(first) == ["/v/0.mp4"]
    first.catch_up()
    known = ["/v/0.mp4", "/v/1.mp4"][: 1 + int(written)]
    assert paths(first) == known
    assert [record["video_path"] for record in first.records(known, "r")] == known
    assert paths(journal()) == known


def test_catching_up_with_nothing(journal):
    first = journal()
    first.catch_up()
    assert first.entries == {}


def test_later_lines_count(journal):
    first = journal()
    video, score = scored(0)
    first.append(video, VideoScore(FAILED, error="x"), recipe="r")
    first.append(video, score, recipe="r")
    again = journal()
    assert [record["status"] for record in again.records([video.path], "r")] == [SUCCESS]
    assert again.finished(video, "r") and not again.finished(video, "other")


def test_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(SyncNetError, match="x"), journals.locked(tmp_path / "lock"):
        raise SyncNetError("x")
    with (
        journals.locked(tmp_path / "lock"),
        pytest.raises(SyncNetError, match="another program"),
        journals.locked(tmp_path / "lock"),
    ):
        pass


def test_file_system_without_locks(tmp_path, monkeypatch):
    """The error does not say that another program holds the lock."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(journals.fcntl, "flock", flock)
    with pytest.raises(SyncNetError, match=r"cannot lock files.*--output_dir"), journals.locked(tmp_path / "lock"):
        pass
