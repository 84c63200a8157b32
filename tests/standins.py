"""Weights made for tests: a detector that finds red squares, a network that compares light with loudness, noise.

All are of a small width, which the suite reads off the file.
"""

import torch

from detectors.s3fd.nets import S3FDNet
from SyncNetModel import S

RED = (1.0, -0.5, -0.5)  # of R, G, B: large for red alone
REDNESS = 150.0  # what of it counts
TAPS = 9  # of a 3x3 kernel
SURE = 10.0  # log odds per tap
MIN_LIGHT = 0.34  # brighter than red
MIN_LOUDNESS = 19.0  # log energy, MFCC 0: between the two of clips.write_sound
LIGHT_GAIN = 2.9  # makes 1 of what clips.flashing_face flashes


def silence(net):
    """Every parameter 0, and batch norm that changes nothing."""
    with torch.no_grad():
        for name, value in [*net.named_parameters(), *net.named_buffers()]:
            if value.is_floating_point():
                value.fill_(1.0 if name.endswith("running_var") else 0.0)
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                layer.weight.fill_(1.0)
    return net


def centre(weight, gain=1.0):
    """Pass channel 0 on: the middle tap of its kernel."""
    weight[(0, 0, *(size // 2 for size in weight.shape[2:]))] = gain


@torch.no_grad()
def red_square_detector():
    """State of an S3FD that finds red squares of some 50 pixels (at its scale), as boxes of 64 pixels."""
    net = silence(S3FDNet(width=1 / 64))
    for layer in net.vgg:
        if hasattr(layer, "weight"):
            centre(layer.weight)
    first = net.vgg[0]
    first.weight[0, :, 1, 1] = torch.tensor(RED)
    first.bias[0] = -REDNESS
    net.L2Norm5_3.weight.fill_(1.0)  # of one channel it makes 1 or 0
    net.conf[2].weight[1, 0] = SURE
    net.conf[2].bias[1] = -SURE * (TAPS - 0.5)  # all nine, or no face
    for index in (0, 1, 3, 4, 5):
        net.conf[index].bias[-1] = -SURE
    return net.state_dict()


@torch.no_grad()
def light_and_loudness():
    """State of a SyncNet of one feature: is the picture light, and is there sound."""
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
    # at most 1, however loud: 1 - (1 - x, at least 0)
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
def noise(net, seed):
    """State of a network with random parameters whose values stay of the order of 1 from layer to layer."""
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
