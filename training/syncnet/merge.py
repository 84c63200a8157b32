"""Several sync networks side by side in one file: an ensemble that is an ordinary ``S``, as wide as all together.

    python -m training.syncnet.merge ~/syncnet/one/syncnet.pt ~/syncnet/two/syncnet.pt --output ~/syncnet/both.pt
    python -m training.syncnet.calibrate --data FACES --cache ~/syncnet/cache --weights ~/syncnet/both.pt \\
        --output data/starter/syncnet.pt

The squared distance between picture and sound is the mean of what the networks find, but for their calibration's
constants, which are left out: calibrate anew. Nothing else is lost on the way: the features of a narrow network fill
only a small part of the 1024 dimensions, so several fit in beside each other.
"""

import argparse
import sys

import torch

from SyncNetModel import EMBEDDING_SIZE, S
from training import common
from training.syncnet.half_lip import LEARNED, width_of

HEADS = ("netfcaud", "netfclip")
FIRST_LAYERS = ("netcnnaud.0.weight", "netcnnlip.0.weight")  # all networks see the same picture and hear the same sound
LAST = "3"


def side_by_side(states):
    """State dict of the network that holds all of ``states`` (S's layout, float32).

    Raises:
        TrainingError: their features do not fit beside each other.
    """
    merged = {}
    for name, first in states[0].items():
        if not name.startswith(tuple(f"{head}.{LAST}." for head in HEADS)):
            parts = [state[name] for state in states]
            if first.ndim < 2:
                merged[name] = torch.cat(parts) if first.ndim else first
            else:
                merged[name] = torch.cat(parts) if name in FIRST_LAYERS else block_diagonal(parts)
    return merged | last_layers(states)


def block_diagonal(kernels):
    """O x I x ... kernels -> one whose outputs each see their own network's inputs only."""
    rows, columns = (sum(kernel.shape[axis] for kernel in kernels) for axis in (0, 1))
    whole = kernels[0].new_zeros(rows, columns, *kernels[0].shape[2:])
    row = column = 0
    for kernel in kernels:
        whole[row : row + kernel.shape[0], column : column + kernel.shape[1]] = kernel
        row, column = row + kernel.shape[0], column + kernel.shape[1]
    return whole


def last_layers(states):
    """The heads' last layers: every network's features in a basis of the space that they fill, one below the other."""
    layers = [
        {head: (s[f"{head}.{LAST}.weight"][:LEARNED], s[f"{head}.{LAST}.bias"][:LEARNED]) for head in HEADS}
        for s in states
    ]
    bases = [basis(torch.cat([torch.cat([w, b[:, None]], 1) for w, b in heads.values()], 1)) for heads in layers]
    ends = torch.tensor([0, *(b.shape[1] for b in bases)]).cumsum(0).tolist()
    if ends[-1] > LEARNED:
        raise common.TrainingError(
            f"{len(states)} networks have features in {ends[-1]} dimensions, more than {LEARNED}"
        )
    merged = {}
    for head in HEADS:
        weight = block_diagonal([base.T @ heads[head][0] for base, heads in zip(bases, layers)])
        bias = torch.cat([base.T @ heads[head][1] for base, heads in zip(bases, layers)])
        rest = EMBEDDING_SIZE - len(bias)
        share = len(states) ** -0.5  # of a length, so that squares are averaged
        merged[f"{head}.{LAST}.weight"] = torch.cat([weight, weight.new_zeros(rest, weight.shape[1])]) * share
        merged[f"{head}.{LAST}.bias"] = torch.cat([bias, bias.new_zeros(rest)]) * share
    return merged


def basis(columns):
    """Orthonormal basis of the space that the columns of a matrix span."""
    return torch.linalg.qr(columns)[0]


def get_parser():
    parser = argparse.ArgumentParser(description="Put several sync networks into one file.")
    parser.add_argument("weights", nargs="+", help="files in S's layout")
    parser.add_argument("--output", required=True, help="weights to write, half precision")
    return parser


@common.command
def main(args):
    nets = [(path, width_of(path)) for path in args.weights]
    widths = [width for _, width in nets]
    merged = side_by_side([common.load_weights(path, S(width=width)).state_dict() for path, width in nets])
    S(width=sum(widths)).load_state_dict(merged)
    common.save_aside(args.output, common.half_precision(merged))
    print(f"width {' + '.join(f'{width:g}' for width in widths)} = {sum(widths):g}: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
