"""S3FD: the architecture and nothing else.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017, section 3.1.
"""

import torch
import torch.nn.functional as F
from torch import nn

POOL = "pool"
POOL_CEIL = "pool, rounding sizes up"
TRUNK = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL_CEIL, 512, 512, 512, POOL, 512, 512, 512, POOL)
SOURCE_INDICES = (15, 22, 29)  # of the trunk's modules whose outputs, normalised, are the first three feature maps
SOURCE_NORMS = ((256, 10.0), (512, 8.0), (512, 5.0))  # channels and initial scale of those three
HEAD_CHANNELS = (256, 512, 512, 1024, 512, 256)
BACKGROUND_SCORES = 3  # of the finest map: its background score is the largest of three (section 3.3)


def scaled(channels, width):
    """Number of channels of a layer in a network made ``width`` times as wide (at least one)."""
    return max(1, round(channels * width))


class L2Norm(nn.Module):
    """Scale each position's channels to unit length, then by a learned weight per channel."""

    EPSILON = 1e-10

    def __init__(self, channels, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x):
        norm = x.pow(2).sum(dim=1, keepdim=True).sqrt() + self.EPSILON
        return x / norm * self.weight[None, :, None, None]


def vgg_layers(width):
    layers, channels = [], 3
    for item in TRUNK:
        if item in (POOL, POOL_CEIL):
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=item == POOL_CEIL))
        else:
            outputs = scaled(item, width)
            layers += [nn.Conv2d(channels, outputs, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = outputs
    top = scaled(1024, width)
    layers += [nn.Conv2d(channels, top, kernel_size=3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(top, top, kernel_size=1), nn.ReLU(inplace=True)]
    return layers


class S3FDNet(nn.Module):
    """The detector's network.

    Args:
        width: factor on every layer's channels; 1.0 is the published network.
    """

    def __init__(self, width=1.0):
        super().__init__()
        self.vgg = nn.ModuleList(vgg_layers(width))
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = (
            L2Norm(scaled(channels, width), scale) for channels, scale in SOURCE_NORMS
        )
        c1024, c512, c256, c128 = (scaled(c, width) for c in (1024, 512, 256, 128))
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(c1024, c256, kernel_size=1),
                nn.Conv2d(c256, c512, kernel_size=3, stride=2, padding=1),
                nn.Conv2d(c512, c128, kernel_size=1),
                nn.Conv2d(c128, c256, kernel_size=3, stride=2, padding=1),
            ]
        )
        channels = [scaled(c, width) for c in HEAD_CHANNELS]
        scores = [BACKGROUND_SCORES + 1] + [2] * (len(channels) - 1)
        self.loc = nn.ModuleList(nn.Conv2d(c, 4, kernel_size=3, padding=1) for c in channels)
        self.conf = nn.ModuleList(nn.Conv2d(c, s, kernel_size=3, padding=1) for c, s in zip(channels, scores))

    def sources(self, x):
        """N x 3 x H x W -> the six feature maps, finest (H/4 x W/4) first."""
        norms = iter((self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3))
        maps = []
        for index, layer in enumerate(self.vgg):
            x = layer(x)
            if index in SOURCE_INDICES:
                maps.append(next(norms)(x))
        maps.append(x)
        for index, layer in enumerate(self.extras):
            x = F.relu(layer(x))
            if index % 2 == 1:
                maps.append(x)
        return maps

    def heads(self, x):
        """N x 3 x H x W -> per feature map what ``read_head`` returns."""
        for source, loc, conf in zip(self.sources(x), self.loc, self.conf):
            yield read_head(loc(source), conf(source))

    def forward(self, x):
        """N x 3 x H x W RGB planes less their means -> what ``merge_heads`` returns."""
        return merge_heads(self.heads(x))


def read_head(locations, scores):
    """Outputs of a feature map's two heads -> offsets N x priors x 4 and log odds of face to background N x h x w."""
    return locations.permute(0, 2, 3, 1).flatten(1, 2), scores[:, -1] - scores[:, :-1].amax(dim=1)


def merge_heads(heads):
    """Offsets and log odds of all feature maps -> offsets N x P x 4 and face scores N x P (softmaxed).

    P priors: those of the finest map first, each map row by row (``box_utils.prior_boxes``).
    """
    offsets, odds = zip(*heads)
    return torch.cat(offsets, dim=1), torch.sigmoid(torch.cat([o.flatten(1) for o in odds], dim=1))
