"""The scripts as whole processes, start-up and all, against the plain formulation's, turn by turn.

    python -m benchmarks.processes
    python -m benchmarks.processes --videofile video.mp4 --min_track 50 --rounds 5

Both have networks of published size with random weights; the detector's are such that it finds the same few large faces
in every picture. The demo's clip is the first face track. Both ways' offsets and confidences must agree. Prints median
seconds and ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.plain import REFERENCE
from detectors.s3fd.nets import S3FDNet
from syncnet.results.layout import Layout
from SyncNetModel import S

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
SURE = 10.0  # log odds of a face
TOLERANCE = 2e-3  # of confidences, as tests/steps/test_parity.py has it


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videofile", default=str(ROOT / "data/sample.mp4"))
    parser.add_argument("--min_track", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def save_weights(s3fd, syncnet):
    """Write both networks; the detector takes the places of its coarsest map for faces, whatever the picture."""
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


def call(*command):
    """Run a Python program: what it printed, and its seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return done.stdout, time.perf_counter() - started


def scores_of(report):
    return [(track["offset"], track["confidence"]) for track in json.loads(report.read_text())["tracks"]]


def check_equal(name, plain, ours):
    """Both ways' scores are the same, but for rounding."""
    apart = [abs(p[1] - o[1]) for p, o in zip(plain, ours)]
    if [p[0] for p in plain] != [o[0] for o in ours] or max(apart, default=1) > TOLERANCE:
        raise SystemExit(f"{name}: plain {plain}, ours {ours}")


def main(argv=None):
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
                    check_equal(name, json.loads(printed), scores_of(demo if name == "demo_syncnet" else ours.scores))
    for name, taken in seconds.items():
        plain_seconds, our_seconds = map(statistics.median, zip(*taken))
        ratio = plain_seconds / our_seconds
        print(f"{name:13} plain {plain_seconds:6.1f} s  ours {our_seconds:6.1f} s   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
