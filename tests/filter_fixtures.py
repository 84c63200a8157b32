"""Fixtures for tests of the filter with the scorer of filter_stub."""

import hashlib
import json
from dataclasses import replace

import filter_stub
import pytest

import filter_videos_by_sync_score as script
from syncnet.filter import scorer
from syncnet.models import weights

GOOD, POOR, EARLY, EDGE, FACELESS = "g.c7.2.o1.mp4", "p.c3.1.o0.mp4", "e.c9.o-6.mp4", "edge.c9.o15.mp4", "none.mp4"


@pytest.fixture
def stub(monkeypatch, tmp_path):
    """Use the scorer of filter_stub; return a function that lists the started videos."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("STUB_LOG", str(log))
    monkeypatch.setattr(scorer, "load_scorer", filter_stub.load_scorer)
    return lambda: log.read_text().splitlines()


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a folder of text files with names of videos."""

    def make(*names, into="videos"):
        for name in names:
            path = tmp_path / into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {into}/{name}")
        return tmp_path / into

    return make


@pytest.fixture
def weights_files(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
    return ("--initial_model", str(tmp_path / "a.pt"), "--s3fd_weights", str(tmp_path / "b.pt"))


@pytest.fixture
def published_weights(weights_files, monkeypatch):
    """Let the SyncNet weights of the tests count as the published ones."""
    checksum = hashlib.sha256(b"a.pt").hexdigest()
    monkeypatch.setattr(weights, "SYNCNET", replace(weights.SYNCNET, sha256=checksum))


@pytest.fixture
def run_filter(stub, tmp_path, weights_files, capfd):
    """Return a function that runs the filter on a folder and returns sync_filter_results.json and stderr.

    With ``--rescore never`` it names no weights, because they would select the recipe.
    """

    def call(videos, *flags, output="out", code=0):
        source = ["--input_dir", str(videos)] if videos else []
        output_dir = tmp_path / output
        weights = () if "never" in flags else weights_files
        capfd.readouterr()
        try:
            got = script.main([*source, "--output_dir", str(output_dir), *weights, *map(str, flags)])
        except SystemExit as end:
            got = end.code
        out, err = capfd.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert got == code, err
        results = output_dir / "sync_filter_results.json"
        return json.loads(results.read_text()) if results.exists() else None, err

    return call


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")


def placed(tmp_path, output="out"):
    root = tmp_path / output
    return [name for name in files(root) if "quality/" in name]


def by_name(results):
    return {result["name"]: result for result in results["results"]}
