"""Scale of a sync network's distances, fitted so that confidence and min dist read like the published network's.

    python -m training.syncnet.calibrate --data FACES --work ~/syncnet --output data/starter/syncnet.pt

Takes the averaged weights in WORK/checkpoint.pt, or a file in S's layout (``--weights``). Two numbers are fitted: a
factor on all features and a constant between the two streams (distance d becomes sqrt((scale d)^2 + floor^2)); a third,
how far away the zeros beyond the ends of the sound are, follows from them. Where both figures cannot agree, confidence
goes first: thresholds are set on it. They are fitted on held-out clips, because trained clips score higher than unseen
ones ever do; the printed fit leaves each person out in turn.

Before that only what the two streams agree in is kept (``agreement.py``), by the clips that were trained on.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize

from syncnet.errors import UsageError
from training import common
from training.syncnet.agreement import keep_agreement
from training.syncnet.alignment import aligned, read_alignment
from training.syncnet.clips import load_clips
from training.syncnet.evaluate import clip_squares, score
from training.syncnet.half_lip import HalfS, full_state, load_half
from training.syncnet.sync_loss import Distance

MIN_DIST_WEIGHT = 0.1  # of its error, beside confidence's
START = (0.0, 1.0)  # of log scale and log floor


def fit(squares, targets):
    """Scale and floor that bring scores closest to the published ones.

    Args:
        squares: per clip ``Squares`` of the raw features.
        targets: clips x 2, published confidence and min dist.

    Returns:
        dict of scale, floor and beyond: the weighted sum of absolute errors of both figures is smallest, and what lies
        beyond the ends of the sound is as far away as a wrong time (root mean square).
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


def scores(squares, **calibration):
    """Clips x 2: confidence and min dist."""
    found = [score(s, **calibration) for s in squares]
    return np.array([[f.confidence, f.min_dist] for f in found])


def left_out(squares, targets, persons):
    """Scores of every clip under the fit to all other persons' clips, clips x 2."""
    found = np.zeros_like(targets)
    for person in sorted(set(persons)):
        mine = [p == person for p in persons]
        others = fit([s for s, m in zip(squares, mine) if not m], targets[~np.array(mine)])
        found[np.array(mine)] = scores([s for s, m in zip(squares, mine) if m], **others)
    return found


def describe(found, targets):
    """Mean error, bias and correlation of confidence and min dist."""
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


def load_averaged(path):
    """(network, distance) of a trainer's checkpoint, averaged weights, evaluation mode."""
    state = common.load_checkpoint(path)
    net, distance = HalfS(state["width"]), Distance()
    torch.nn.ModuleList([net, distance]).load_state_dict(state["average"])
    return net.eval(), distance.eval()


def get_parser():
    parser = argparse.ArgumentParser(description="Calibrate and save the starter's sync network.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--work", help="folder of the training run")
    source.add_argument("--weights", help="weights in S's layout; give --cache with them")
    parser.add_argument("--cache", help="folder of decoded clips (default: WORK/cache)")
    parser.add_argument("--alignment", help="offsets of the clips, from training.syncnet.alignment")
    parser.add_argument("--output", required=True, help="weights to write, half precision, in S's layout")
    return parser


@common.command
def main(args):
    if args.weights and not args.cache:
        raise UsageError("--weights: needs --cache, too")
    cache = args.cache or Path(args.work) / "cache"
    net, _ = load_half(args.weights) if args.weights else load_averaged(Path(args.work) / "checkpoint.pt")
    trained, held_out = common.split_by_person(common.read_index(args.data))
    rows = [row for row in held_out if row["published_confidence"]]
    if len({row["person"] for row in rows}) < 2:
        raise common.TrainingError(f"{args.data}: no held-out clips with published scores to calibrate on")
    in_step = load_clips(args.data, trained, cache)
    if args.alignment:
        in_step = aligned(in_step, read_alignment(args.alignment))
    correlations = keep_agreement(net, [clip for clip in in_step if clip.in_place])
    clips = load_clips(args.data, rows, cache)
    squares = [clip_squares(net, clip)[0] for clip in clips]
    targets = np.array([[clip.confidence, clip.min_dist] for clip in clips])
    calibration = fit(squares, targets)
    unseen = left_out(squares, targets, [clip.person for clip in clips])
    common.save_aside(args.output, common.half_precision(full_state(net, **calibration)))
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
