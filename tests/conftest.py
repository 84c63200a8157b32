"""Fixtures for all tests: weights, clips, and scripts that run in this process."""

from __future__ import annotations

import importlib
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import clips
import pytest
import standins
import torch

from syncnet.media.ffmpeg import ffmpeg_version, find_ffmpeg
from syncnet.media.fingerprint import behaviour
from syncnet.results.layout import Layout
from syncnet.steps.versions import versions

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SYNCNET_SHARED", ROOT.parent / "shared"))
DETECT = ("--facedet_scale", "0.5", "--min_track", "10")  # for clips.face_clip


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with the reference figures and clips."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"no reference material at {SHARED} (SYNCNET_SHARED names another folder)")
    return SHARED


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Return the weights of the tests by the flag that names them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(standins.red_square_detector(), folder / "s3fd.pt")
    torch.save(standins.light_and_loudness(), folder / "syncnet.pt")
    return {"--s3fd_weights": folder / "s3fd.pt", "--initial_model": folder / "syncnet.pt"}


@dataclass
class Ran:
    """Result of a script.

    Attributes:
        code: Exit code.
        out: Lines of stdout.
        err: Lines of stderr.
    """

    code: int
    out: list[str]
    err: list[str]


@pytest.fixture
def run(capfd, weights):
    """Return a function that runs a script's main(argv), by default on the CPU and with the tests' weights."""

    def call(script, *argv):
        module = importlib.import_module(script)
        argv = list(map(str, argv))
        known = module.get_parser()._option_string_actions
        for flag, value in [*weights.items(), ("--device", "cpu")]:
            if flag in known and flag not in argv:
                argv += [flag, str(value)]
        capfd.readouterr()
        try:
            code = module.main(argv)
        except SystemExit as end:
            code = end.code
        out, err = capfd.readouterr()
        return Ran(code, out.splitlines(), err.splitlines())

    return call


@pytest.fixture
def pipeline(run, tmp_path):
    """Return a function that runs run_pipeline on a clip and returns the result and the ``Layout``."""

    def call(clip, *argv, reference="me", data_dir=None):
        data_dir = data_dir or tmp_path / "data"
        flags = ("--data_dir", data_dir, f"--reference={reference}")
        return run("run_pipeline", f"--videofile={clip}", *flags, *DETECT, *argv), Layout(data_dir, reference)

    return call


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory) -> Path:
    """Return a clip of one face, 1.4 s long."""
    # ffmpeg 9 ends AAC where the encoder's input ended: with a margin every version has audio for every frame
    path = tmp_path_factory.mktemp("clips") / "face.mp4"
    return clips.face_clip(path, audio=clips.tone(seconds=1.6))


@pytest.fixture(scope="session")
def finished(face_clip, weights, tmp_path_factory) -> Path:
    """Return a data folder filled by run_pipeline and run_syncnet. Copy it; do not write to it."""
    import run_pipeline
    import run_syncnet

    data_dir = tmp_path_factory.mktemp("finished")
    flags = ["--data_dir", str(data_dir), "--reference", "me", "--device", "cpu", "--quiet"]
    detector, model = (str(weights[flag]) for flag in ("--s3fd_weights", "--initial_model"))
    clip = ["--videofile", str(face_clip)]
    assert run_pipeline.main([*clip, *flags, *DETECT, "--s3fd_weights", detector]) == 0
    assert run_syncnet.main([*flags, "--initial_model", model]) == 0
    return data_dir


@pytest.fixture
def results(finished, tmp_path) -> Layout:
    """Return the ``Layout`` of a copy of ``finished``."""
    shutil.copytree(finished, tmp_path / "data")
    return Layout(tmp_path / "data", "me")


def forget() -> None:
    """Clear the caches of the ffmpeg in use and its properties."""
    for function in (find_ffmpeg, ffmpeg_version, behaviour, versions):
        function.cache_clear()


@pytest.fixture
def forget_ffmpeg():
    """Clear the caches of ffmpeg before and after a test that changes it."""
    forget()
    yield
    forget()


def running_ffmpegs() -> list[int]:
    """Return the ids of ffmpeg processes that this process started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if "ffmpeg" in name and int(parent) == os.getpid() and state != "Z":
            found.append(int(stat.parent.name))
    return found


def suite_threads() -> list[threading.Thread]:
    """Return the threads that can only be the suite's, without the main thread and tqdm's monitor."""
    return [t for t in threading.enumerate() if t is not threading.main_thread() and type(t).__name__ != "TMonitor"]


@pytest.fixture
def nothing_left_running():
    """Assert that a test leaves no ffmpeg and no thread behind."""
    before = set(suite_threads())
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (set(suite_threads()) - before or running_ffmpegs()):
        time.sleep(0.02)
    assert not running_ffmpegs()
    assert not set(suite_threads()) - before


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """Return a clip that takes ffmpeg a noticeable time."""
    return clips.face_clip(tmp_path_factory.mktemp("long") / "long.mp4", seconds=4, size="1280x720")
