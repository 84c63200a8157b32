"""Draw face tracks, their confidence and the speaking face into the video.

python run_visualise.py --videofile video.mp4 --reference name --data_dir output
python run_visualise.py --videofile video.mp4 --reference name --data_dir output --speakers
"""

import argparse

from syncnet import cli


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__)
    cli.add_layout(parser)
    cli.add_frame_rate(parser)
    cli.add_speaker_threshold(parser)
    parser.add_argument(
        "--speakers",
        action="store_true",
        help="draw who speaks when by scores.json: the speaking face's box thick and named, and all turns along the "
        "bottom",
    )
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    layout = cli.required_reference(args)
    cli.check_libraries()
    from syncnet import progress
    from syncnet.steps import visualise

    def on_frame(index: int) -> None:
        if args.verbose:
            print(f"Frame {index}")

    output = visualise.run(
        layout,
        frame_rate=args.frame_rate,
        speaker_threshold=args.speaker_threshold,
        speakers=args.speakers,
        progress=progress.bar(quiet=args.quiet),
        on_frame=on_frame,
    )
    cli.logger.info("%s", output)


if __name__ == "__main__":
    cli.run(main)
