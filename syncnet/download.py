"""Download the published weights of SyncNet and S3FD, and the demo clip.

A file that is already complete is left alone, an interrupted download is resumed, and no file gets its final name
before its size and SHA-256 are right. The exit code is 1 if a file could not be downloaded.

environment variables:
  SYNCNET_HOME     folder to write to, if the suite is installed (default: the user's data folder)
  SYNCNET_MIRROR   addresses of folders with the same files, separated by spaces; they are tried first
  SYNCNET_TIMEOUT  seconds to wait for a connection, or for more data (default: 20)
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from syncnet import __version__
from syncnet.models import weights

PROG = "download_models"
ORIGIN = "www.robots.ox.ac.uk/~vgg/software/lipsync/data"
TIMEOUT = 20.0
LONGEST_TIMEOUT = 86400
CHUNK = 1 << 18
FAILED, USAGE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        path: relative to ``weights.home()``.
        size: in bytes.
        sha256: in hexadecimal.
        addresses: where to download it from, in this order.
    """

    path: str
    size: int
    sha256: str
    addresses: tuple[str, ...]


def at_origin(name: str, *schemes: str) -> tuple[str, ...]:
    return tuple(f"{scheme}://{ORIGIN}/{name}" for scheme in schemes)


FILES = (
    Published(
        path=weights.SYNCNET.published,
        size=weights.SYNCNET.size,
        sha256=weights.SYNCNET.sha256,
        addresses=at_origin("syncnet_v2.model", "http", "https"),
    ),
    Published(
        path="data/example.avi",
        size=1111536,
        sha256="1724121b3a50141cfc9e77c034f7de914024d015b92762ae12d3e1a7151b8621",
        addresses=at_origin("example.avi", "http", "https"),
    ),
    Published(
        path=weights.S3FD.published,
        size=weights.S3FD.size,
        sha256=weights.S3FD.sha256,
        addresses=at_origin("sfd_face.pth", "https", "http"),
    ),
)


class Outcome(Enum):
    """How a transfer ended."""

    COMPLETE = auto()
    FAILED = auto()
    UNREACHABLE = auto()


def get_parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(argv: Sequence[str] | None = None) -> int:
    """Download all files.

    Returns:
        The exit code: 0 if all files are there, 1 if one is missing, 2 for a wrong setting, 130 after Ctrl-C.
    """
    get_parser().parse_args(argv)
    given = os.environ.get("SYNCNET_TIMEOUT") or TIMEOUT
    try:
        timeout = float(given)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout <= LONGEST_TIMEOUT:
        say(f"{PROG}: error: SYNCNET_TIMEOUT={given}: must be a number of seconds above 0, at most {LONGEST_TIMEOUT}")
        return USAGE
    try:
        downloads = Downloads(weights.home(), os.environ.get("SYNCNET_MIRROR", "").split(), timeout)
        missing = sum(not downloads.fetch(file) for file in FILES)
    except KeyboardInterrupt:
        say(f"{PROG}: interrupted: run this again to resume")
        return INTERRUPTED
    if missing:
        say(
            f"{PROG}: {missing} missing: run this again later, name a mirror (SYNCNET_MIRROR=address), or put the "
            "files there yourself"
        )
        return FAILED
    say("All there. The weights are for research only: see LICENSE.md.")
    return 0


class Downloads:
    """Downloads into one folder.

    Args:
        home: folder that paths are relative to.
        mirrors: addresses of folders with the same files.
        timeout: seconds to wait for a connection or for more data.
    """

    def __init__(self, home: Path, mirrors: list[str], timeout: float) -> None:
        self.home = home
        self.mirrors = mirrors
        self.timeout = timeout
        self.unreachable: set[str] = set()  # scheme and host: one port may be closed and the other open

    def fetch(self, file: Published) -> bool:
        """Return True if the file is there, downloaded from the first address that has it if need be."""
        path = self.home / file.path
        try:
            return self.fetch_to(path, file)
        except OSError as error:
            say(f"{path}: cannot write there ({error.strerror or error})")
            return False

    def fetch_to(self, path: Path, file: Published) -> bool:
        """Do what ``fetch`` does.

        Raises:
            OSError: the file cannot be written.
        """
        if is_right(path, file):
            say(f"{path}: is there and right")
            return True
        part = path.with_name(f"{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab"):  # before anything is downloaded for nothing
            pass
        if size_of(part) >= file.size and not is_right(part, file):
            part.write_bytes(b"")
        for address in self.addresses(file):
            if is_right(part, file):
                break
            if server_of(address) not in self.unreachable:
                say(f"{path}: from {address}")
                self.fetch_from(address, part, file)
        if not is_right(part, file):
            if not size_of(part):
                part.unlink(missing_ok=True)
            say(f"{path}: not downloaded ({file.size} bytes, SHA-256 {file.sha256})")
            return False
        if path.exists():
            old = path.with_name(f"{path.name}.old")
            say(f"{path}: what was there is not the published file: kept as {old}")
            path.replace(old)
        part.replace(path)
        say(f"{path}: done")
        return True

    def addresses(self, file: Published) -> Iterator[str]:
        name = file.path.rpartition("/")[2]
        yield from (f"{mirror.removesuffix('/')}/{name}" for mirror in self.mirrors)
        yield from file.addresses

    def fetch_from(self, address: str, part: Path, file: Published) -> None:
        """Download from one address as long as that makes progress.

        Raises:
            OSError: the file cannot be written.
        """
        while True:
            before = size_of(part)
            if before:
                say(f"  going on at byte {before} of {file.size}")
            outcome = self.transfer(address, part, file.size)
            after = size_of(part)
            if is_right(part, file):
                return
            if outcome is Outcome.COMPLETE:
                say(f"  not the published file ({after} bytes of {file.size}, or other content): thrown away")
                part.unlink()
                if not before:
                    return
                # the bytes from an earlier download may have been wrong: once more without them
            elif before < after < file.size:
                say(f"  interrupted at byte {after} of {file.size}")
            else:
                if outcome is Outcome.UNREACHABLE:
                    self.unreachable.add(server_of(address))
                return

    def transfer(self, address: str, part: Path, size: int) -> Outcome:
        """Append to ``part`` what the address has beyond it.

        Args:
            size: of the complete file; of a longer answer the rest is not read.

        Raises:
            OSError: the file cannot be written.
        """
        first = size_of(part)
        headers = {"User-Agent": f"syncnet/{__version__}"}
        if first:
            headers["Range"] = f"bytes={first}-"
        try:
            request = urllib.request.Request(address, headers=headers)
            response = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            say(f"  {error}")
            return Outcome.FAILED
        except (urllib.error.URLError, TimeoutError) as error:
            say(f"  {getattr(error, 'reason', error)}")
            return Outcome.UNREACHABLE
        except (OSError, http.client.HTTPException, ValueError) as error:
            say(f"  {error or type(error).__name__}")
            return Outcome.FAILED
        with response:
            content_range = response.headers.get("Content-Range", "")
            resumed = first and content_range.startswith(f"bytes {first}-")
            if first and not resumed:
                say("  this server cannot go on half-way: from the beginning")
            start = first if resumed else 0
            promised = response.headers.get("Content-Length", "")
            received = 0
            with part.open("ab" if resumed else "wb") as output:
                while start + received <= size:
                    try:
                        chunk = response.read1(CHUNK)
                    except (OSError, http.client.HTTPException) as error:
                        say(f"  {error or type(error).__name__}")
                        return Outcome.FAILED
                    if not chunk:
                        break
                    output.write(chunk)
                    received += len(chunk)
                    show_progress(start + received, size)
        cut_off = promised.isdecimal() and received < min(int(promised), size - start)
        return Outcome.FAILED if cut_off else Outcome.COMPLETE


def show_progress(done: int, size: int) -> None:
    """Show the share that is downloaded, on a terminal."""
    if sys.stderr and sys.stderr.isatty():
        print(
            f"  {min(100 * done // size, 100):3d} %", end="\r", file=sys.stderr, flush=True
        )  # the next line covers it


def server_of(address: str) -> str:
    """Return the scheme and host of an address."""
    return "/".join(address.split("/", 3)[:3])


def size_of(path: Path) -> int:
    """Return the size of a file, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def is_right(path: Path, file: Published) -> bool:
    """Return True if ``path`` has the size and the content of the published file."""
    if size_of(path) != file.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def say(message: str) -> None:
    """Print a line on stderr."""
    if sys.stderr:
        print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
