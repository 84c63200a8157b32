"""Say by how much sound and picture of a video are apart, how sure that is, and which face speaks.

    python score_video.py --videofile video.mp4
    python score_video.py --videofile video.mp4 --json scores.json
    python score_video.py --videofile video.mp4 --audio dub.wav
    python score_video.py --videofile crop.mp4 --face_crops
    python score_video.py --videofile video.mp4 --rttm turns.rttm --split_speakers clips

Prints a table of the face tracks, who speaks when, and the lag of the video. Lags are positive where the sound is
early. Leaves no files behind unless --reference is given.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from syncnet import cli, defaults
from syncnet.reasons import LOW_CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from syncnet.api import Score, TrackScore

FLAGS = (
    *("mode", "face_crops", "detect_every", "precision", "device", "audio_stream", "initial_model", "s3fd_weights"),
    *("facedet_scale", "crop_scale", "min_track", "num_failed_det", "min_face_size", "scene_threshold"),
    *("vshift", "batch_size", "min_speaking"),
)
UNKNOWN = "-"
WIDTHS = {"track": 5, "from": 8, "to": 8, "offset": 7, "lag ms": 14, "confidence": 11, "min dist": 9, "speaks s": 9}
HEADER = " ".join(f"{name:>{width}}" for name, width in WIDTHS.items())


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__, verbose="also print the messages of the decoder")
    parser.add_argument("--audio", default="", help="score the sound of this file instead of the video's own")
    cli.add_audio_stream(parser)
    parser.add_argument("--json", default="", help="also write the result and its recipe to this JSON file")
    parser.add_argument("--rttm", default="", help="also write who speaks when to this RTTM file, one label a track")
    parser.add_argument(
        "--split_speakers",
        default="",
        help="also write a clip of every time in which a face speaks, its crop and its sound, to this new folder",
    )
    parser.add_argument(
        "--min_span",
        type=cli.not_negative_float,
        default=defaults.MIN_SPAN,
        help="--split_speakers: shortest clip, in seconds",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="--split_speakers: replace the clips that an earlier run wrote there"
    )
    cli.add_mode(parser, mode=defaults.DIRECT)
    cli.add_layout(parser)
    cli.add_tracking(parser, min_track=defaults.FILTER_MIN_TRACK, min_face_size=defaults.FILTER_MIN_FACE_SIZE)
    cli.add_scoring(parser)
    cli.add_min_speaking(parser)
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    cli.check_mode(args)
    cli.check_libraries()
    from pathlib import Path

    from syncnet import api, progress
    from syncnet.results import rttm
    from syncnet.results.layout import check_clips, check_input, clear_result
    from syncnet.results.step_files import save_json, save_text

    inputs = [check_input(args.videofile)]
    if args.audio:
        inputs.append(check_input(args.audio, advice=": check --audio"))
    layout = cli.required_reference(args) if args.reference else None
    for flag, file in (("--json", args.json), ("--rttm", args.rttm)):
        if file:
            clear_result(Path(file), *inputs, flag=flag)
    if args.split_speakers:
        check_clips(args.split_speakers, inputs=inputs, overwrite=args.overwrite)
    bar = progress.bar(quiet=args.quiet)
    score = api.score_video(
        args.videofile,
        **{name: getattr(args, name) for name in FLAGS},
        audio=args.audio or None,
        layout=layout,
        progress=bar,
    )
    if args.json:
        save_json(score.to_dict(), Path(args.json))
    if args.rttm:
        save_text("".join(rttm.lines(score.report)), Path(args.rttm))
    if args.split_speakers:
        written = api.split_speakers(
            score, args.split_speakers, min_span=args.min_span, overwrite=args.overwrite, progress=bar
        )
        cli.logger.info("%s: %d clips", args.split_speakers, len(written))
    for line in lines(score):
        print(line)
    for reason in score.reasons:
        cli.logger.warning("%s: %s", args.videofile, reason.text)
    for track in score.tracks:
        for reason in track.reasons:
            cli.logger.warning("%s: track %d: %s", args.videofile, track.track, reason.text)


def lines(score: Score) -> Iterator[str]:
    """Yield the lines of the table, who speaks when, and the lag of the video."""
    from syncnet.sync.lag import tolerances

    if score.tracks:
        yield HEADER
    for track in score.tracks:
        yield row(track)
    for index, span in enumerate(score.speakers):
        times = f"{span.start:8.2f} {span.end:8.2f}"
        yield f"{'' if index else 'speaking':>10} {times}   track {span.track}, confidence {span.confidence:.2f}"
    for index, speech in enumerate(score.speech_without_face):
        yield f"{'' if index else 'off screen':>10} {speech.start:8.2f} {speech.end:8.2f}"
    if score.lag_ms is not None:
        yield f"{tolerances(score.lag_ms)}"


def row(track: TrackScore) -> str:
    """Return the row of a track."""
    place = f"{track.track:5d} {track.start:8.2f} {track.end:8.2f}"
    if track.confidence is None or track.min_dist is None:
        return f"{place} {UNKNOWN:>7} {UNKNOWN:>14} {UNKNOWN:>11} {UNKNOWN:>9} {UNKNOWN:>9}"
    means_nothing = track.lag_ms is None or LOW_CONFIDENCE in [reason.code for reason in track.reasons]
    lag = UNKNOWN if means_nothing else f"{track.lag_ms:.0f} +-{track.lag_error_ms:.0f}"
    return f"{place} {track.offset:7d} {lag:>14} {track.confidence:11.3f} {track.min_dist:9.3f} {track.speaking_s:9.2f}"


if __name__ == "__main__":
    cli.run(main)
