"""Time the scripts as whole processes, including start-up, against the plain formulation, in alternation.

    python -m benchmarks.processes
    python -m benchmarks.processes --videofile video.mp4 --min_track 50 --rounds 5

Both use networks of published size with random weights; the detector's weights find the same few large faces in every
frame. The clip of demo_syncnet is the first face track. Offsets and confidences must agree. Prints median seconds and
ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.filter import Scores, check_equal
from benchmarks.plain import REFERENCE
from detectors.s3fd.nets import S3FDNet
from syncnet.results.layout import Layout
from SyncNetModel import S

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
SURE = 10.0  # log odds of a face
TOLERANCE = 2e-3  # of confidences, as in tests/steps/test_parity.py


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videofile", default=str(ROOT / "data/sample.mp4"))
    parser.add_argument("--min_track", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def save_weights(s3fd: Path, syncnet: Path) -> None:
    """Write both networks; the detector finds a face at every place of its coarsest map, whatever the frame."""
    torch.manual_seed(SEED)
    detector, net = S3FDNet(), S()
    with torch.no_grad():
        for head in detector.conf:
            head.weight.zero_()
            head.bias.copy_(torch.tensor([SURE] + [0.0] * (len(head.bias) - 1)))
        detector.conf[-1].bias.copy_(torch.tensor([0.0, SURE]))
        detector.loc[-1].weight.zero_()
    torch.save(detector.state_dict(), s3fd)
    torch.save(net.state_dict(), syncnet)


def call(*command: object) -> tuple[bytes, float]:
    """Run a Python program; return its output and its seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return done.stdout, time.perf_counter() - started


def scores_of(report: Path) -> Scores:
    """Read the offset and confidence of every track from a scores.json."""
    return [(track["offset"], track["confidence"]) for track in json.loads(report.read_text())["tracks"]]


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        s3fd, syncnet, demo = folder / "s3fd.pt", folder / "syncnet.pt", folder / "demo.json"
        save_weights(s3fd, syncnet)
        plain, ours = Layout(folder / "plain", REFERENCE), Layout(folder / "ours", REFERENCE)
        clip = plain.folder("pycrop") / "00000.avi"
        where = ("--videofile", args.videofile, "--data_dir", ours.data_dir, "--reference", REFERENCE)
        module = ("-m", "benchmarks.plain")
        model = ("--initial_model", syncnet)
        faces = ("--s3fd_weights", s3fd, "--min_track", args.min_track)
        quiet = ("--quiet", "--device", "cpu")
        steps = {
            "run_pipeline": (
                (*module, "pipeline", "--videofile", args.videofile, "--data_dir", plain.data_dir, *faces),
                ("run_pipeline.py", *where, *faces, *quiet),
            ),
            "run_syncnet": (
                (*module, "syncnet", "--data_dir", plain.data_dir, *model),
                ("run_syncnet.py", *where, *model, *quiet),
            ),
            "demo_syncnet": (
                (*module, "demo", "--videofile", clip, "--data_dir", folder / "demo", *model),
                ("demo_syncnet.py", "--videofile", clip, "--tmp_dir", folder, *model, *quiet, "--json", demo),
            ),
        }
        for _ in range(args.rounds):
            for name, (theirs, mine) in steps.items():
                printed, plain_seconds = call(*theirs)
                our_seconds = call(*mine)[1]
                seconds.setdefault(name, []).append((plain_seconds, our_seconds))
                if printed:
                    expected = json.loads(printed)
                    if not expected:
                        raise SystemExit(
                            f"{name}: no face track in {args.videofile}; give a video of faces or a smaller --min_track"
                        )
                    found = scores_of(demo if name == "demo_syncnet" else ours.scores)
                    check_equal(name, [tuple(track) for track in expected], found, tolerance=TOLERANCE)
    for name, taken in seconds.items():
        plain_seconds, our_seconds = map(statistics.median, zip(*taken))
        ratio = plain_seconds / our_seconds
        print(f"{name:13} plain {plain_seconds:6.1f} s  ours {our_seconds:6.1f} s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
