"""Command-line code shared by the scripts: flags, logging, and errors as one line."""

from __future__ import annotations

import argparse
import functools
import io
import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from syncnet import defaults
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME
from syncnet.errors import SyncNetError, ToolError, UsageError, out_of_memory
from syncnet.models.weights import S3FD, SYNCNET, Default

if TYPE_CHECKING:
    from syncnet.results.layout import Layout

logger = logging.getLogger("syncnet")
Number = TypeVar("Number", int, float)

DATA_DIR = "data/work"
INSTALL = "run `pip install -r requirements.txt`"
STDERR = 2
MEMORY_FLAGS = ("batch_size", "vshift", "facedet_scale")  # raising one of these raises memory use
INTERRUPTED = 130  # the exit code that a shell reports after Ctrl-C
FAILED = 1
SMALLEST_SCALE, LARGEST_SCALE = 0.001, 16.0  # outside this range a frame vanishes or fills the memory
LARGEST_INT = 10**9
LARGEST_FRAME_RATE = 65535  # the limit of MPEG-4
LARGEST_VSHIFT = 10**5  # frames, more than an hour


class Main(Protocol):
    """The ``main`` function of a script."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Parse the flags, run the script and return its exit code."""


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help formatter that keeps the script's docstring as written and shows every flag's default."""


def new_parser(
    docstring: str | None, *, verbose: str = "also print a line per frame and the messages of ffmpeg"
) -> argparse.ArgumentParser:
    """Return a parser with the flags that every script has.

    Args:
        docstring: the script's description.
        verbose: help text of --verbose.
    """
    parser = argparse.ArgumentParser(description=docstring, formatter_class=Formatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="no progress bar and no summary on stderr, only warnings")
    group.add_argument("--verbose", action="store_true", help=verbose)
    return parser


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every step of the pipeline has."""
    parser.add_argument("--data_dir", default=DATA_DIR, help="folder for all results")
    add_videofile(parser)
    parser.add_argument("--reference", default="", help="name of the video; results go to DATA_DIR/py*/REFERENCE")


def add_videofile(parser: argparse.ArgumentParser) -> None:
    """Add --videofile."""
    parser.add_argument("--videofile", default="", help="the input video")


def add_audio_stream(parser: argparse.ArgumentParser) -> None:
    """Add --audio_stream."""
    parser.add_argument(
        "--audio_stream",
        type=not_negative_int,
        help="number of the audio stream to score, from 0; default: the one that a player takes",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", default="auto", help="device that runs the network: auto, cpu, cuda or mps")


def add_frame_rate(parser: argparse.ArgumentParser) -> None:
    """Add --frame_rate."""
    parser.add_argument("--frame_rate", type=frame_rate, default=FRAME_RATE, help="frame rate of the results, in fps")


def add_tracking(
    parser: argparse.ArgumentParser, *, min_track: int = defaults.MIN_TRACK, min_face_size: int = defaults.MIN_FACE_SIZE
) -> None:
    """Add the flags of face detection, tracking and cropping.

    Args:
        parser: the script's parser.
        min_track, min_face_size: defaults, which differ between the scripts.
    """
    parser.add_argument(
        "--facedet_scale",
        type=facedet_scale,
        default=defaults.FACEDET_SCALE,
        help="factor by which frames are resized for face detection",
    )
    parser.add_argument(
        "--crop_scale",
        type=crop_scale,
        default=defaults.CROP_SCALE,
        help="margin around the face in a crop, relative to the face's size",
    )
    parser.add_argument(
        "--min_track",
        type=not_negative_int,
        default=min_track,
        help="a track must have detected faces in more frames than this",
    )
    parser.add_argument(
        "--num_failed_det",
        type=not_negative_int,
        default=defaults.NUM_FAILED_DET,
        help="number of frames for which a tracked face may be missing",
    )
    parser.add_argument(
        "--min_face_size",
        type=not_negative_int,
        default=min_face_size,
        help="the face of a track must be larger than this, in pixels",
    )
    parser.add_argument(
        "--scene_threshold",
        type=positive_float,
        default=defaults.SCENE_THRESHOLD,
        help="change between two frames that counts as a scene cut",
    )
    parser.add_argument(
        "--s3fd_weights",
        default=Default(S3FD.published),
        help="weights of the face detector; if the default file is missing, the starter weights are used",
    )


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add the flags of scoring with SyncNet."""
    add_net(parser)
    parser.add_argument(
        "--vshift", type=vshift, default=defaults.VSHIFT, help="largest offset to try in both directions, in frames"
    )


def add_net(parser: argparse.ArgumentParser) -> None:
    """Add the flags of running SyncNet."""
    parser.add_argument(
        "--initial_model",
        default=Default(SYNCNET.published),
        help="weights of SyncNet; if the default file is missing, the starter weights are used",
    )
    parser.add_argument(
        "--batch_size", type=positive_int, default=defaults.BATCH_SIZE, help="number of windows per batch"
    )
    add_device(parser)


def add_mode(parser: argparse.ArgumentParser, *, mode: str) -> None:
    """Add the flags of published and direct mode.

    Args:
        parser: the script's parser.
        mode: default of --mode, which differs between the scripts.
    """
    parser.add_argument(
        "--mode",
        choices=defaults.MODES,
        default=mode,
        help="published: convert and score as the published suite does, for numbers to report; direct: score what the "
        "decoder gives, several times faster and with the lag in milliseconds",
    )
    add_direct(parser)


def add_direct(parser: argparse.ArgumentParser) -> None:
    """Add the flags of direct mode."""
    parser.add_argument(
        "--detect_every",
        type=positive_int,
        default=defaults.DETECT_EVERY,
        help="direct mode: look for faces in every n-th frame",
    )
    parser.add_argument(
        "--precision",
        choices=defaults.PRECISIONS,
        default=defaults.FLOAT32,
        help="direct mode: precision of the networks; bfloat16 is faster on processors that have it",
    )
    parser.add_argument(
        "--face_crops",
        action="store_true",
        help="the videos are face crops already, of any size: look for no faces",
    )


def check_mode(args: argparse.Namespace) -> None:
    """Raise an error if a flag of direct mode is given in published mode.

    Raises:
        UsageError: it is.
    """
    if args.mode == defaults.DIRECT:
        return
    for name, default in (("detect_every", defaults.DETECT_EVERY), ("precision", defaults.FLOAT32)):
        value = getattr(args, name)
        if value != default:
            raise UsageError(f"--{name} {value}: works in direct mode only: add --mode direct, or drop it")


def add_speaker_threshold(parser: argparse.ArgumentParser) -> None:
    """Add --speaker_threshold."""
    parser.add_argument(
        "--speaker_threshold",
        type=finite_float,
        default=defaults.SPEAKER_THRESHOLD,
        help="run_visualise tags a face as speaking where its framewise confidence is above this; does not decide "
        "who speaks when in scores.json",
    )


def add_min_speaking(parser: argparse.ArgumentParser) -> None:
    """Add --min_speaking."""
    parser.add_argument(
        "--min_speaking",
        type=not_negative_float,
        default=defaults.MIN_SPEAKING,
        help="shortest time for which a face speaks, in seconds; a shorter one goes to the likelier of its neighbours",
    )


def crop_scale(text: str) -> float:
    """Parse the value of --crop_scale."""
    return scale(text, least=0.0)


def facedet_scale(text: str) -> float:
    """Parse the value of --facedet_scale."""
    return scale(text, least=SMALLEST_SCALE)


def scale(text: str, *, least: float) -> float:
    """Parse a scale from ``least`` to ``LARGEST_SCALE``."""
    return number(text, float, f"must be from {least:g} to {LARGEST_SCALE:g}", lambda v: least <= v <= LARGEST_SCALE)


def whole_number(text: str, *, least: int, most: int = LARGEST_INT) -> int:
    """Parse an integer from ``least`` to ``most``."""
    return number(text, int, f"must be a whole number from {least} to {most}", lambda value: least <= value <= most)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return whole_number(text, least=1)


def not_negative_int(text: str) -> int:
    """Parse an integer of at least 0."""
    return whole_number(text, least=0)


def frame_rate(text: str) -> int:
    """Parse the value of --frame_rate."""
    return whole_number(text, least=1, most=LARGEST_FRAME_RATE)


def vshift(text: str) -> int:
    """Parse the value of --vshift."""
    return whole_number(text, least=1, most=LARGEST_VSHIFT)


def max_lag(text: str) -> float:
    """Parse the value of --max_lag."""
    most = LARGEST_VSHIFT * MILLISECONDS_PER_FRAME
    return number(text, float, f"must be a number above 0 and up to {most}", lambda value: 0 < value <= most)


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    return number(text, float, "must be a number above 0", lambda value: 0 < value < math.inf)


def not_negative_float(text: str) -> float:
    """Parse a finite number of at least 0."""
    return number(text, float, "must be a number of at least 0", lambda value: 0 <= value < math.inf)


def finite_float(text: str) -> float:
    """Parse a finite number."""
    return number(text, float, "must be a number", math.isfinite)


def number(text: str, kind: Callable[[str], Number], requirement: str, is_valid: Callable[[Number], bool]) -> Number:
    """Parse the value of a numeric flag.

    Args:
        text: value on the command line.
        kind: ``int`` or ``float``.
        requirement: what the value must be, for the error message.
        is_valid: returns whether a number fulfils the requirement.

    Raises:
        argparse.ArgumentTypeError: the text is not a number, or the number is not valid.
    """
    value: Number | None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text}: {requirement}")
    return value


def script(function: Callable[[argparse.Namespace], int | None]) -> Main:
    """Decorate ``function(args)`` as a script's ``main(argv=None)``, which parses the flags and returns the exit code.

    Errors of the suite and errors from outside (a full disk, Ctrl-C) are logged as one line on stderr.
    """

    @functools.wraps(function)
    def main(argv: Sequence[str] | None = None) -> int:
        parser = sys.modules[function.__module__].get_parser()
        args = parser.parse_args(argv)
        set_up_logging(quiet=args.quiet, verbose=args.verbose)
        try:
            code = function(args) or 0
            if sys.stdout:
                sys.stdout.flush()
            return code
        except SyncNetError as error:
            logger.error("%s: error: %s", parser.prog, error)
            return error.exit_code
        except BrokenPipeError:
            # the reader of stdout has ended, as with `| head`: print no error, and leave nothing to flush at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except OSError as error:
            logger.error("%s: error: %s: %s", parser.prog, error.filename or "system", error.strerror or error)
            return FAILED
        except ModuleNotFoundError as error:
            logger.error("%s: error: %s: %s", parser.prog, error, INSTALL)
            return FAILED
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            flags = " or ".join(f"--{name}" for name in MEMORY_FLAGS if hasattr(args, name))
            logger.error("%s: error: not enough memory%s", parser.prog, f": lower {flags}" if flags else "")
            return FAILED
        except KeyboardInterrupt:
            logger.error("%s: interrupted", parser.prog)
            return INTERRUPTED

    return main


def run(main: Main) -> NoReturn:
    """Run ``main`` as a script and exit with its code.

    Once ``main`` has returned, Ctrl-C and SIGTERM are ignored, so that they cannot change the exit code.
    """
    if sys.stderr is None:
        open_stderr()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up and end ffmpeg, as after Ctrl-C
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that the terminal cannot show
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def open_stderr() -> None:
    """Open /dev/null as stderr.

    Otherwise the next file that is opened gets stderr's file descriptor, and with it whatever libraries print there.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    if null != STDERR:
        os.dup2(null, STDERR)
    sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115, open until the process ends


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Send log messages to stderr; stdout is for the lines of the published suite."""
    logger.handlers[:] = [StderrHandler()]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class StderrHandler(logging.Handler):
    """Log handler that prints messages above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as one line on stderr."""
        if sys.stderr is None:  # the parent process closed it; print would write to stdout instead
            return
        line = self.format(record).replace("\n", " ")  # file names may contain newlines
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def check_libraries() -> None:
    """Import OpenCV, which fails on servers without certain system libraries.

    Raises:
        ToolError: OpenCV cannot be imported; the message names the package to install.
    """
    # OpenCV and the ffmpeg inside it would print their own lines besides ours for the same error
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        if "lib" in str(error) and ".so" in str(error):
            raise ToolError(
                f"OpenCV cannot be loaded ({error}): install the system libraries (apt install libgl1 libglib2.0-0)"
            ) from error
        raise ToolError(f"{error}: {INSTALL}") from error


def required_reference(args: argparse.Namespace) -> Layout:
    """Return the ``Layout`` given by --data_dir and --reference.

    Raises:
        UsageError: a flag is missing or invalid.
    """
    from syncnet.results.layout import Layout

    if not args.reference:
        raise UsageError("--reference is missing: give the video a name, its results go to DATA_DIR/py*/REFERENCE")
    return Layout(args.data_dir, args.reference)
