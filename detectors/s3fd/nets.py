"""Architecture of S3FD.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017, section 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

POOL = "pool"
POOL_CEIL = "pool, rounding sizes up"
# output channels of the trunk's convolutions, and its pooling layers
TRUNK = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL_CEIL, 512, 512, 512, POOL, 512, 512, 512, POOL)
SOURCE_INDICES = (15, 22, 29)  # modules of the trunk whose normalised outputs are the first three feature maps
SOURCE_NORMS = ((256, 10.0), (512, 8.0), (512, 5.0))  # channels and initial scale of these three
HEAD_CHANNELS = (256, 512, 512, 1024, 512, 256)
BACKGROUND_SCORES = 3  # of the finest map: max-out background label, section 3.3


def scaled(channels: int, width: float) -> int:
    """Return a layer's number of channels in a network ``width`` times as wide; at least 1."""
    return max(1, round(channels * width))


class L2Norm(nn.Module):
    """Normalisation of the channels at each position to unit length, followed by a learned scale per channel.

    Args:
        channels: number of channels.
        scale: initial scale.
    """

    EPSILON = 1e-10

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.pow(2).sum(dim=1, keepdim=True).sqrt() + self.EPSILON
        return x / norm * self.weight[None, :, None, None]


def vgg_layers(width: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for item in TRUNK:
        if isinstance(item, str):
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
    """S3FD's network.

    Args:
        width: factor for the number of channels of each layer; 1.0 is the published network.
    """

    def __init__(self, width: float = 1.0) -> None:
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

    def sources(self, x: Tensor) -> list[Tensor]:
        """Return the six feature maps of N x 3 x H x W images, the finest (H/4 x W/4) first."""
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

    def heads(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the result of ``read_head`` for each feature map of N x 3 x H x W images."""
        for source, loc, conf in zip(self.sources(x), self.loc, self.conf):
            yield read_head(loc(source), conf(source))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict offsets and face scores.

        Args:
            x: N x 3 x H x W, RGB, with the pixel means subtracted, float32.

        Returns:
            As ``merge_heads``.
        """
        return merge_heads(self.heads(x))


def read_head(locations: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Convert the outputs of a feature map's two heads.

    Args:
        locations: N x 4 x h x w.
        scores: N x classes x h x w; the last class is the face, all others are background.

    Returns:
        Offsets, N x (h * w) x 4, and log odds of face against background, N x h x w.
    """
    return locations.permute(0, 2, 3, 1).flatten(1, 2), scores[:, -1] - scores[:, :-1].amax(dim=1)


def merge_heads(heads: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate the predictions of all feature maps.

    Args:
        heads: result of ``read_head`` for each feature map.

    Returns:
        Offsets, N x P x 4, and face probabilities, N x P, for P priors in the order of ``box_utils.prior_boxes``: the
        finest map first, each map row by row.
    """
    offsets, odds = zip(*heads)
    return torch.cat(offsets, dim=1), torch.sigmoid(torch.cat([o.flatten(1) for o in odds], dim=1))
