"""Score the face tracks from run_pipeline.py: offset, confidence and the speaking face.

python run_syncnet.py --videofile video.mp4 --reference name --data_dir output
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from syncnet import cli

if TYPE_CHECKING:
    from syncnet.results.layout import Layout
    from syncnet.steps.score import SyncResult


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__, verbose="also print the messages of ffmpeg")
    cli.add_scoring(parser)
    cli.add_layout(parser)
    cli.add_min_speaking(parser)
    cli.add_speaker_threshold(parser)
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    layout = cli.required_reference(args)
    cli.check_libraries()
    from syncnet import progress
    from syncnet.steps import score as score_step
    from SyncNetInstance import SyncNetInstance

    net = SyncNetInstance(args.device)
    net.loadParameters(args.initial_model)
    result = score_step.run(
        layout,
        net,
        batch_size=args.batch_size,
        vshift=args.vshift,
        speaker_threshold=args.speaker_threshold,
        min_speaking=args.min_speaking,
        progress=progress.bar(quiet=args.quiet),
    )
    report(result, layout)


def report(result: SyncResult, layout: Layout) -> None:
    """Log who speaks when, and the warnings."""
    from syncnet.steps.score import warnings

    spans, unseen = result.report["speakers"], result.report["speech_without_face"]
    if spans or unseen:
        cli.logger.info("speaking:   start      end   track  confidence")
    for span in sorted([*spans, *unseen], key=lambda each: each["start"]):
        if "track" in span:
            cli.logger.info(
                "         %8.2f %8.2f   %5d  %10.2f", span["start"], span["end"], span["track"], span["confidence"]
            )
        else:
            cli.logger.info("         %8.2f %8.2f   no face", span["start"], span["end"])
    for line in warnings(result):
        cli.logger.warning("%s: %s", layout.reference, line)


if __name__ == "__main__":
    cli.run(main)
