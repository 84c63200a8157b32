# ruff: noqa: F811, fixtures are imported
"""Tests of the workers' scratch folders (full, missing or left over) and of outputs that are kept from them."""

import errno
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from filter_fixtures import GOOD, POOR, folder, run_filter, stub, weights_files  # noqa: F401

from syncnet.errors import DiskFullError, SyncNetError
from syncnet.filter import ray_engine, scorer
from syncnet.filter.layout import FilterLayout, keep_outputs, kept_origin, scratch_root, video_layout, worker_scratch
from syncnet.results.layout import make_folder

FULL, OVER_QUOTA = (OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT))


@pytest.fixture
def failing_scorer(tmp_path, monkeypatch):
    """Make a ``Scorer`` without networks that raises an error instead of analysing a video."""

    def make(error):
        made = scorer.Scorer.__new__(scorer.Scorer)
        made.scratch, made.results, made.parameters = tmp_path / "scratch", None, SimpleNamespace(min_speaking=0.4)

        def analyse(path, layout, **_):
            raise error

        monkeypatch.setattr(made, "analyse", analyse)
        return made

    return make


def test_full_scratch_is_not_the_video_s_fault(failing_scorer):
    for error in (FULL, OVER_QUOTA):
        with pytest.raises(DiskFullError, match=rf"scratch: .*{error.strerror}: free space"):
            failing_scorer(error)("/v/a.mp4", "a.mp4")
    with pytest.raises(PermissionError):
        failing_scorer(PermissionError(errno.EACCES, "no"))("/v/a.mp4", "a.mp4")


def test_messages_name_no_flag_that_the_filter_lacks(tmp_path):
    made = scorer.Scorer.__new__(scorer.Scorer)
    made.scratch, made.results, made.parameters = tmp_path / "scratch", None, SimpleNamespace(min_speaking=0.4)
    score = made(str(tmp_path / "gone.mp4"), "gone.mp4")
    assert (score.status, score.error) == ("failed", "no such file")
    name = "two  spaces\nand a line.mp4"
    assert made(str(tmp_path / name), name).error == "no such file"


def outputs_in(scratch):
    layout = video_layout(scratch)
    for step in ("pycrop", "pywork"):
        make_folder(layout.folder(step))
        (layout.folder(step) / "file").write_text(step)
    return layout


def test_kept_outputs_know_their_origin(tmp_path):
    target, origin = tmp_path / "out" / "a.mp4", scorer.origin_of("/v/a.mp4", "recipe")
    assert kept_origin(target) is None
    keep_outputs(outputs_in(tmp_path / "scratch"), target, temporary=tmp_path / "temporary", origin=origin)
    assert kept_origin(target) == origin
    assert sorted(path.name for path in target.iterdir()) == ["analysis", "crops", "origin.json"]
    (target / "origin.json").write_text("{")
    assert kept_origin(target) is None


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (FULL, DiskFullError, "No space left on device"),
        (shutil.Error([("a", "b", str(FULL)), ("c", "d", "x")]), DiskFullError, str(FULL)),
        (PermissionError(errno.EACCES, "Permission denied"), SyncNetError, "Permission denied"),
    ],
)
def test_outputs_that_cannot_be_kept(tmp_path, monkeypatch, error, kind, words):
    def move(*_):
        raise error

    monkeypatch.setattr(shutil, "move", move)
    target = tmp_path / "out" / "a.mp4"
    with pytest.raises(SyncNetError) as raised:
        keep_outputs(outputs_in(tmp_path / "scratch"), target, temporary=tmp_path / "temporary", origin={})
    assert type(raised.value) is kind
    advice = "free space or check its permissions, then run the same command again"
    assert str(raised.value) == f"{target}: cannot write this folder ({words}): {advice}"
    assert not target.exists() and not (tmp_path / "temporary").exists()


def test_outputs_of_another_score_are_made_anew(run_filter, folder, stub, tmp_path):
    """Kept outputs are valid only for the video and the recipe that they were made from."""
    videos = folder(GOOD, POOR)
    run_filter(videos)
    [number] = json.loads((tmp_path / "out/recipes.json").read_text())
    own, foreign = (FilterLayout(tmp_path / "out").outputs(name) for name in (GOOD, POOR))
    for kept, path in ((own, videos / GOOD), (foreign, tmp_path / "elsewhere" / POOR)):
        make_folder(kept)
        (kept / "origin.json").write_text(json.dumps(scorer.origin_of(str(path), number)))
    before = len(stub())
    run_filter(videos, "--save_outputs")
    assert stub()[before:] == [POOR]
    run_filter(videos, "--save_outputs", "--crop_scale", "0.6")
    assert sorted(stub()[before + 1 :]) == [GOOD, POOR]


def test_tmp_dir_that_is_none(run_filter, folder, tmp_path, stub):
    (tmp_path / "file").touch()
    _, err = run_filter(folder(GOOD), "--tmp_dir", tmp_path / "file", code=1)
    assert "choose another --tmp_dir" in err and stub() == []


def test_scratch_of_a_killed_program_is_removed(run_filter, folder, tmp_path):
    mine = scratch_root(tmp_path / "fast", FilterLayout(tmp_path / "out"))
    others = scratch_root(tmp_path / "fast", FilterLayout(tmp_path / "other"))
    for left in (mine, others):
        make_folder(left / "123-0")
    run_filter(folder(GOOD), "--tmp_dir", tmp_path / "fast")
    assert not (mine / "123-0").exists() and (others / "123-0").exists()


def test_scratch_of_dead_processes_is_removed(tmp_path, monkeypatch):
    """Scratch of a killed actor is removed; that of a running one or of another machine on the same disk is not."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = worker_scratch(tmp_path, "ray-0")
    orphan = tmp_path / mine.name.replace(str(os.getpid()), str(dead.pid))
    others = tmp_path / f"elsewhere~{dead.pid}-ray-0"
    for scratch in (mine, orphan, others):
        (scratch / "pyframes").mkdir(parents=True)
    monkeypatch.setattr(ray_engine.logger, "propagate", ray_engine.logger.propagate)  # an actor changes it
    actor = ray_engine.Actor(lambda **_: None, tmp_path, 0, 1)
    assert actor.prepare() is None
    assert sorted(tmp_path.iterdir()) == sorted([mine, others])
