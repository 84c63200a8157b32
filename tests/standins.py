"""Weights for tests: a detector of red squares, a network that compares brightness with loudness, and random weights.

All have a small width, which the suite reads from the file.
"""

import torch
from torch import nn

from detectors.s3fd.nets import S3FDNet
from SyncNetModel import S

RED = (1.0, -0.5, -0.5)  # factors of R, G, B: large for red only
REDNESS = 150.0  # threshold
TAPS = 9  # taps of a 3x3 kernel
SURE = 10.0  # log odds per tap
MIN_LIGHT = 0.34  # brighter than red
MIN_LOUDNESS = 19.0  # log energy (MFCC 0), between the two levels of clips.write_audio
LIGHT_GAIN = 2.9  # maps the flashes of clips.flashing_face to 1


def silence(net: nn.Module) -> nn.Module:
    """Set every parameter to 0 and every batch norm to the identity, and return the network."""
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.is_floating_point():
                value.fill_(1.0 if name.endswith("running_var") else 0.0)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                layer.weight.fill_(1.0)
    return net


def centre(weight: torch.Tensor, gain: float = 1.0) -> None:
    """Set the middle tap of channel 0's kernel, so that the layer passes channel 0 on."""
    weight[(0, 0, *(size // 2 for size in weight.shape[2:]))] = gain


@torch.no_grad()
def red_square_detector() -> dict[str, torch.Tensor]:
    """Return the state of an S3FD that finds red squares of about 50 pixels (at its scale), as boxes of 64 pixels."""
    net = silence(S3FDNet(width=1 / 64))
    for layer in net.vgg:
        if hasattr(layer, "weight"):
            centre(layer.weight)
    first = net.vgg[0]
    first.weight[0, :, 1, 1] = torch.tensor(RED)
    first.bias[0] = -REDNESS
    net.L2Norm5_3.weight.fill_(1.0)  # with one channel, its output is 1 or 0
    net.conf[2].weight[1, 0] = SURE
    net.conf[2].bias[1] = -SURE * (TAPS - 0.5)  # a face needs all nine taps
    for index in (0, 1, 3, 4, 5):
        net.conf[index].bias[-1] = -SURE
    return net.state_dict()


@torch.no_grad()
def light_and_loudness() -> dict[str, torch.Tensor]:
    """Return the state of a SyncNet with one feature: whether frames are bright, and whether audio is loud."""
    net = silence(S(1, width=1 / 96))
    lip, aud = net.netcnnlip, net.netcnnaud
    lip[0].weight[0] = LIGHT_GAIN / (lip[0].weight[0].numel() * 255)
    lip[0].bias[0] = -LIGHT_GAIN * MIN_LIGHT
    for index in (4, 8, 11, 14):
        centre(lip[index].weight)
    lip[18].weight[0, 0] = 1 / 36
    for index in (0, 4, 8, 11, 14):
        centre(aud[index].weight)
    aud[0].bias[0] = -MIN_LOUDNESS
    # clip to 1: 1 - max(0, 1 - x)
    aud[8].weight[0, 0] *= -1
    aud[8].bias[0] = 1.0
    aud[11].weight[0, 0] *= -1
    aud[11].bias[0] = 1.0
    aud[18].weight[0, 0, 0] = 1 / 4
    for head in (net.netfcaud, net.netfclip):
        head[0].weight[0, 0] = 1.0
        head[3].weight[0, 0] = 1.0
    return net.state_dict()


@torch.no_grad()
def noise(net: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Return a random state of a network whose values stay of the order of 1 from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    norms = {f"{name}.weight" for name, layer in net.named_modules() if hasattr(layer, "running_var")}
    for name, value in sorted([*net.named_parameters(), *net.named_buffers()]):
        if not value.is_floating_point():
            continue
        value.normal_(generator=generator)
        if value.ndim > 1:
            value *= (2 / value[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            value.abs_().add_(0.5)
        else:
            value.mul_(0.1).add_(1.0 if name in norms else 0.0)
    return net.state_dict()
