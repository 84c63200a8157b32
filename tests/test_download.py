"""download_model.sh with a local server: interrupted, wrong, missing, mirrored and existing files."""

import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "download_model.sh"
CONTENT = bytes(range(256)) * 400
CUT = 30_000  # bytes after which the server closes the connection
TOOLS = ("sh", "cat", "wc", "tr", "cut", "sed", "grep", "mkdir", "mv", "rm", "dirname")


class Handler(http.server.BaseHTTPRequestHandler):
    """Request handler that calls the function for the path in ``server.behaviour`` with the range's first byte."""

    def do_GET(self):
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.requests.append((self.path, first))
        behaviour = self.server.behaviour.get(self.path)
        if behaviour:
            behaviour(self, first)
        else:
            self.send_error(404)

    def answer(self, content: bytes, *, first: int = 0, length: int | None = None) -> None:
        """Send the content from byte ``first``, up to byte ``length`` only if given."""
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first:length])

    def log_message(self, *_):
        pass


def whole(handler, first):
    handler.answer(CONTENT, first=first)


def without_ranges(handler, first):
    handler.answer(CONTENT)


def wrong(handler, first):
    handler.answer(bytes(len(CONTENT)))


def login_page(handler, first):
    handler.answer(b"<html>please log in</html>")


def closes_early(handler, first):
    handler.answer(CONTENT, first=first, length=first + CUT)


def fails_on_resume(handler, first):
    if first:
        handler.send_error(503)
    else:
        handler.answer(CONTENT, length=CUT)


@pytest.fixture(scope="module")
def running_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def server(running_server):
    running_server.behaviour, running_server.requests = {}, []
    return running_server


@pytest.fixture
def suite(tmp_path) -> Path:
    """Return a folder with the script; its name has a space and a quote."""
    folder = tmp_path / "it's a suite"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    return folder


def tool_folder(folder: Path, *names: str) -> str:
    """Make a folder to use as PATH, with these programs only."""
    folder.mkdir()
    for name in names:
        # the running Python, because the first on PATH may be a version manager's script
        found = Path(sys.executable).resolve() if name == "python3" else shutil.which(name)
        if not found:
            pytest.skip(f"this machine has no {name}")
        (folder / name).symlink_to(found)
    return str(folder)


def row(path: str, *addresses: str, content: bytes = CONTENT) -> str:
    """Return a line of the script's table."""
    return " ".join([path, str(len(content)), hashlib.sha256(content).hexdigest(), *addresses]) + "\n"


@pytest.fixture(params=["curl", "wget", "busybox"])
def path(request, tmp_path):
    """Return a PATH with one download tool."""
    folder = tool_folder(tmp_path / "bin", *TOOLS, "sha256sum", request.param)
    if request.param == "busybox":
        (tmp_path / "bin/busybox").rename(tmp_path / "bin/wget")
    return folder


@pytest.fixture
def download(suite, path, tmp_path):
    """Return a function that runs the script with a table, from another folder."""

    def run(table, *, path=path, **environment):
        (tmp_path / "table").write_text(table)
        variables = {
            "PATH": path,
            "SYNCNET_FILES": str(tmp_path / "table"),
            "SYNCNET_TIMEOUT": "5",
            "no_proxy": "127.0.0.1",
            **environment,
        }
        script = suite / SCRIPT.name
        command = [shutil.which("dash") or "/bin/sh", str(script)]
        return subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def test_files_arrive_complete_under_their_names(server, suite, download):
    server.behaviour = {"/a": whole, "/b": whole}
    done = download(row("data/a.bin", server.url + "/a") + row("deep/er/b.bin", server.url + "/b"))
    assert done.returncode == 0, done.stderr
    assert (suite / "data/a.bin").read_bytes() == CONTENT
    assert (suite / "deep/er/b.bin").read_bytes() == CONTENT
    assert sorted(p.name for p in suite.rglob("*.bin*")) == ["a.bin", "b.bin"]


def test_a_complete_file_is_not_requested(server, suite, download):
    (suite / "a.bin").write_bytes(CONTENT)
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert server.requests == []


def test_an_interrupted_download_resumes(server, suite, download):
    server.behaviour = {"/a": closes_early}
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert (suite / "a.bin").read_bytes() == CONTENT
    assert [first for _, first in server.requests] == list(range(0, len(CONTENT), CUT))


def test_a_second_run_resumes_the_first(server, suite, download):
    server.behaviour = {"/a": fails_on_resume}
    done = download(row("a.bin", server.url + "/a"))
    assert done.returncode == 1
    assert "a.bin: not downloaded" in done.stderr
    assert not (suite / "a.bin").exists()
    assert (suite / "a.bin.part").read_bytes() == CONTENT[:CUT]
    server.behaviour = {"/a": whole}
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert server.requests[-1] == ("/a", CUT)
    assert (suite / "a.bin").read_bytes() == CONTENT
    assert not (suite / "a.bin.part").exists()


def test_a_server_without_ranges_sends_the_whole_file(server, suite, download):
    (suite / "a.bin.part").write_bytes(CONTENT[:CUT])
    server.behaviour = {"/a": without_ranges}
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_a_damaged_part_file_is_discarded(server, suite, download):
    (suite / "a.bin.part").write_bytes(b"<html>" * 100)
    server.behaviour = {"/a": whole}
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert (suite / "a.bin").read_bytes() == CONTENT
    (suite / "a.bin").rename(suite / "a.bin.part")
    with (suite / "a.bin.part").open("ab") as file:
        file.write(b"more than there is")
    assert download(row("a.bin", server.url + "/a")).returncode == 0
    assert (suite / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("behaviour", [wrong, login_page])
def test_wrong_content_never_gets_the_final_name(server, suite, download, behaviour):
    server.behaviour = {"/a": behaviour}
    done = download(row("a.bin", server.url + "/a"))
    assert done.returncode == 1
    assert "not the published file" in done.stderr
    assert not list(suite.glob("a.bin*"))


def test_a_missing_file_does_not_stop_the_others(server, suite, download):
    server.behaviour = {"/b": whole}
    done = download(row("a.bin", server.url + "/a") + row("b.bin", server.url + "/b"))
    assert done.returncode == 1
    assert "a.bin: not downloaded" in done.stderr
    assert "1 missing" in done.stderr
    assert (suite / "b.bin").read_bytes() == CONTENT


def test_the_next_address_is_tried(server, suite, download):
    server.behaviour = {"/gone": wrong, "/a": whole}
    addresses = ["http://127.0.0.1:1/a", server.url + "/none", server.url + "/gone", server.url + "/a"]
    done = download(row("a.bin", *addresses))
    assert done.returncode == 0, done.stderr
    assert (suite / "a.bin").read_bytes() == CONTENT


def test_an_error_page_does_not_damage_the_part_file(server, suite, download):
    (suite / "a.bin.part").write_bytes(CONTENT[:CUT])
    server.behaviour = {"/a": whole}
    assert download(row("a.bin", server.url + "/none", server.url + "/a")).returncode == 0
    assert server.requests == [("/none", CUT), ("/a", CUT)]


def test_mirrors_come_first(server, suite, download):
    server.behaviour = {"/two/a.bin": whole, "/a": whole}
    mirrors = f"{server.url}/one/ {server.url}/two"
    assert download(row("data/a.bin", server.url + "/a"), SYNCNET_MIRROR=mirrors).returncode == 0
    assert [name for name, _ in server.requests] == ["/one/a.bin", "/two/a.bin"]


def test_an_unreachable_host_is_tried_once(suite, download):
    dead = "http://127.0.0.1:1"
    done = download(row("a.bin", dead + "/a", dead + "/b") + row("b.bin", dead + "/b"))
    assert done.returncode == 1
    assert done.stderr.count("from http://127.0.0.1:1/") == 1
    assert "a.bin: not downloaded" in done.stderr
    assert "b.bin: not downloaded" in done.stderr


def test_another_scheme_of_an_unreachable_host_is_tried(server, suite, download):
    """One port may be closed and the other open."""
    server.behaviour = {"/a": whole}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        shut = f"https://127.0.0.1:{other.getsockname()[1]}"
    done = download(row("a.bin", shut + "/a", server.url + "/a"))
    assert done.returncode == 0, done.stderr


def test_a_folder_in_place_of_the_part_file_stops_no_other_file(server, suite, download):
    (suite / "a.bin.part").mkdir()
    server.behaviour = {"/a": whole}
    done = download(row("a.bin", server.url + "/a") + row("b.bin", server.url + "/a"))
    assert done.returncode == 1
    assert "a.bin: cannot write there" in done.stderr and "1 missing" in done.stderr
    assert (suite / "b.bin").read_bytes() == CONTENT


def test_another_file_of_the_same_name_is_kept(server, suite, download):
    (suite / "a.bin").write_bytes(b"mine")
    server.behaviour = {"/a": wrong}
    assert download(row("a.bin", server.url + "/a")).returncode == 1
    assert (suite / "a.bin").read_bytes() == b"mine"
    server.behaviour = {"/a": whole}
    done = download(row("a.bin", server.url + "/a"))
    assert done.returncode == 0
    assert "kept as a.bin.old" in done.stderr
    assert (suite / "a.bin.old").read_bytes() == b"mine"
    assert (suite / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("tool", ["sha256sum", "shasum", "openssl", "python3"])
def test_every_hash_tool_works(server, suite, download, tmp_path, tool):
    server.behaviour = {"/a": whole, "/b": wrong}
    names = [*TOOLS, "curl", tool, *(["perl"] if tool == "shasum" else [])]
    path = tool_folder(tmp_path / "hash", *names)
    done = download(row("a.bin", server.url + "/a") + row("b.bin", server.url + "/b"), path=path)
    assert (suite / "a.bin").read_bytes() == CONTENT, done.stderr
    assert not (suite / "b.bin").exists()


def test_missing_curl_and_wget_are_reported(suite, download, tmp_path):
    done = download(row("a.bin", "http://127.0.0.1:1/a"), path=tool_folder(tmp_path / "none", *TOOLS, "sha256sum"))
    assert done.returncode == 1
    assert "needs curl or wget" in done.stderr


def test_missing_hash_tools_are_reported(suite, download, tmp_path):
    done = download(row("a.bin", "http://127.0.0.1:1/a"), path=tool_folder(tmp_path / "none", *TOOLS, "curl"))
    assert done.returncode == 1
    assert "to check what it downloads" in done.stderr


def test_the_table_agrees_with_the_loader():
    from syncnet.models import weights

    rows = [line.split() for line in SCRIPT.read_text().splitlines() if "http://$origin" in line]
    table = {path: (int(size), sha256) for path, size, sha256, *_ in rows}
    for known in (weights.SYNCNET, weights.S3FD):
        assert table[known.published] == (known.size, known.sha256)
    assert table["data/example.avi"] == (
        1_111_536,
        "1724121b3a50141cfc9e77c034f7de914024d015b92762ae12d3e1a7151b8621",
    )
    assert len(rows) == 3


def test_an_unwritable_folder_is_reported(server, suite, download):
    if os.geteuid() == 0:
        (suite / "data").write_text("a file where the folder should be")
    else:
        (suite / "data").mkdir(mode=0o500)
    server.behaviour = {"/a": whole}
    done = download(row("data/a.bin", server.url + "/a"))
    assert done.returncode == 1
    assert "data/a.bin: cannot write there" in done.stderr
