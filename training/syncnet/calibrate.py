"""Calibration of a sync network: its confidence and min dist get the scale of the published network's.

    python -m training.syncnet.calibrate --data FACES --work ~/syncnet --output data/starter/syncnet.pt

Reads the averaged weights of WORK/checkpoint.pt, or a file in the layout of S (``--weights``). Two numbers are fitted:
a factor on all features and a constant added between the two streams, so that a distance d becomes
sqrt((scale d)^2 + floor^2). A third, the distance to the zeros beyond the ends of the audio, follows from them. Where
confidence and min dist cannot both be matched, confidence takes precedence, because thresholds are set on it. The fit
uses held-out clips, because clips seen in training score higher than others; the printed errors leave out each person
in turn.

Before the fit, the embedding is reduced to the directions in which both streams agree (``agreement.py``), measured on
the training clips.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize

from syncnet.errors import UsageError
from training import common
from training.syncnet.agreement import keep_agreement
from training.syncnet.alignment import aligned, read_alignment
from training.syncnet.clips import load_clips
from training.syncnet.evaluate import Squares, clip_squares, score
from training.syncnet.half_lip import HalfS, full_state, load_half
from training.syncnet.sync_loss import Distance

MIN_DIST_WEIGHT = 0.1  # weight of the error of min dist, relative to that of confidence
START = (0.0, 1.0)  # logarithms of scale (relative) and floor


def fit(squares: Sequence[Squares], targets: np.ndarray) -> dict[str, float]:
    """Fit the scale and floor that bring the scores closest to the published ones.

    The fit minimises the weighted sum of the absolute errors of confidence and min dist. The zeros beyond the ends of
    the audio get the distance (root mean square) of a wrong shift.

    Args:
        squares: Squared distances of the raw features, one entry per clip.
        targets: clips x 2, published confidence and min dist.

    Returns:
        ``scale``, ``floor`` and ``beyond``, the keyword arguments of ``evaluate.score``.
    """
    wrong = float(torch.cat([s.values[~s.beyond] for s in squares]).mean())
    outside = float(torch.cat([s.values[s.beyond] for s in squares]).mean())
    typical = wrong**0.5

    def error(logs):
        return (np.abs(scores(squares, **calibration(*np.exp(logs))) - targets).sum(0) * (1, MIN_DIST_WEIGHT)).sum()

    def calibration(factor, floor):
        scale = typical_scale * float(factor)
        beyond = max(0.0, scale**2 * (wrong - outside) + floor**2) ** 0.5
        return {"scale": scale, "floor": float(floor), "beyond": beyond}

    typical_scale = float(targets.sum(1).mean()) / typical
    best = minimize(error, START, method="Nelder-Mead", options={"maxiter": 200, "xatol": 1e-3, "fatol": 1e-2})
    return calibration(*np.exp(best.x))


def scores(squares: Sequence[Squares], **calibration: float) -> np.ndarray:
    """Return confidence and min dist of every clip, clips x 2."""
    found = [score(s, **calibration) for s in squares]
    return np.array([[f.confidence, f.min_dist] for f in found])


def left_out(squares: Sequence[Squares], targets: np.ndarray, persons: Sequence[str]) -> np.ndarray:
    """Score every clip with the calibration fitted to the clips of all other persons.

    Args:
        squares: See ``fit``.
        targets: See ``fit``.
        persons: Person of every clip.

    Returns:
        clips x 2, confidence and min dist.
    """
    found = np.zeros_like(targets)
    for person in sorted(set(persons)):
        mine = [p == person for p in persons]
        others = fit([s for s, m in zip(squares, mine) if not m], targets[~np.array(mine)])
        found[np.array(mine)] = scores([s for s, m in zip(squares, mine) if m], **others)
    return found


def describe(found: np.ndarray, targets: np.ndarray) -> dict[str, dict[str, float]]:
    """Return means, mean absolute error and correlation of confidence and of min dist (both arrays clips x 2)."""
    figures = {}
    for column, name in enumerate(("confidence", "min_dist")):
        difference = found[:, column] - targets[:, column]
        figures[name] = {
            "published_mean": float(targets[:, column].mean()),
            "mean": float(found[:, column].mean()),
            "mean_absolute_error": float(np.abs(difference).mean()),
            "correlation": float(np.corrcoef(found[:, column], targets[:, column])[0, 1]),
        }
    return figures


def load_averaged(path: str | Path) -> tuple[HalfS, Distance]:
    """Load the averaged network and its distance from a trainer's checkpoint, in evaluation mode."""
    state = common.load_checkpoint(path)
    net, distance = HalfS(state["width"]), Distance()
    torch.nn.ModuleList([net, distance]).load_state_dict(state["average"])
    return net.eval(), distance.eval()


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Calibrate and save the starter's sync network.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--work", help="folder of the training run")
    source.add_argument("--weights", help="weights in the layout of S; needs --cache")
    parser.add_argument("--cache", help="folder with the decoded clips (default: WORK/cache)")
    parser.add_argument("--alignment", help="file with clip offsets, written by training.syncnet.alignment")
    parser.add_argument("--output", required=True, help="weights file to write, half precision, in the layout of S")
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    if args.weights and not args.cache:
        raise UsageError("--weights: --cache is missing; give the folder with the decoded clips")
    cache = args.cache or Path(args.work) / "cache"
    net, _ = load_half(args.weights) if args.weights else load_averaged(Path(args.work) / "checkpoint.pt")
    trained, held_out = common.split_by_person(common.read_index(args.data))
    rows = [row for row in held_out if row["published_confidence"]]
    if len({row["person"] for row in rows}) < 2:
        raise common.TrainingError(f"{args.data}: needs held-out clips of two or more persons with published scores")
    in_step = load_clips(args.data, trained, cache)
    if args.alignment:
        in_step = aligned(in_step, read_alignment(args.alignment))
    correlations = keep_agreement(net, [clip for clip in in_step if clip.in_place])
    clips = load_clips(args.data, rows, cache)
    squares = [clip_squares(net, clip)[0] for clip in clips]
    targets = np.array([[clip.confidence, clip.min_dist] for clip in clips])
    calibration = fit(squares, targets)
    unseen = left_out(squares, targets, [clip.person for clip in clips])
    common.save_atomically(args.output, common.half_precision(full_state(net, **calibration)))
    figures = {
        "canonical_correlations": correlations.tolist(),
        **calibration,
        "clips": len(clips),
        "fit": describe(scores(squares, **calibration), targets),
        "fit_person_left_out": describe(unseen, targets),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    sys.exit(main())
