"""Face detectors.

The pipeline accepts any implementation of ``syncnet.faces.detect.Detector``; the scripts use ``S3FD``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detectors.s3fd import Detector
from syncnet.defaults import FLOAT32

if TYPE_CHECKING:
    import os

    import torch

__all__ = ["S3FD"]


class S3FD(Detector):
    """The S3FD face detector, with weights, on a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or a torch device.
        weights: path of the weights; None for the published file if it exists, else the starter.
        precision: one of ``defaults.PRECISIONS``.

    Raises:
        UsageError: the machine has no such device, or the device no such precision.
        WeightsError: the weights are missing or damaged.
    """

    def __init__(
        self,
        device: str | torch.device = "auto",
        weights: str | os.PathLike[str] | None = None,
        *,
        precision: str = FLOAT32,
    ) -> None:
        # imported here, because these modules import the plain network from this package
        from syncnet.models.devices import check_precision, select_device
        from syncnet.models.fast import FastS3FD
        from syncnet.models.weights import load_s3fd

        device = select_device(str(device))
        self.precision = check_precision(precision, device)
        net, found = load_s3fd(weights)
        super().__init__(FastS3FD(net, device, precision=precision), device, found)
