"""Score a 224x224 clip of a face with audio: AV offset, min dist and confidence.

python demo_syncnet.py --videofile data/example.avi --tmp_dir /path/to/temp/directory
"""

import argparse

from syncnet import cli


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__)
    cli.add_scoring(parser)
    parser.add_argument("--videofile", default="data/example.avi", help="the clip")
    parser.add_argument("--tmp_dir", default="data/work/pytmp", help="folder for temporary frames and audio")
    parser.add_argument("--reference", default="demo", help="name of the folder below TMP_DIR")
    parser.add_argument("--face_crops", action="store_true", help="the clip may have any size: resize it to 224x224")
    parser.add_argument("--json", default="", help="also write the result and its recipe to this JSON file")
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    cli.check_libraries()
    from pathlib import Path

    from syncnet.results.layout import check_input, clear_result, make_folder, scratch_folder
    from syncnet.results.step_files import save_json
    from syncnet.steps.single import find_turns, single_report
    from SyncNetInstance import SyncNetInstance

    folder = scratch_folder(args.tmp_dir, args.reference)
    net = SyncNetInstance(args.device)
    net.loadParameters(args.initial_model)
    check_input(args.videofile)
    make_folder(folder, flag="--tmp_dir")
    if args.json:
        clear_result(Path(args.json), args.videofile)
    settings = {"batch_size": args.batch_size, "vshift": args.vshift, "face_crops": args.face_crops}
    score = net.score(args.videofile, folder=folder, **settings)
    turns = find_turns(score, folder=folder)
    report = single_report(score, net, videofile=args.videofile, turns=turns, **settings)
    for reason in report["tracks"][0]["reasons"]:
        cli.logger.warning("%s: %s", args.videofile, reason["text"])
    if args.json:
        save_json(report, Path(args.json))


if __name__ == "__main__":
    cli.run(main)
