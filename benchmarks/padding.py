"""The starter weights at the published networks' size: the same function at the published cost.

Every layer gets channels that are zero throughout. The padded networks find the same faces and give the same distances,
so that whole programs can be timed as with the published weights, where these are not at hand.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from detectors.s3fd.nets import S3FDNet
from syncnet.models.weights import ROOT, S3FD, SYNCNET, load_s3fd, load_syncnet
from SyncNetModel import S

VARIANCE = "running_var"


@torch.no_grad()
def padded(narrow: nn.Module, wide: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a network, padded with zeros to those of a wider one of the same layers."""
    states = narrow.state_dict(), wide.state_dict()
    found = {}
    for name, value in states[0].items():
        full = states[1][name]
        # a batch norm of variance 1 leaves the new channels at 0
        room = torch.full_like(full, 1.0 if name.endswith(VARIANCE) else 0.0)
        room[tuple(slice(size) for size in value.shape)] = value
        found[name] = room
    return found


def write_padded(folder: Path) -> tuple[Path, Path]:
    """Write the starter weights, padded to the published size, into a folder; return S3FD's and SyncNet's file."""
    s3fd, syncnet = folder / "s3fd-padded.pt", folder / "syncnet-padded.pt"
    torch.save(padded(load_s3fd(ROOT / S3FD.starter)[0], S3FDNet()), s3fd)
    torch.save(padded(load_syncnet(ROOT / SYNCNET.starter)[0], S()), syncnet)
    return s3fd, syncnet
