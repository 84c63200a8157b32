"""download_models, in Python, against the server of download_model.sh's tests: the same rules and messages."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import test_download as shell
from test_download import CONTENT, CUT, closes_early, fails_on_resume, whole, without_ranges, wrong

from syncnet import download
from syncnet.models import weights

ROOT = Path(__file__).resolve().parent.parent
running_server, server = shell.running_server, shell.server
DEAD = "http://127.0.0.1:1"


@dataclass
class Ran:
    """How a download ended.

    Attributes:
        code: exit code.
        err: stderr.
    """

    code: int
    err: str


def file(path: str, *addresses: str, content: bytes = CONTENT) -> download.Published:
    return download.Published(path, len(content), hashlib.sha256(content).hexdigest(), addresses)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout, with a space and a quote in its name."""
    folder = tmp_path / "it's a suite"
    folder.mkdir()
    monkeypatch.setattr(weights, "ROOT", folder)
    for name in ("SYNCNET_MIRROR", "SYNCNET_HOME", "SYNCNET_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def run(suite, monkeypatch, capsys) -> Callable[..., Ran]:
    """Run the command on these files, with these environment variables."""

    def call(*files: download.Published, **environment: str) -> Ran:
        monkeypatch.setattr(download, "FILES", files)
        for name, value in {"SYNCNET_TIMEOUT": "5", **environment}.items():
            monkeypatch.setenv(name, value)
        code = download.main([])
        out, err = capsys.readouterr()
        assert out == ""
        return Ran(code, err)

    return call


def test_files_arrive_complete_under_their_names(server, suite, run):
    server.behaviour = {"/a": whole, "/b": whole}
    done = run(file("data/a.bin", server.url + "/a"), file("deep/er/b.bin", server.url + "/b"))
    assert done.code == 0, done.err
    assert "All there" in done.err
    assert (suite / "data/a.bin").read_bytes() == CONTENT
    assert (suite / "deep/er/b.bin").read_bytes() == CONTENT
    assert sorted(p.name for p in suite.rglob("*.bin*")) == ["a.bin", "b.bin"]


def test_a_complete_file_is_not_requested(server, suite, run):
    (suite / "a.bin").write_bytes(CONTENT)
    assert run(file("a.bin", server.url + "/a")).code == 0
    assert server.requests == []


def test_an_interrupted_download_is_resumed(server, suite, run):
    server.behaviour = {"/a": closes_early}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 0
    assert f"interrupted at byte {CUT} of {len(CONTENT)}" in done.err
    assert (suite / "a.bin").read_bytes() == CONTENT
    assert [first for _, first in server.requests] == list(range(0, len(CONTENT), CUT))


def test_a_second_run_resumes_the_first(server, suite, run):
    server.behaviour = {"/a": fails_on_resume}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 1
    assert "a.bin: not downloaded" in done.err
    assert "503" in done.err
    assert not (suite / "a.bin").exists()
    assert (suite / "a.bin.part").read_bytes() == CONTENT[:CUT]
    server.behaviour = {"/a": whole}
    assert run(file("a.bin", server.url + "/a")).code == 0
    assert server.requests[-1] == ("/a", CUT)
    assert (suite / "a.bin").read_bytes() == CONTENT
    assert not (suite / "a.bin.part").exists()


def test_ctrl_c_keeps_what_has_arrived(server, suite, run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    server.behaviour = {"/a": whole}
    with monkeypatch.context() as patch:
        patch.setattr(download, "show_progress", interrupt)
        done = run(file("a.bin", server.url + "/a"))
    assert done.code == 130
    assert "interrupted" in done.err
    part = (suite / "a.bin.part").read_bytes()
    assert part and CONTENT.startswith(part)
    assert not (suite / "a.bin").exists()


@pytest.mark.parametrize("behaviour", [without_ranges, whole])
def test_a_server_without_ranges_sends_the_file_again(server, suite, run, behaviour):
    (suite / "a.bin.part").write_bytes(CONTENT[:CUT])
    server.behaviour = {"/a": behaviour}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 0
    assert ("from the beginning" in done.err) == (behaviour is without_ranges)
    assert (suite / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("beginning", [b"<html>" * 100, CONTENT + b"more than there is", bytes(len(CONTENT))])
def test_a_wrong_partial_file_is_replaced(server, suite, run, beginning):
    (suite / "a.bin.part").write_bytes(beginning)
    server.behaviour = {"/a": whole}
    assert run(file("a.bin", server.url + "/a")).code == 0
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_a_complete_partial_file_needs_no_server(suite, run):
    (suite / "a.bin.part").write_bytes(CONTENT)
    assert run(file("a.bin", DEAD + "/a")).code == 0
    assert (suite / "a.bin").read_bytes() == CONTENT


def longer(handler, first):
    handler.answer(CONTENT + CONTENT, first=first)


@pytest.mark.parametrize("behaviour", [wrong, shell.login_page, longer])
def test_wrong_content_never_gets_the_name(server, suite, run, behaviour):
    server.behaviour = {"/a": behaviour}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 1
    assert "not the published file" in done.err
    assert not list(suite.glob("a.bin*"))


def test_a_server_error_does_not_stop_the_other_files(server, suite, run):
    server.behaviour = {"/a": lambda handler, first: handler.send_error(500), "/b": whole}
    done = run(file("a.bin", server.url + "/a"), file("b.bin", server.url + "/b"))
    assert done.code == 1
    assert "500" in done.err
    assert f"{suite / 'a.bin'}: not downloaded" in done.err
    assert "1 missing" in done.err
    assert (suite / "b.bin").read_bytes() == CONTENT
    assert not list(suite.glob("a.bin*"))


def test_the_next_address_is_tried(server, suite, run):
    server.behaviour = {"/wrong": wrong, "/a": whole}
    strange = ["nowhere", "http://[", "unknown://server/a"]
    addresses = [*strange, DEAD + "/a", *(server.url + path for path in ("/none", "/wrong", "/a"))]
    done = run(file("a.bin", *addresses))
    assert done.code == 0, done.err
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_a_missing_page_does_not_spoil_the_partial_file(server, suite, run):
    (suite / "a.bin.part").write_bytes(CONTENT[:CUT])
    server.behaviour = {"/a": whole}
    assert run(file("a.bin", server.url + "/none", server.url + "/a")).code == 0
    assert server.requests == [("/none", CUT), ("/a", CUT)]


def test_mirrors_come_first(server, suite, run):
    server.behaviour = {"/two/a.bin": whole, "/a": whole}
    mirrors = f"{server.url}/one/ {server.url}/two"
    assert run(file("data/a.bin", server.url + "/a"), SYNCNET_MIRROR=mirrors).code == 0
    assert [name for name, _ in server.requests] == ["/one/a.bin", "/two/a.bin"]


def test_a_folder_can_be_a_mirror(suite, run, tmp_path):
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/a.bin").write_bytes(CONTENT)
    (suite / "a.bin.part").write_bytes(CONTENT[:CUT])
    assert run(file("a.bin"), SYNCNET_MIRROR=(tmp_path / "mirror").as_uri()).code == 0
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_an_unreachable_server_is_asked_once(suite, run):
    done = run(file("a.bin", DEAD + "/a", DEAD + "/b"), file("b.bin", DEAD + "/b"))
    assert done.code == 1
    assert done.err.count(f"from {DEAD}/") == 1
    assert "a.bin: not downloaded" in done.err
    assert "b.bin: not downloaded" in done.err
    assert "2 missing" in done.err


@pytest.mark.parametrize("sent", [0, CUT])
def test_a_server_that_stalls_is_left(server, suite, run, sent):
    finished = threading.Event()

    def stalls(handler, first):
        if sent:
            handler.answer(CONTENT, first=first, length=max(sent, first))
        finished.wait(10)

    server.behaviour = {"/a": stalls}
    done = run(file("a.bin", server.url + "/a"), SYNCNET_TIMEOUT="0.3")
    finished.set()
    assert done.code == 1
    assert "timed out" in done.err
    assert (suite / "a.bin.part").exists() == bool(sent)


def test_another_file_in_its_place_is_kept(server, suite, run):
    (suite / "a.bin").write_bytes(b"mine")
    server.behaviour = {"/a": wrong}
    assert run(file("a.bin", server.url + "/a")).code == 1
    assert (suite / "a.bin").read_bytes() == b"mine"
    server.behaviour = {"/a": whole}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 0
    assert f"kept as {suite / 'a.bin.old'}" in done.err
    assert (suite / "a.bin.old").read_bytes() == b"mine"
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_named(server, suite, run):
    if os.geteuid() == 0:
        (suite / "data").write_text("a file where the folder should be")
    else:
        (suite / "data").mkdir(mode=0o500)
    server.behaviour = {"/a": whole}
    done = run(file("data/a.bin", server.url + "/a"), file("b.bin", server.url + "/a"))
    assert done.code == 1
    assert f"{suite / 'data/a.bin'}: cannot write there" in done.err
    assert "1 missing" in done.err
    assert [path for path, _ in server.requests] == ["/a"]
    assert (suite / "b.bin").read_bytes() == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(server, suite, run):
    (suite / "a.bin.part").symlink_to("/dev/full")
    server.behaviour = {"/a": whole}
    done = run(file("a.bin", server.url + "/a"))
    assert done.code == 1
    assert "a.bin: cannot write there (No space left on device)" in done.err


@pytest.mark.parametrize("timeout", ["soon", "0", "-1", "nan", "inf", "1e300"])
def test_a_wrong_timeout_is_a_usage_error(suite, run, timeout):
    done = run(file("a.bin", DEAD + "/a"), SYNCNET_TIMEOUT=timeout)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert f"SYNCNET_TIMEOUT={timeout}" in line


def test_the_files_are_those_of_the_shell_script():
    lines = (ROOT / "download_model.sh").read_text().splitlines()
    rows = [line.replace("$origin", download.ORIGIN).split() for line in lines if "http://$origin" in line]
    assert [download.Published(path, int(size), sha256, tuple(urls)) for path, size, sha256, *urls in rows] == list(
        download.FILES
    )
    assert f"origin={download.ORIGIN}" in lines


@pytest.fixture
def installed(suite) -> Path:
    """Folder of the installed starter weights."""
    folder = suite / weights.PACKAGED_STARTER
    folder.mkdir(parents=True)
    return folder


def test_a_checkout_has_its_own_folder(suite, monkeypatch):
    monkeypatch.setenv("SYNCNET_HOME", "elsewhere")
    assert weights.home() == suite
    assert not weights.installed()


def test_an_installed_suite_has_a_folder_of_the_user(installed, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert weights.home().is_relative_to(tmp_path)
    assert weights.home().name == "syncnet"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNCNET_HOME", "models")
    assert weights.home() == tmp_path / "models"
    monkeypatch.setenv("SYNCNET_HOME", "~/models")
    assert weights.home() == tmp_path / "models"


@pytest.mark.parametrize("name", ["SYNCNET", "S3FD"])
def test_an_installed_suite_uses_what_was_downloaded(server, installed, run, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    weights.warn_once.cache_clear()
    known = getattr(weights, name)
    starter = installed / Path(known.starter).name
    starter.write_bytes(b"starter")
    home = tmp_path / "home"
    monkeypatch.setenv("SYNCNET_HOME", str(home))
    assert weights.choose(known).path == str(starter)
    server.behaviour = {"/a": whole}
    wanted = file(known.published, server.url + "/a")
    assert run(wanted).code == 0
    known = dataclasses.replace(known, size=wanted.size, sha256=wanted.sha256)
    chosen = weights.choose(known)
    assert chosen.published
    assert chosen.path == str(home / known.published)
    assert weights.choose(known, known.published).path == chosen.path


def test_help_names_the_settings():
    done = subprocess.run(
        [sys.executable, "-m", "syncnet.download", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for name in ("SYNCNET_HOME", "SYNCNET_MIRROR", "SYNCNET_TIMEOUT"):
        assert name in done.stdout
