"""Score every video of a folder by audio-visual sync, and sort the videos into good and poor ones.

    python filter_videos_by_sync_score.py --input_dir videos --output_dir filtered
    python filter_videos_by_sync_score.py --input_dir videos --output_dir filtered --preset high
    python filter_videos_by_sync_score.py --input_dir videos --output_dir filtered --min_confidence 4 --rescore never
    python filter_videos_by_sync_score.py --input_dir videos --output_dir filtered --mode direct --transfer correct

After an interruption, the same command continues where it stopped. Thresholds can be changed at any time, because
scores are kept in OUTPUT_DIR/results.jsonl. With --transfer correct, the lag is taken out of the good videos.
Exit code: 0 if every video was judged, 3 if some failed or were not scored or not corrected, 2 for wrong flags, 1 if
the run could not continue.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import signal
import threading
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from syncnet import cli
from syncnet.defaults import DIRECT, FILTER_MIN_FACE_SIZE, FILTER_MIN_TRACK, MAX_LAG, PUBLISHED

if TYPE_CHECKING:
    from pathlib import Path

    from syncnet.filter.inputs import Video
    from syncnet.filter.layout import FilterLayout
    from syncnet.filter.quality import Thresholds
    from syncnet.filter.recipe import Parameters
    from syncnet.filter.run import Derivation, Engine, FilterResult

SOME_FAILED = 3
MOST_LISTED = 20  # videos that are named one by one
LOCAL, RAY = "local", "ray"


class Given(argparse.Action):
    """Action that stores a value and records that the user gave it.

    A preset does not replace the user's thresholds, and ``--rescore never`` looks for the recipe that the user gave.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = (*getattr(namespace, "given", ()), self.dest)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    from syncnet.filter.placement import COPY, KINDS
    from syncnet.filter.quality import CODES, DEFAULT, PRESETS, REJECT_NONE
    from syncnet.filter.run import CHANGED, RESCORE

    parser = cli.new_parser(__doc__, verbose="also print a line per video")
    parser.register("action", None, Given)  # of flags that name no other action
    add = parser.add_argument
    add("--input_dir", default="", help="folder of videos")
    add("--input_list", default="", help="file with one path per line, instead of all videos of INPUT_DIR")
    add(
        "--audio_dir",
        default="",
        help="folder with the sound to score every video with: media files named like the videos, with any suffix",
    )
    add("--recursive", action="store_true", help="also score videos in subfolders of INPUT_DIR")
    add("--output_dir", required=True, help="folder for all results")
    add(
        "--min_confidence",
        type=cli.finite_float,
        default=DEFAULT.min_confidence,
        help="lowest confidence to keep",
    )
    add(
        "--max_abs_offset",
        type=cli.not_negative_int,
        default=DEFAULT.max_abs_offset,
        help="largest absolute offset to keep, in frames",
    )
    presets = ", ".join(f"{name} {t.min_confidence:g}/{t.max_abs_offset}" for name, t in PRESETS.items())
    add(
        "--preset",
        choices=list(PRESETS),
        help=f"set both thresholds ({presets}); a threshold's own flag overrides the preset",
    )
    add(
        "--reject",
        default=",".join(DEFAULT.reject),
        metavar="CODES",
        help="reasons that a video or its most confident track must not have to pass: codes with commas between them, "
        f"of {', '.join(CODES)}; {REJECT_NONE}: only the two thresholds count, as in the published suite",
    )
    add("--keep_all", action="store_true", help="only analyse and copy no files; same as --transfer none")
    add(
        "--transfer",
        choices=KINDS,
        default=COPY,
        help="how videos get into good_quality and poor_quality; correct: copy them, and take the lag out of those "
        "that are good without it (needs --mode direct)",
    )
    add(
        "--max_lag",
        type=cli.max_lag,
        default=MAX_LAG,
        help="with --transfer correct: largest lag to take out, in milliseconds; MAX_ABS_OFFSET holds for what is left",
    )
    add("--save_outputs", action="store_true", help="keep every video's crops, overlay and analysis in syncnet_outputs")
    add("--max_workers", type=cli.positive_int, default=2, help="number of worker processes; each scores one video")
    add("--timeout", type=cli.positive_float, help="longest time for a video, in seconds; beyond, it counts as failed")
    add(
        "--rescore",
        choices=RESCORE,
        default=CHANGED,
        help="which videos to score; changed: those without a score of the current file and recipe; never: none",
    )
    add("--retry_failed", action="store_true", help="also score videos again that failed")
    add("--tmp_dir", default="", help="scratch folder, best on a fast disk; default: in OUTPUT_DIR")
    add_engine(parser)
    cli.add_tracking(parser, min_track=FILTER_MIN_TRACK, min_face_size=FILTER_MIN_FACE_SIZE)
    cli.add_scoring(parser)
    cli.add_min_speaking(parser)
    cli.add_mode(parser, mode=PUBLISHED)
    return parser


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the engine."""
    add = parser.add_argument
    add("--engine", choices=(LOCAL, RAY), default=LOCAL, help="score on this machine, or on a Ray cluster")
    add("--ray_address", default="", help="ray: cluster to join; default: RAY_ADDRESS, or else a new local cluster")
    add("--gpus_per_worker", type=cli.not_negative_float, default=0.0, help="ray: GPUs per worker, such as 0.25")
    add("--cpus_per_worker", type=cli.positive_int, default=1, help="ray: CPU cores per worker")


@cli.script
def main(args: argparse.Namespace) -> int:
    """Run the filter and return the exit code."""
    from syncnet.filter.journal import locked
    from syncnet.filter.layout import FilterLayout

    check(args)
    cli.check_libraries()
    from syncnet import progress
    from syncnet.filter import run as filter_run
    from syncnet.filter.inputs import absolute
    from syncnet.filter.layout import scratch_root

    filter_layout = FilterLayout(args.output_dir)
    videos = select(args, filter_layout)
    parameters = parameters_of(args)
    scratch = scratch_root(args.tmp_dir, filter_layout)
    scoring = filter_run.Scoring(
        parameters,
        functools.partial(make_engine, args, filter_layout, scratch),
        rescore=args.rescore,
        retry_failed=args.retry_failed,
        save_outputs=args.save_outputs,
        given=(*getattr(args, "given", ()), *(["face_crops"] if args.face_crops else [])),
    )
    derivation = derivation_of(args, parameters)
    with hangup_interrupts(), locked(filter_layout.lock):
        result = filter_run.run(
            videos,
            filter_layout,
            scoring,
            derivation,
            scratch=scratch,
            below=absolute(args.input_dir) if args.input_dir else None,
            recursive=args.recursive,
            progress=progress.bar(quiet=args.quiet),
        )
    list_some([f"{each.video.name}: good, but {each.damage}" for each in result.damaged])
    if args.rescore == filter_run.NEVER:
        list_uncorrected(result, args)
    return report(result, filter_layout, thresholds=derivation.thresholds)


def check(args: argparse.Namespace) -> None:
    """Raise an error for values of flags that do not work together.

    Raises:
        UsageError: They do not.
    """
    from syncnet.errors import UsageError
    from syncnet.filter.inputs import identity
    from syncnet.filter.layout import FilterLayout
    from syncnet.filter.run import NEVER

    if not (args.input_dir or args.input_list or args.rescore == NEVER):
        raise UsageError("--input_dir: name the folder of videos (or a list of them with --input_list)")
    if args.rescore == NEVER and args.save_outputs:
        raise UsageError("--save_outputs: does not work with --rescore never, which scores no video: drop one of them")
    if args.rescore != NEVER:
        cli.check_mode(args)
    check_transfer(args)
    thresholds_of(args)
    if not args.output_dir:
        raise UsageError("--output_dir: name a folder for all results")
    filter_layout = FilterLayout(args.output_dir)
    if filter_layout.output_dir.exists() and not filter_layout.output_dir.is_dir():
        raise UsageError(f"--output_dir {args.output_dir}: not a folder: choose another one")
    own = (filter_layout.output_dir, *filter_layout.quality_folders)
    if args.input_dir and identity(args.input_dir) in [identity(folder) for folder in own if folder.exists()]:
        raise UsageError(f"--output_dir {args.output_dir}: this is the input folder: choose another folder")


def check_transfer(args: argparse.Namespace) -> None:
    """Raise an error for flags that do not work with ``--transfer``.

    Raises:
        UsageError: There are some.
    """
    from syncnet.errors import UsageError
    from syncnet.filter.placement import CORRECT
    from syncnet.filter.run import NEVER

    if args.transfer != CORRECT:
        if "max_lag" in getattr(args, "given", ()):
            raise UsageError(f"--max_lag {args.max_lag:g}: works with --transfer {CORRECT} only: add it, or drop this")
    elif args.mode != DIRECT and args.rescore != NEVER:
        raise UsageError(f"--transfer {CORRECT}: needs the lag in milliseconds: add --mode {DIRECT}")
    elif args.audio_dir:
        raise UsageError(f"--audio_dir: --transfer {CORRECT} moves the videos' own sound: drop one of them")


def select(args: argparse.Namespace, filter_layout: FilterLayout) -> list[Video] | None:
    """Return the videos of this run; None for those in the journal."""
    from syncnet.filter.inputs import find_videos, read_list, with_sounds
    from syncnet.filter.run import NEVER

    if args.rescore == NEVER and not args.input_list:
        return None
    if args.input_list:
        videos = read_list(args.input_list, input_dir=args.input_dir or None)
    else:
        videos = find_videos(args.input_dir, recursive=args.recursive, leave_out=filter_layout.output_dir)
    return with_sounds(videos, args.audio_dir) if args.audio_dir and args.rescore != NEVER else videos


@contextlib.contextmanager
def hangup_interrupts() -> Iterator[None]:
    """Treat SIGHUP like Ctrl-C, so that the results of finished videos are written when a terminal is closed.

    ``cli.run`` does the same for SIGTERM. Another handler of SIGHUP is kept, and so is nohup, which ignores it.
    """
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    in_main_thread = threading.current_thread() is threading.main_thread()
    if number is None or not in_main_thread or signal.getsignal(number) != signal.SIG_DFL:
        yield
        return
    signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL)


def parameters_of(args: argparse.Namespace) -> Parameters:
    """Return the parameters of the recipe that the flags give."""
    from syncnet.filter.recipe import Parameters

    return Parameters(**{field.name: getattr(args, field.name) for field in fields(Parameters)})


def thresholds_of(args: argparse.Namespace) -> Thresholds:
    """Return the thresholds that the flags give: a threshold's own flag, or else the preset, or else the default.

    Raises:
        UsageError: ``--reject`` has an unknown code.
    """
    from syncnet.filter.quality import PRESETS, Thresholds, codes_of

    names = ("min_confidence", "max_abs_offset")
    preset = PRESETS.get(args.preset)
    given = getattr(args, "given", ())
    numbers = {n: getattr(preset if preset and n not in given else args, n) for n in names}
    return Thresholds(**numbers, reject=codes_of(args.reject))


def derivation_of(args: argparse.Namespace, parameters: Parameters) -> Derivation:
    """Return the settings for deriving results that the flags give."""
    from syncnet.filter.outputs import settings_record
    from syncnet.filter.placement import CORRECT, NONE
    from syncnet.filter.run import Derivation

    thresholds = thresholds_of(args)
    transfer = NONE if args.keep_all else args.transfer
    max_lag = args.max_lag if transfer == CORRECT else None
    return Derivation(thresholds, settings_record(thresholds, parameters, max_lag=max_lag), transfer, args.max_lag)


def make_engine(args: argparse.Namespace, filter_layout: FilterLayout, scratch: Path, parameters: Parameters) -> Engine:
    """Return the engine that the flags select."""
    from syncnet.filter import scorer
    from syncnet.results.layout import make_folder

    output_dir = filter_layout.output_dir if args.save_outputs else None
    load = functools.partial(scorer.load_scorer, parameters, output_dir=output_dir)
    options = {"scratch": scratch, "max_workers": args.max_workers, "timeout": args.timeout}
    if args.engine == RAY:
        from syncnet.filter.ray_engine import RayEngine

        address, gpus, cpus = args.ray_address or None, args.gpus_per_worker, args.cpus_per_worker
        return RayEngine(load, address=address, gpus=gpus, cpus=cpus, **options)
    from syncnet.filter.local_engine import LocalEngine

    make_folder(scratch, flag="--tmp_dir" if args.tmp_dir else "--output_dir")
    return LocalEngine(load, **options)


def report(result: FilterResult, filter_layout: FilterLayout, *, thresholds: Thresholds) -> int:
    """Log the summary and return the exit code.

    Raises:
        KeyboardInterrupt: The scoring was interrupted.
        SyncNetError: An error ended the scoring early.
    """
    from syncnet.filter import outputs

    found = result.statistics
    for line in outputs.summary(found, total=result.total, thresholds=thresholds, judged=result.judged):
        cli.logger.info("%s", line)
    cli.logger.info("%s", filter_layout.results)
    if result.stopped:
        raise result.stopped
    incomplete = found.failed or found.unfinished or found.pending or found.total < result.total
    return SOME_FAILED if incomplete else 0


def list_some(lines: list[str]) -> None:
    """Log lines about videos, up to ``MOST_LISTED`` of them, as warnings."""
    for line in lines[:MOST_LISTED]:
        cli.logger.warning("%s", line)
    if len(lines) > MOST_LISTED:
        cli.logger.warning("and %d more: see results.csv", len(lines) - MOST_LISTED)


def list_uncorrected(result: FilterResult, args: argparse.Namespace) -> None:
    """Log which videos are yet to be corrected, and the commands that correct them, one per input folder."""
    if not result.uncorrected:
        return
    list_some([f"{each.video.name}: {each.pending}" for each in result.uncorrected])
    cli.logger.warning("%s", "--rescore never corrects no videos; these commands do:")
    for command in commands(result, args):
        cli.logger.warning("%s", command)


def commands(result: FilterResult, args: argparse.Namespace) -> Iterator[str]:
    """Yield the commands that correct the videos that are yet to be corrected.

    They have the flags of this run, those of the recipe that differ from the defaults, and the folders of the videos.
    """
    import shlex

    from syncnet.filter.recipe import flags_of

    parser = get_parser()
    given = {name: getattr(args, name) for name in getattr(args, "given", ()) if name != "rescore"}
    changed = flags_of(result.judged.recipe or {})
    flags = {**{name: v for name, v in changed.items() if v != parser.get_default(name)}, **given}
    words = [word for name, v in flags.items() for word in ([f"--{name}"] if v is True else [f"--{name}", str(v)])]
    roots: dict[str, bool] = {}
    for each in result.uncorrected:
        root = each.video.path.removesuffix(each.video.name)
        roots[root] = roots.get(root, False) or "/" in each.video.name
    if args.input_list or args.input_dir:
        roots = {"": any(roots.values()) and not args.input_list}
    for root, deep in roots.items():
        folder = ["--input_dir", root.rstrip("/") or "/"] if root else []
        more = ["--recursive"] if deep or args.recursive else []
        yield shlex.join(["python", "filter_videos_by_sync_score.py", *folder, *more, *words])


if __name__ == "__main__":
    cli.run(main)
