"""What the scripts have in common: flags, messages, progress, and errors as one line."""

import argparse
import functools
import io
import logging
import math
import os
import signal
import sys

from syncnet import defaults
from syncnet.constants import FRAME_RATE
from syncnet.errors import SyncNetError, ToolError, UsageError, out_of_memory
from syncnet.models.weights import S3FD, SYNCNET, Default

logger = logging.getLogger("syncnet")

DATA_DIR = "data/work"
INSTALL = "run `pip install -r requirements.txt`"
STDERR = 2
MEMORY_FLAGS = ("batch_size", "vshift", "facedet_scale")  # what needs more the larger it is
INTERRUPTED = 130  # what a shell makes of Ctrl-C
FAILED = 1
SMALLEST_SCALE, LARGEST_SCALE = 0.001, 16.0  # beyond, a picture is nothing, or fills any memory


LARGEST_INT = 10**9
LARGEST_FRAME_RATE = 65535  # that MPEG-4 can hold
LARGEST_VSHIFT = 10**5  # frames, more than an hour


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it is, and every flag's default."""


def new_parser(docstring, *, verbose="also a line per frame, and what ffmpeg says"):
    """A parser with the flags of every script; ``verbose`` tells what that flag does."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=Formatter)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="no progress and no summary on stderr, only warnings")
    group.add_argument("--verbose", action="store_true", help=verbose)
    return parser


def add_layout(parser):
    """Flags of every step of the pipeline."""
    parser.add_argument("--data_dir", default=DATA_DIR, help="folder for all results")
    parser.add_argument("--videofile", default="", help="the input video")
    parser.add_argument("--reference", default="", help="name of the video: its folder's name below DATA_DIR/py*")


def add_device(parser):
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps: where the network runs")


def add_frame_rate(parser):
    parser.add_argument("--frame_rate", type=frame_rate, default=FRAME_RATE, help="frames a second of the results")


def add_tracking(parser, *, min_track=defaults.MIN_TRACK, min_face_size=defaults.MIN_FACE_SIZE):
    """Flags of what is found and cut out, with the defaults that differ between scripts."""
    parser.add_argument(
        "--facedet_scale",
        type=facedet_scale,
        default=defaults.FACEDET_SCALE,
        help="factor on the picture's size for face detection",
    )
    parser.add_argument(
        "--crop_scale",
        type=crop_scale,
        default=defaults.CROP_SCALE,
        help="surroundings of the face that are cut out with it",
    )
    parser.add_argument(
        "--min_track", type=not_negative_int, default=min_track, help="a track has faces in more frames than this"
    )
    parser.add_argument(
        "--num_failed_det",
        type=not_negative_int,
        default=defaults.NUM_FAILED_DET,
        help="frames that a tracked face may be missing for",
    )
    parser.add_argument(
        "--min_face_size",
        type=not_negative_int,
        default=min_face_size,
        help="a track's face is larger than this, in pixels",
    )
    parser.add_argument(
        "--scene_threshold",
        type=positive_float,
        default=defaults.SCENE_THRESHOLD,
        help="change of the picture that counts as a cut",
    )
    parser.add_argument(
        "--s3fd_weights",
        default=Default(S3FD.published),
        help="face detector's weights; the starter where this is not there",
    )


def add_scoring(parser):
    """Flags of SyncNet itself."""
    parser.add_argument(
        "--initial_model",
        default=Default(SYNCNET.published),
        help="SyncNet weights; the starter where this is not there",
    )
    parser.add_argument(
        "--batch_size", type=positive_int, default=defaults.BATCH_SIZE, help="windows that are scored together"
    )
    parser.add_argument(
        "--vshift", type=vshift, default=defaults.VSHIFT, help="frames that are tried in both directions"
    )
    add_device(parser)


def add_speaker_threshold(parser):
    parser.add_argument(
        "--speaker_threshold",
        type=finite_float,
        default=defaults.SPEAKER_THRESHOLD,
        help="framewise confidence that a speaking face is above",
    )


def crop_scale(text):
    return scale(text, least=0.0)


def facedet_scale(text):
    return scale(text, least=SMALLEST_SCALE)


def scale(text, *, least):
    return checked(text, float, f"must be from {least:g} to {LARGEST_SCALE:g}", lambda v: least <= v <= LARGEST_SCALE)


def whole(text, *, least, most=LARGEST_INT):
    return checked(text, int, f"must be a whole number from {least} to {most}", lambda value: least <= value <= most)


def positive_int(text):
    return whole(text, least=1)


def not_negative_int(text):
    return whole(text, least=0)


def frame_rate(text):
    return whole(text, least=1, most=LARGEST_FRAME_RATE)


def vshift(text):
    return whole(text, least=1, most=LARGEST_VSHIFT)


def positive_float(text):
    return checked(text, float, "must be a number above 0", lambda value: 0 < value < math.inf)


def not_negative_float(text):
    return checked(text, float, "must be a number, and not below 0", lambda value: 0 <= value < math.inf)


def finite_float(text):
    return checked(text, float, "must be a number", math.isfinite)


def checked(text, kind, demand, fulfils):
    """The number that a flag's value stands for.

    Raises:
        argparse.ArgumentTypeError: it is none, or not what is asked for.
    """
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fulfils(value):
        raise argparse.ArgumentTypeError(f"{text}: {demand}")
    return value


def script(function):
    """Make ``function(args)`` the body of a script's ``main(argv=None)``, which returns the exit code.

    Errors of the suite become one line on stderr; so does what comes from outside of it (a full disk, Ctrl-C).
    """

    @functools.wraps(function)
    def main(argv=None):
        parser = sys.modules[function.__module__].get_parser()
        args = parser.parse_args(argv)
        set_up_messages(quiet=args.quiet, verbose=args.verbose)
        try:
            code = function(args) or 0
            if sys.stdout:
                sys.stdout.flush()
            return code
        except SyncNetError as error:
            logger.error("%s: error: %s", parser.prog, error)
            return error.exit_code
        except BrokenPipeError:
            # whoever read stdout has gone, as `| head` does: nobody is left to tell, and nothing to flush at exit
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


def run(main):
    """Be a script: exit with the code of ``main``; Ctrl-C and SIGTERM no longer count when the work is done."""
    if sys.stderr is None:
        open_stderr()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does: with its ffmpegs, tidily
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal has no letters for
    code = main()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def open_stderr():
    """Have a stderr that goes nowhere: the next file that is opened would get its number, and what libraries print."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != STDERR:
        os.dup2(nowhere, STDERR)
    sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115, for as long as the process lives


def set_up_messages(*, quiet, verbose):
    """Everything that is not a line of the published suite goes to stderr."""
    logger.handlers[:] = [StderrHandler()]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class StderrHandler(logging.Handler):
    """Prints messages above a progress bar instead of through it."""

    def emit(self, record):
        if sys.stderr is None:  # closed by whoever started the script; print would take stdout instead
            return
        line = self.format(record).replace("\n", " ")  # a file's name may hold one
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def check_libraries():
    """Import OpenCV, which on a server may lack a system library.

    Raises:
        ToolError: says what to install.
    """
    # what OpenCV and the ffmpeg inside it print would stand beside our own line on the same error
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


def required_reference(args):
    """The ``Layout`` that the flags name.

    Raises:
        UsageError: a flag is missing or wrong.
    """
    from syncnet.results.layout import Layout

    if not args.reference:
        raise UsageError("--reference: name the video: results go to DATA_DIR/py*/REFERENCE")
    return Layout(args.data_dir, args.reference)
