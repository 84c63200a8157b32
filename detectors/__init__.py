"""Face detectors.

The pipeline takes any object that fits ``syncnet.faces.detect.Detector``; the scripts hand it this one.
"""

from detectors.s3fd import Detector

__all__ = ["S3FD"]


class S3FD(Detector):
    """S3FD with the weights at hand, on a device.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or a torch device.
        weights: path of the weights; None for the published file, else the starter.

    Raises:
        WeightsError: there are none, or they are damaged.
    """

    def __init__(self, device="auto", weights=None):
        # when it is made, not when this package is loaded: they load the plain network from it
        from syncnet.models.devices import select_device
        from syncnet.models.fast import FastS3FD
        from syncnet.models.weights import load_s3fd

        device = select_device(str(device))
        net, found = load_s3fd(weights)
        super().__init__(FastS3FD(net, device), device, found)
