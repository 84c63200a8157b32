"""ffmpeg: which one is used, and the only place that starts it.

Scores depend on the ffmpeg that made the frames and the audio, so everybody gets the same one: the binary of the
package imageio-ffmpeg, whose version requirements.txt pins. The environment variable SYNCNET_FFMPEG chooses another.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from syncnet.errors import DiskFullError, MediaError, ToolError, tells_no_space

logger = logging.getLogger("syncnet")

CHOICE = "SYNCNET_FFMPEG"
SYSTEM = "system"
PACKAGE = "imageio-ffmpeg"
PACKAGE_CHOICE = "IMAGEIO_FFMPEG_EXE"  # the package's own variable
ON_PATH = "PATH"
PROGRAM = "ffmpeg"

# What ``fingerprint`` finds of ffmpeg 4.2 to 7.0 with LAME 3.100, on which published scores depend.
PUBLISHED_FINGERPRINT = "ab54d07542f79239"
GLOBAL_FLAGS = ("-nostdin", "-hide_banner", "-y")
ERRORS_ONLY = ("-loglevel", "error")
DETAIL_LENGTH = 200
# Static builds of ffmpeg crash on the service names of MPEG-TS when they load the system's character set converters.
WITHOUT_CONVERTERS = {"GCONV_PATH": os.devnull}


@dataclass(frozen=True)
class Program:
    """An ffmpeg.

    Attributes:
        path: absolute path of the executable.
        source: where it comes from: ``PACKAGE``, ``ON_PATH``, or the environment variable that names it.
    """

    path: str
    source: str


@lru_cache
def find_ffmpeg():
    """Choose the ffmpeg of this process.

    In this order: the one that SYNCNET_FFMPEG names (a path, or ``system`` for the one on PATH), the one that
    IMAGEIO_FFMPEG_EXE names, the binary of the package imageio-ffmpeg, and where the package has none, the one on PATH.

    Returns:
        ``Program``.

    Raises:
        ToolError: there is none.
    """
    for variable in (CHOICE, PACKAGE_CHOICE):
        value = os.environ.get(variable)
        if value:
            return chosen(variable, value)
    packaged = packaged_binary()
    if packaged:
        return Program(packaged, PACKAGE)
    found = shutil.which(PROGRAM)
    if not found:
        raise ToolError(
            f"ffmpeg: not found: install its package (pip install {PACKAGE}) or the program (apt install ffmpeg)"
        )
    logger.warning(
        "%s: used because the package %s has no ffmpeg here: scores may differ from those of other machines",
        found,
        PACKAGE,
    )
    return Program(found, ON_PATH)


def chosen(variable, value):
    """Find the ``Program`` that an environment variable names.

    Raises:
        ToolError: there is no such program.
    """
    on_path = variable == CHOICE and value == SYSTEM
    found = shutil.which(PROGRAM if on_path else value)
    if found:
        return Program(str(Path(found).absolute()), ON_PATH if on_path else variable)
    if on_path:
        raise ToolError(f"ffmpeg: not on PATH, where {variable}={value} looks for it: install it, or unset {variable}")
    raise ToolError(f"{value}: no program, but {variable} names it: correct or unset {variable}")


def packaged_binary():
    """Path of the binary in the package imageio-ffmpeg; None if it has none for this platform.

    The package's own ``get_ffmpeg_exe`` starts the binary to try it, and falls back to any other ffmpeg silently.
    """
    try:
        folder = resources.files("imageio_ffmpeg") / "binaries"
    except ImportError:
        return None
    return next((str(path) for path in sorted(Path(str(folder)).glob("ffmpeg-*"))), None)


@lru_cache
def ffmpeg_version():
    """Version of ffmpeg as it names itself, such as ``7.0.2-static``."""
    words = Ffmpeg(["-version"], source=PROGRAM).finish().split()
    return words[2] if len(words) > 2 else "unknown"


def absolute(path):
    """The path as ffmpeg and OpenCV take it: absolute, so that no name looks like a flag or a protocol."""
    return str(Path(path).absolute())


class Ffmpeg:
    """A running ffmpeg, on a list of arguments, without a shell and without standard input.

    Args:
        arguments: what follows the program's name.
        source: the file that it works on, for the error.
        cwd: folder to run in, where the output is a pattern (a ``%`` in a folder's name would be part of it).

    Attributes:
        complaint: the last line that it printed on stderr although it ended well; empty before ``finish``.

    Raises:
        ToolError: it cannot be started.
    """

    def __init__(self, arguments, *, source, cwd=None):
        self.source, self.complaint = source, ""
        program = find_ffmpeg().path
        # a file, not a pipe: nobody reads while it runs, and a damaged input can say a lot
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
            raise ToolError(f"{program}: cannot be started ({error.strerror}): install ffmpeg") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def running(self):
        return self.process.poll() is None

    @property
    def succeeded(self):
        return self.process.poll() == 0

    def kill(self):
        """End it if it still runs."""
        if self.running:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def wait(self):
        """Wait for its end, whatever that is: what it printed on stdout and on stderr."""
        stdout = self.process.communicate()[0].decode(errors="replace")
        self.log.seek(0)
        return stdout, self.log.read().decode(errors="replace")

    def finish(self, *, code=None):
        """Wait for its end: what it printed on stdout.

        Args:
            code: of the ``MediaError`` where ffmpeg finds fault with its input.

        Raises:
            DiskFullError: there was no room for its output, whatever its exit code says of that.
            MediaError: it failed; the message carries the end of its stderr.
        """
        try:
            stdout, stderr = self.wait()
        finally:
            self.kill()
        status = self.process.returncode
        if tells_no_space(stderr):
            raise DiskFullError(
                f"{self.source}: no room for what ffmpeg makes of it ({last_line(stderr)}): free some and run it again"
            )
        if status < 0:
            raise MediaError(f"{self.source}: ffmpeg was killed (signal {-status}) half-way: run the command again")
        if status:
            raise MediaError(f"{self.source}: ffmpeg failed: {last_line(stderr)}", code=code)
        if stderr.strip():
            self.complaint = last_line(stderr)
            logger.debug("%s: ffmpeg: %s", self.source, self.complaint)
        return stdout


@contextlib.contextmanager
def reading_output_of(process):
    """Read what an ``Ffmpeg`` writes while it runs: where that is damaged, what went wrong with ffmpeg is the error."""
    try:
        yield
    except MediaError:
        process.finish()
        raise


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:DETAIL_LENGTH] if lines else "it said nothing"
