"""Architecture of SyncNet: two networks that embed 0.2 s of audio and five mouth frames in a common space.

``syncnet.models.weights`` loads weights, ``syncnet.models.fast`` optimises inference, ``SyncNetInstance`` computes
scores.

Chung & Zisserman, "Out of time: automated lip sync in the wild", ACCV workshops 2016, section 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from syncnet.constants import WINDOW_FRAMES

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING_SIZE = 1024
AUDIO_WINDOW = (1, 13, 20)  # channels, MFCC coefficients, MFCC steps (10 ms each)
LIP_WINDOW = (3, WINDOW_FRAMES, 224, 224)  # BGR channels, frames at 25 fps, height, width


def scaled(channels: int, width: float) -> int:
    """Return a layer's number of channels in a network ``width`` times as wide; at least 1."""
    return max(1, round(channels * width))


def conv2d(inputs: int, outputs: int, **kwargs: Any) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, **kwargs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def conv3d(inputs: int, outputs: int, **kwargs: Any) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, **kwargs), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def head(features: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, outputs)
    )


class S(nn.Module):
    """The two-stream network.

    Args:
        num_layers_in_fc_layers: size of the embedding; the published code's name of this parameter.
        width: factor for the number of channels of each hidden layer; 1.0 is the published network.
    """

    def __init__(self, num_layers_in_fc_layers: int = EMBEDDING_SIZE, width: float = 1.0) -> None:
        super().__init__()
        c64, c96, c192, c256, c384, c512 = (scaled(c, width) for c in (64, 96, 192, 256, 384, 512))
        self.netcnnaud = nn.Sequential(
            *conv2d(1, c64, kernel_size=3, padding=1),
            nn.MaxPool2d(kernel_size=1, stride=1),
            *conv2d(c64, c192, kernel_size=3, padding=1),
            nn.MaxPool2d(kernel_size=3, stride=(1, 2)),
            *conv2d(c192, c384, kernel_size=3, padding=1),
            *conv2d(c384, c256, kernel_size=3, padding=1),
            *conv2d(c256, c256, kernel_size=3, padding=1),
            nn.MaxPool2d(kernel_size=3, stride=2),
            *conv2d(c256, c512, kernel_size=(5, 4)),
        )
        self.netcnnlip = nn.Sequential(
            *conv3d(3, c96, kernel_size=(5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2)),
            *conv3d(c96, c256, kernel_size=(1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *conv3d(c256, c256, kernel_size=(1, 3, 3), padding=(0, 1, 1)),
            *conv3d(c256, c256, kernel_size=(1, 3, 3), padding=(0, 1, 1)),
            *conv3d(c256, c256, kernel_size=(1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2)),
            *conv3d(c256, c512, kernel_size=(1, 6, 6)),
        )
        self.netfcaud = head(c512, num_layers_in_fc_layers)
        self.netfclip = head(c512, num_layers_in_fc_layers)

    def forward_aud(self, x: Tensor) -> Tensor:
        """Compute audio features.

        Args:
            x: N x 1 x 13 x 20 unscaled MFCCs, float32.

        Returns:
            N x 1024.
        """
        return self.netfcaud(self.netcnnaud(x).flatten(1))

    def forward_lip(self, x: Tensor) -> Tensor:
        """Compute video features.

        Args:
            x: N x 3 x 5 x 224 x 224 BGR pixels from 0 to 255, float32.

        Returns:
            N x 1024.
        """
        return self.netfclip(self.forward_lipfeat(x))

    def forward_lipfeat(self, x: Tensor) -> Tensor:
        """Compute lip features, the input of ``netfclip``.

        Args:
            x: as in ``forward_lip``.

        Returns:
            N x 512.
        """
        return self.netcnnlip(x).flatten(1)
