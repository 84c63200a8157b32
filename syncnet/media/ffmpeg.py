"""Selection of the ffmpeg executable, and the only place that starts it.

Scores depend on the ffmpeg that extracts the frames and the audio. To make them reproducible, all installations use the
same one: the executable of the package imageio-ffmpeg, whose version requirements.txt pins. The environment variable
SYNCNET_FFMPEG selects another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from syncnet.errors import DiskFullError, MediaError, ToolError, reports_no_space

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

logger = logging.getLogger("syncnet")

CHOICE = "SYNCNET_FFMPEG"
SYSTEM = "system"
PACKAGE = "imageio-ffmpeg"
PACKAGE_CHOICE = "IMAGEIO_FFMPEG_EXE"  # the package's own variable
ON_PATH = "PATH"
PROGRAM = "ffmpeg"

# ``Behaviour.fingerprint`` of ffmpeg 4.2 to 7.0 with LAME 3.100, on which published scores depend.
PUBLISHED_FINGERPRINT = "b264c9c9cc319289"
GLOBAL_FLAGS = ("-nostdin", "-hide_banner", "-y")
ERRORS_ONLY = ("-loglevel", "error")
DETAIL_LENGTH = 200
SPEAKER = re.compile(r"^\[(\w+)[^]]* @ \w+\] ")  # part of ffmpeg that prints a line, and its address in memory
# What ffmpeg calls an error, although no part of the input is lost: cuts before a group of pictures that refers to an
# earlier one, and time stamps that it corrects itself.
HARMLESS = (
    *("mmco: unref short failure", "non monotonically increasing dts", "Queue input is backward in time"),
    "Last message repeated",
)
# Static builds of ffmpeg crash on the service names of MPEG-TS when they load the system's character set converters.
WITHOUT_CONVERTERS = {"GCONV_PATH": os.devnull}


@dataclass(frozen=True)
class Program:
    """An ffmpeg executable.

    Attributes:
        path: absolute path of the executable.
        source: where it was found: ``PACKAGE``, ``ON_PATH``, or the environment variable that names it.
    """

    path: str
    source: str


@lru_cache
def find_ffmpeg() -> Program:
    """Find the ffmpeg to use.

    The first of: the one that SYNCNET_FFMPEG names (a path, or ``system`` for the one on PATH), the one that
    IMAGEIO_FFMPEG_EXE names, the executable of the package imageio-ffmpeg, the one on PATH.

    Raises:
        ToolError: no ffmpeg was found.
    """
    for variable in (CHOICE, PACKAGE_CHOICE):
        value = os.environ.get(variable)
        if value:
            return program_from(variable, value)
    packaged = packaged_binary()
    if packaged:
        return Program(packaged, PACKAGE)
    found = shutil.which(PROGRAM)
    if not found:
        raise ToolError(
            f"ffmpeg: not found: install its package (pip install {PACKAGE}) or the program (apt install ffmpeg)"
        )
    logger.warning(
        "%s: used because the package %s has no ffmpeg for this platform: scores may differ from those of other "
        "machines; set %s to use another ffmpeg",
        found,
        PACKAGE,
        CHOICE,
    )
    return Program(found, ON_PATH)


def program_from(variable: str, value: str) -> Program:
    """Find the ffmpeg that an environment variable names.

    Raises:
        ToolError: the executable does not exist.
    """
    on_path = variable == CHOICE and value == SYSTEM
    found = shutil.which(PROGRAM if on_path else value)
    if found:
        return Program(str(Path(found).absolute()), ON_PATH if on_path else variable)
    if on_path:
        raise ToolError(f"ffmpeg: not on PATH, but {variable}={value} selects it: install ffmpeg or unset {variable}")
    raise ToolError(f"{value}: not an executable program, but {variable} names it: correct or unset {variable}")


def packaged_binary() -> str | None:
    """Return the path of the executable in the package imageio-ffmpeg; None if it has none for this platform.

    The package's own ``get_ffmpeg_exe`` starts the executable to test it, and silently falls back to any other ffmpeg.
    """
    try:
        folder = resources.files("imageio_ffmpeg") / "binaries"
    except ImportError:
        return None
    return next((str(path) for path in sorted(Path(str(folder)).glob("ffmpeg-*"))), None)


@lru_cache
def ffmpeg_version() -> str:
    """Return the version that ffmpeg reports, such as ``7.0.2-static``."""
    words = Ffmpeg(["-version"], source=PROGRAM).finish().split()
    return words[2] if len(words) > 2 else "unknown"


def absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path for ffmpeg or OpenCV, which cannot be mistaken for a flag or a protocol."""
    return str(Path(path).absolute())


class Ffmpeg:
    """A running ffmpeg process, without a shell and without standard input.

    Args:
        arguments: command-line arguments.
        source: the file being processed, for error messages.
        cwd: folder to run in if the output is a file name pattern (a ``%`` in a folder name would be part of it).

    Attributes:
        complaint: last line that a successful ffmpeg printed on stderr; empty before ``finish``.
        fault: the last such line that says that a part of the input cannot be decoded; empty if none does.

    Raises:
        ToolError: ffmpeg cannot be started.
    """

    def __init__(
        self,
        arguments: Iterable[str | os.PathLike[str]],
        *,
        source: str | os.PathLike[str],
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.source, self.complaint, self.fault = source, "", ""
        program = find_ffmpeg().path
        # a file, because a damaged input can fill a pipe, which nobody reads while ffmpeg runs
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, closed by kill()
        try:
            self.process = subprocess.Popen(
                [program, *GLOBAL_FLAGS, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self.log,
                cwd=cwd,
                env={**os.environ, **WITHOUT_CONVERTERS},
            )
        except OSError as error:
            raise ToolError(
                f"{program}: cannot be started ({error.strerror}): install ffmpeg, or set {CHOICE} to another one"
            ) from error

    def __enter__(self) -> Ffmpeg:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def succeeded(self) -> bool:
        return self.process.poll() == 0

    def kill(self) -> None:
        """Kill the process if it still runs, and close its files."""
        if self.running:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()

    def wait(self) -> tuple[str, str]:
        """Wait for the process to end, and return what it printed on stdout and on stderr."""
        stdout = self.process.communicate()[0].decode(errors="replace")
        self.log.seek(0)
        return stdout, self.log.read().decode(errors="replace")

    def finish(self, *, code: str | None = None) -> str:
        """Wait for the process to end, and check that it succeeded.

        Args:
            code: reason code of the ``MediaError`` that is raised if ffmpeg rejects its input.

        Returns:
            What ffmpeg printed on stdout.

        Raises:
            DiskFullError: the disk is full, whatever ffmpeg's exit code.
            MediaError: ffmpeg failed; the message contains the last line of its stderr.
        """
        try:
            stdout, stderr = self.wait()
        finally:
            self.kill()
        status = self.process.returncode
        if reports_no_space(stderr):
            raise DiskFullError(
                f"{self.source}: no space for the output of ffmpeg ({last_line(stderr)}): free some and run the "
                "command again"
            )
        if status < 0:
            raise MediaError(f"{self.source}: ffmpeg was killed (signal {-status}): run the command again")
        if status:
            raise MediaError(f"{self.source}: ffmpeg failed: {last_line(stderr)}", code=code)
        if stderr.strip():
            self.complaint = last_line(stderr)
            lines = [line for line in stderr.splitlines() if line.strip() and not any(map(line.count, HARMLESS))]
            self.fault = SPEAKER.sub(r"\1: ", last_line("\n".join(lines))) if lines else ""
            logger.debug("%s: ffmpeg: %s", self.source, self.complaint)
        return stdout


@contextlib.contextmanager
def reading_output_of(process: Ffmpeg) -> Iterator[None]:
    """Read the output of a running ffmpeg in the block; if the output is damaged, raise ffmpeg's own error first."""
    try:
        yield
    except MediaError:
        process.finish()
        raise


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:DETAIL_LENGTH] if lines else "no error message"
