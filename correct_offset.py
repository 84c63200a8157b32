"""Take the lag between sound and picture out of a video.

    python correct_offset.py --videofile in.mp4 --output out.mp4
    python correct_offset.py --videofile in.mp4 --output out.mp4 --max_lag 1500
    python correct_offset.py --videofile in.mp4 --output out.mp4 --audio_codec copy
    python correct_offset.py --videofile in.mp4 --output out.mp4 --delay_audio 120

Measures the lag as score_video does, moves the sound, which is encoded anew, past the picture, which is not, and
measures the result. Ends with exit code 3, and without output, if the lag is not to be trusted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from syncnet import cli, defaults, reasons
from syncnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syncnet.steps.correct import Correction, Measurement

FLAGS = (
    *("max_lag", "min_confidence", "fix_drift", "delay_audio", "audio_codec", "always_write", "overwrite"),
    *("face_crops", "detect_every", "precision", "device", "audio_stream", "initial_model", "s3fd_weights"),
    *("facedet_scale", "crop_scale", "min_track", "num_failed_det", "min_face_size", "scene_threshold", "batch_size"),
)
UNKNOWN = "-"
WIDTHS = {"shot": 5, "from": 8, "to": 8, "lag ms": 14, "confidence": 11}
HEADER = " ".join(f"{name:>{width}}" for name, width in WIDTHS.items())


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__, verbose="also print the messages of the decoder")
    cli.add_videofile(parser)
    parser.add_argument("--output", default="", help="the corrected video: .mp4, .mov, .mkv, .webm, .avi or .ts")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    parser.add_argument(
        "--always_write", action="store_true", help="also write an output, a copy, if there is nothing to do"
    )
    parser.add_argument(
        "--max_lag",
        type=cli.max_lag,
        default=defaults.MAX_LAG,
        help="largest lag to look for in both directions, in milliseconds",
    )
    parser.add_argument(
        "--min_confidence",
        type=cli.finite_float,
        default=reasons.SURE_CONFIDENCE,
        help="refuse a lag that is measured with a confidence below this",
    )
    parser.add_argument("--fix_drift", action="store_true", help="also take a drift out: resample the sound")
    parser.add_argument(
        "--delay_audio",
        type=cli.finite_float,
        help="move the sound by this many milliseconds, negative to an earlier time, without measuring",
    )
    parser.add_argument(
        "--audio_codec",
        help="codec of the sound, as ffmpeg calls it, or copy to move time stamps alone; default: the video's own",
    )
    cli.add_audio_stream(parser)
    parser.add_argument("--json", default="", help="also write what was measured and done to this JSON file")
    cli.add_direct(parser)
    cli.add_tracking(parser, min_track=defaults.FILTER_MIN_TRACK, min_face_size=defaults.FILTER_MIN_FACE_SIZE)
    cli.add_net(parser)
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    cli.check_libraries()
    from pathlib import Path

    from syncnet import api, progress
    from syncnet.results.layout import check_input, check_output, clear_result
    from syncnet.results.step_files import save_json
    from syncnet.steps.correct import Correction, RefusedError

    videofile = check_input(args.videofile)
    if args.json:
        if Path(args.json).resolve() == Path(args.output).resolve():
            raise UsageError(f"{args.json}: is the --output: choose another --json")
        check_output(args.output, videofile=videofile, overwrite=args.overwrite)  # else what describes it is lost
        clear_result(Path(args.json), videofile)
    refused = None
    try:
        done = api.correct_offset(
            videofile,
            args.output,
            **{name: getattr(args, name) for name in FLAGS},
            progress=progress.bar(quiet=args.quiet),
        )
    except RefusedError as error:
        refused = error
        done = Correction(error.measurement, after=None, shift=None, written=False, rounds=0)
    if args.json:
        save_json(done.to_dict(), Path(args.json))
    if done.before:
        for line in table(done.before):
            print(line)
    if refused:
        raise refused
    for line in summary(done):
        print(line)
    for reason in done.before.reasons if done.before else ():
        cli.logger.warning("%s: %s", videofile, reason)
    for note in done.notes:
        cli.logger.warning("%s: %s", args.output, note)
    if not done.written:
        cli.logger.info("%s: not written: --always_write writes a copy", args.output)


def table(before: Measurement) -> Iterator[str]:
    """Yield the lags of the shots, if there are several."""
    if len(before.shots) < 2:
        return
    yield HEADER
    for index, shot in enumerate(before.shots):
        means_nothing = shot.confidence < reasons.LEAST_CONFIDENCE
        lag = UNKNOWN if means_nothing else f"{round(shot.lag_ms)} +-{round(shot.lag_error_ms)}"
        yield f"{index:5d} {shot.start:8.2f} {shot.end:8.2f} {lag:>14} {shot.confidence:11.3f}"


def summary(done: Correction) -> Iterator[str]:
    """Yield what was measured and done."""
    before, after = done.before, done.after
    if before is None:
        assert done.shift is not None, "moved without a measurement"
        yield f"audio moved {place(done.shift.delay_ms, 'later', 'earlier')}, not measured"
        return
    if done.shift is not None and done.shift.drift_ms_per_min and after is not None:
        yield f"drift {drift(before)} -> {drift(after)} ms per minute"
    elif before.drifts:
        yield f"the lag drifts by {drift(before)} ms per minute: --fix_drift takes that out"
    now = f"audio {place(before.lag_ms, 'early', 'late')} (lag {round(before.lag_ms or 0)} ms)"
    sure = f"confidence {before.confidence:.1f}"
    if after is None:
        yield f"{now}: nothing to do; {sure}"
    else:
        yield f"{now} -> {place(after.lag_ms, 'early', 'late')}; {sure} -> {after.confidence:.1f}"


def place(milliseconds: float | None, positive: str, negative: str) -> str:
    """Return a time in words: its sign is said by one of two words."""
    assert milliseconds is not None, "a measurement that is trusted"
    return f"{abs(round(milliseconds))} ms {positive if milliseconds > 0 else negative}"


def drift(found: Measurement) -> str:
    """Return a drift and its error."""
    if found.drift_ms_per_min is None or found.drift_error_ms_per_min is None:
        return UNKNOWN
    return f"{round(found.drift_ms_per_min)} +-{round(found.drift_error_ms_per_min)}"


if __name__ == "__main__":
    cli.run(main)
