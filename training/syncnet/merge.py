"""Merging of several sync networks into one file: an ensemble that is an ordinary ``S``, as wide as all together.

    python -m training.syncnet.merge ~/syncnet/one/syncnet.pt ~/syncnet/two/syncnet.pt --output ~/syncnet/both.pt
    python -m training.syncnet.calibrate --data FACES --cache ~/syncnet/cache --weights ~/syncnet/both.pt \\
        --output data/starter/syncnet.pt

The squared distance between video and audio features is the mean over the networks. Only the constants of their
calibrations are dropped, so the merged network must be calibrated again. The features of a narrow network fill a small
part of the 1024 dimensions, so those of several fit side by side.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from SyncNetModel import EMBEDDING_SIZE, S
from training import common
from training.syncnet.half_lip import LEARNED, width_of

HEADS = ("netfcaud", "netfclip")
FIRST_LAYERS = ("netcnnaud.0.weight", "netcnnlip.0.weight")  # all networks have the same inputs
LAST = "3"


def side_by_side(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the state dict of the merged network.

    Args:
        states: float32 state dicts in the layout of S.

    Raises:
        TrainingError: The networks' features do not fit side by side.
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


def block_diagonal(kernels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join O x I x ... kernels so that each output sees the inputs of its own network only."""
    rows, columns = (sum(kernel.shape[axis] for kernel in kernels) for axis in (0, 1))
    whole = kernels[0].new_zeros(rows, columns, *kernels[0].shape[2:])
    row = column = 0
    for kernel in kernels:
        whole[row : row + kernel.shape[0], column : column + kernel.shape[1]] = kernel
        row, column = row + kernel.shape[0], column + kernel.shape[1]
    return whole


def last_layers(states: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the heads' last layers: each network's features in a basis of the space they span, stacked."""
    layers = [
        {head: (s[f"{head}.{LAST}.weight"][:LEARNED], s[f"{head}.{LAST}.bias"][:LEARNED]) for head in HEADS}
        for s in states
    ]
    bases = [basis(torch.cat([torch.cat([w, b[:, None]], 1) for w, b in heads.values()], 1)) for heads in layers]
    ends = torch.tensor([0, *(b.shape[1] for b in bases)]).cumsum(0).tolist()
    if ends[-1] > LEARNED:
        raise common.TrainingError(
            f"{len(states)} networks have features in {ends[-1]} dimensions, more than {LEARNED}; merge fewer networks"
        )
    merged = {}
    for head in HEADS:
        weight = block_diagonal([base.T @ heads[head][0] for base, heads in zip(bases, layers)])
        bias = torch.cat([base.T @ heads[head][1] for base, heads in zip(bases, layers)])
        rest = EMBEDDING_SIZE - len(bias)
        share = len(states) ** -0.5  # factor on lengths that averages their squares
        merged[f"{head}.{LAST}.weight"] = torch.cat([weight, weight.new_zeros(rest, weight.shape[1])]) * share
        merged[f"{head}.{LAST}.bias"] = torch.cat([bias, bias.new_zeros(rest)]) * share
    return merged


def basis(columns: torch.Tensor) -> torch.Tensor:
    """Return an orthonormal basis of the space that the columns of a matrix span."""
    return torch.linalg.qr(columns)[0]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Merge several sync networks into one file.")
    parser.add_argument("weights", nargs="+", help="weights files in the layout of S")
    parser.add_argument("--output", required=True, help="weights file to write, half precision")
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    nets = [(path, width_of(path)) for path in args.weights]
    widths = [width for _, width in nets]
    merged = side_by_side([common.load_weights(path, S(width=width)).state_dict() for path, width in nets])
    S(width=sum(widths)).load_state_dict(merged)
    common.save_atomically(args.output, common.half_precision(merged))
    print(f"width {' + '.join(f'{width:g}' for width in widths)} = {sum(widths):g}: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
