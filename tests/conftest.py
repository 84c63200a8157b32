"""Fixtures of all tests: weights, clips, and scripts run in this process."""

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
DETECT = ("--facedet_scale", "0.5", "--min_track", "10")  # suits clips.face_clip


@pytest.fixture(scope="session")
def shared():
    """Folder with the reference's figures and clips."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"no reference material at {SHARED} (SYNCNET_SHARED names another folder)")
    return SHARED


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Flags that name the weights of tests, by network."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(standins.red_square_detector(), folder / "s3fd.pt")
    torch.save(standins.light_and_loudness(), folder / "syncnet.pt")
    return {"--s3fd_weights": folder / "s3fd.pt", "--initial_model": folder / "syncnet.pt"}


@dataclass
class Ran:
    """How a script ended.

    Attributes:
        code: exit code.
        out, err: lines of stdout and stderr.
    """

    code: int
    out: list
    err: list


@pytest.fixture
def run(capfd, weights):
    """Run a script's main(argv) here, on the CPU and with the weights of the tests unless argv names others."""

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
    """Run run_pipeline on a clip, into a folder of the test's own; also returns the ``Layout``."""

    def call(clip, *argv, reference="me", data_dir=None):
        data_dir = data_dir or tmp_path / "data"
        flags = ("--data_dir", data_dir, f"--reference={reference}")
        return run("run_pipeline", f"--videofile={clip}", *flags, *DETECT, *argv), Layout(data_dir, reference)

    return call


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory):
    """1.4 s of one face."""
    return clips.face_clip(tmp_path_factory.mktemp("clips") / "face.mp4")


@pytest.fixture(scope="session")
def finished(face_clip, weights, tmp_path_factory):
    """A data folder that run_pipeline and run_syncnet have filled; copy it, don't write to it."""
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
def results(finished, tmp_path):
    """``Layout`` of a copy of ``finished``."""
    shutil.copytree(finished, tmp_path / "data")
    return Layout(tmp_path / "data", "me")


def forget():
    """Forget which ffmpeg was found and what is known of it."""
    for function in (find_ffmpeg, ffmpeg_version, behaviour, versions):
        function.cache_clear()


@pytest.fixture
def forget_ffmpeg():
    """Forget which ffmpeg was found, before and after a test that changes it."""
    forget()
    yield
    forget()


def running_ffmpegs():
    """Process ids of the ffmpegs that this process has started and that have not ended."""
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


def suite_threads():
    """Threads that could only be the suite's: neither this one nor tqdm's or torch's own."""
    return [t for t in threading.enumerate() if t is not threading.main_thread() and type(t).__name__ != "TMonitor"]


@pytest.fixture
def nothing_left_running():
    """No test leaves an ffmpeg or a thread behind."""
    before = set(suite_threads())
    yield
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (set(suite_threads()) - before or running_ffmpegs()):
        time.sleep(0.02)
    assert not running_ffmpegs()
    assert not set(suite_threads()) - before


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """A clip that ffmpeg has some work with."""
    return clips.face_clip(tmp_path_factory.mktemp("long") / "long.mp4", seconds=4, size="1280x720")
