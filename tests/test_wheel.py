"""The suite installed from a wheel: what is in it, and its commands away from the checkout."""

import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from syncnet import console
from syncnet.models import weights

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    "pyproject.toml",
    "README.md",
    "LICENSE.md",
    "*.py",
    "syncnet",
    "detectors",
    "data/starter",
    "training",
    "tests",
)
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "def get_parser" in path.read_text(encoding="utf-8"))
COMMANDS = dict(re.findall(r'^(\w+) = "syncnet\.console:(\w+)"$', PROJECT, re.MULTILINE))
# What moves a number of the results.
PINNED = {"imageio-ffmpeg", "opencv-python", "scenedetect", "python_speech_features"}


def listed(key: str) -> list[str]:
    """Return the strings of a list in pyproject.toml."""
    (body,) = re.findall(rf"^{key} = \[(.*?)^\]", PROJECT, re.MULTILINE | re.DOTALL)
    return re.findall(r'"([^"]+)"', body)


def test_every_module_and_package_is_listed():
    assert listed("py-modules") == sorted(path.stem for path in ROOT.glob("*.py"))
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("syncnet", "detectors")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed("packages") == sorted({*packages, weights.PACKAGED_STARTER.replace("/", ".")})


def test_every_script_is_a_command():
    assert {name: name for name in [*SCRIPTS, "download_models"]} == COMMANDS
    assert all(callable(getattr(console, name)) for name in COMMANDS)
    assert all(callable(importlib.import_module(name).main) for name in SCRIPTS)


def test_dependencies_are_those_of_the_requirements():
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^([\w-]+)==([\d.]+)", requirements, re.MULTILINE)
    found = {re.split("[=>]=", line)[0]: line for line in listed("dependencies")}
    assert found.keys() == {name for name, _ in pins}
    for name, line in found.items():
        versions = [version for pinned, version in pins if pinned == name]
        if name in PINNED:
            assert line == f"{name}=={versions[0]}"
        else:
            least = numbers(line.partition(">=")[2])
            assert all(least <= numbers(version) for version in versions), line


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy because a build leaves files beside the sources."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in [path for pattern in SOURCES for path in ROOT.glob(pattern)]:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy)
    pip(sys.executable, "wheel", "--no-build-isolation", "--wheel-dir", dist, source)
    (built,) = dist.glob("*.whl")
    return built


def pip(python: str | Path, *arguments: str | Path) -> None:
    command, *rest = arguments
    call = [python, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", *rest]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel, which also sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "libraries.pth").write_text("\n".join(places) + "\n", encoding="utf-8")
    pip(folder / "bin/python", "install", wheel)
    return folder


@pytest.fixture
def command(environment: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run an installed command in a folder of the test's own, with an empty home folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()

    def run(name: str, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess:
        kept = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if key in os.environ}
        return subprocess.run(
            [environment / "bin" / name, *arguments],
            cwd=tmp_path / "work",
            env={**kept, "HOME": str(tmp_path / "home"), **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_wheel_has_the_suite_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0].removesuffix(".py") for name in names if ".dist-info/" not in name}
    assert tops == {*listed("py-modules"), "syncnet", "detectors"}
    sources = {str(path.relative_to(ROOT)) for top in ("syncnet", "detectors") for path in (ROOT / top).rglob("*.py")}
    assert sources <= names
    assert {"syncnet/starter/syncnet.pt", "syncnet/starter/s3fd.pt", "syncnet/starter/MODEL_CARD.md"} <= names
    assert "syncnet/starter/lag_zero.json" in names


@pytest.mark.slow
def test_the_sample_is_scored_from_another_folder(command, environment, tmp_path):
    video = tmp_path / "sample.mp4"
    shutil.copy(ROOT / "data/sample.mp4", video)
    flags = ["--videofile", video, "--reference", "sample", "--data_dir", "results", "--device", "cpu"]
    (package,) = environment.glob("lib/python*/site-packages/syncnet/starter")
    for name, starter in (("run_pipeline", "s3fd.pt"), ("run_syncnet", "syncnet.pt")):
        done = command(name, *flags)
        assert done.returncode == 0, done.stderr
        assert f"starter weights ({package / starter})" in done.stderr
        assert "download_models" in done.stderr
        assert str(tmp_path / "home") in done.stderr  # where the published weights would be
    results = tmp_path / "work/results/pywork/sample"
    assert (results / "offsets.txt").read_text().startswith("TRACK 0: OFFSET ")
    recipe = json.loads((results / "scores.json").read_text())["recipe"]
    assert sha256(package / "syncnet.pt") in json.dumps(recipe)
    assert sha256(package / "s3fd.pt") in json.dumps(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(command, name):
    done = command(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name} ")
    assert done.stderr == ""


@pytest.mark.slow
def test_exit_codes_are_the_scripts(command):
    assert command("run_pipeline", "--no_such_flag").returncode == 2
    assert command("run_syncnet").returncode == 2
    done = command("run_pipeline", "--videofile", "none.mp4", "--reference", "none")
    assert done.returncode == 1
    assert done.stderr.startswith("run_pipeline: error: ")


@pytest.mark.slow
def test_downloads_go_to_the_chosen_folder(command, tmp_path):
    mirror = "http://127.0.0.1:1"
    chosen = tmp_path / "models"
    (chosen / "data").mkdir(parents=True)
    (chosen / "data/syncnet_v2.model").write_bytes(b"not it")
    unreachable = {"http_proxy": mirror, "https_proxy": mirror}
    done = command("download_models", SYNCNET_HOME=str(chosen), SYNCNET_TIMEOUT="5", **unreachable)
    assert done.returncode == 1
    for known in (weights.SYNCNET, weights.S3FD):
        assert f"{chosen / known.published}: not downloaded" in done.stderr
    assert "download_models: 3 missing" in done.stderr
    assert [path.name for path in chosen.rglob("*") if path.is_file()] == ["syncnet_v2.model"]


@pytest.mark.slow
def test_sigterm_ends_a_command_as_ctrl_c_does(environment, tmp_path):
    """The command waits for a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        variables = {"SYNCNET_HOME": str(tmp_path), "SYNCNET_MIRROR": address, "no_proxy": "127.0.0.1"}
        started = subprocess.Popen(
            [environment / "bin/download_models"], env=variables, stderr=subprocess.PIPE, text=True
        )
        connection, _ = server.accept()
        started.send_signal(signal.SIGTERM)
        _, err = started.communicate(timeout=60)
        connection.close()
    assert started.returncode == 130
    assert "download_models: interrupted" in err
