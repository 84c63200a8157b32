"""The networks optimised for inference. Results equal those of the plain modules to about 1e-5.

Optimisations:

- Batch norm is folded into the convolutions.
- Pooling precedes ReLU: the two commute, and ReLU then processes a quarter of the values.
- Tensors are channels-last.
- The lip network's 3-D convolutions run as 2-D ones: all temporal kernels except the first have size 1, and the first
  treats five frames of three channels as an image of 15 channels.
- In float32 on CPUs, the most expensive convolutions use algorithms with fewer multiplications (``winograd``).

In bfloat16, convolutions are the plain ones, which round weights and activations to 8 bits; pixels are exact. Features
differ from float32 by less than 1 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from detectors.s3fd.nets import SOURCE_INDICES, merge_heads, read_head
from syncnet.constants import WINDOW_FRAMES
from syncnet.defaults import FLOAT32
from syncnet.models.devices import DTYPES, full_float32
from syncnet.models.winograd import TIME_OUTPUTS, PlaneConvolution, StridedPlaneConvolution, TimeConvolution

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from torch import Tensor

    from detectors.s3fd.nets import S3FDNet
    from SyncNetModel import S

PLANE_CHANNEL_PAIRS = 64 * 128  # input times output channels from which ``winograd`` is faster
BOX_VALUES = 4


def spatial(size: Any) -> Any:
    """Return the rows and columns of a size given as (time, rows, columns); an int stays as it is."""
    return size[-2:] if isinstance(size, tuple) else size


class StackedConvolution(nn.Module):
    """The lip network's first layer, as a 2-D convolution of five frames stacked to 15 channels.

    Args:
        conv: 3-D convolution without padding; weight O x 3 x 5 x h x w.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            conv.in_channels * WINDOW_FRAMES,
            conv.out_channels,
            spatial(conv.kernel_size),
            stride=spatial(conv.stride),
            device="meta",
        )
        self.conv.weight = nn.Parameter(conv.weight.transpose(1, 2).reshape(self.conv.weight.shape))
        self.conv.bias = conv.bias

    def forward(self, frames: Tensor) -> Tensor:
        """Convolve all windows of consecutive frames.

        Args:
            frames: (N + 4) x H x W x 3, of the weight's type.

        Returns:
            N x O x H' x W'.
        """
        count = len(frames) - WINDOW_FRAMES + 1
        windows = torch.cat([frames[i : i + count] for i in range(WINDOW_FRAMES)], dim=3)
        return self.conv(windows.permute(0, 3, 1, 2))


def flat_convolution(conv: nn.Conv2d | nn.Conv3d) -> nn.Conv2d | nn.Conv3d:
    """Convert a 3-D convolution with a temporal kernel of 1 to a 2-D one; return others unchanged."""
    if isinstance(conv, nn.Conv2d) or conv.kernel_size[0] > 1:
        return conv
    kernel, stride, padding = map(spatial, (conv.kernel_size, conv.stride, conv.padding))
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride=stride, padding=padding, device="meta")
    flat.weight, flat.bias = nn.Parameter(conv.weight.squeeze(2)), conv.bias
    return flat


def folded(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Optimise layers of S for inference, as the module's docstring describes."""
    fast: list[Any] = []  # Any: torch's fuse functions are typed per kind of layer
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            fast.append(layer)
        elif isinstance(layer, nn.BatchNorm1d):
            fast[-1] = fuse_linear_bn_eval(fast[-1], layer)
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            fast[-1] = flat_convolution(fuse_conv_bn_eval(fast[-1], layer))
        elif isinstance(layer, nn.MaxPool2d | nn.MaxPool3d):
            if layer.kernel_size != 1:
                fast.insert(
                    len(fast) - 1, nn.MaxPool2d(*map(spatial, (layer.kernel_size, layer.stride, layer.padding)))
                )
        else:
            fast.append(nn.ReLU(inplace=True))
    return nn.Sequential(*fast)


class WholeConvolution(nn.Module):
    """A convolution whose kernel is as large as its input, as a matrix product, which is faster.

    Args:
        conv: 2-D convolution without padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous())
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve N x C x h x w, channels-last, to N x O."""
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), self.weight, self.bias)


def with_matrix_product(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Replace the last convolution of S's layers, which covers its whole input."""
    *rest, last, relu = layers
    assert isinstance(last, nn.Conv2d)
    return nn.Sequential(*rest, WholeConvolution(last), relu)


def with_fewer_products(layers: Iterable[nn.Module]) -> nn.Sequential:
    """Replace expensive convolutions by those of ``winograd``, for CPUs."""
    return nn.Sequential(*(cheaper(layer) for layer in layers))


def cheaper(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Conv2d) or layer.in_channels * layer.out_channels < PLANE_CHANNEL_PAIRS:
        return layer
    shape = layer.kernel_size, layer.stride, layer.padding
    if shape == ((3, 3), (1, 1), (1, 1)):
        return PlaneConvolution.of(layer)
    if shape == ((5, 5), (2, 2), (1, 1)):
        return StridedPlaneConvolution(layer)
    return layer


class FastSyncNet(nn.Module):
    """``S`` optimised for inference.

    Args:
        net: the network, in evaluation mode.
        device: device to run on.
        precision: one of ``defaults.PRECISIONS``, for convolutions; features are float32.

    Attributes:
        group: number of windows that are computed together.
    """

    def __init__(self, net: S, device: torch.device, *, precision: str = FLOAT32) -> None:
        super().__init__()
        conv, pool, *rest = folded(net.netcnnlip)
        assert isinstance(conv, nn.Conv3d) and isinstance(pool, nn.MaxPool2d)
        self.aud, self.fcaud, self.fclip = map(folded, (net.netcnnaud, net.netfcaud, net.netfclip))
        if device.type == "cpu" and precision == FLOAT32:
            self.lip = nn.Sequential(TimeConvolution(conv, pool), *with_fewer_products(rest))
            self.aud = with_fewer_products(self.aud)
            self.group = TIME_OUTPUTS
        else:
            self.lip = nn.Sequential(StackedConvolution(conv), pool, *with_matrix_product(rest))
            self.aud = with_matrix_product(self.aud)
            self.group = 1
        self.device, self.dtype = device, DTYPES[precision]
        self.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.lip.to(self.dtype)
        self.aud.to(self.dtype)

    @full_float32
    @torch.inference_mode()
    def audio_features(self, windows: np.ndarray | Tensor) -> Tensor:
        """Compute audio features.

        Args:
            windows: N x 1 x 13 x 20 MFCCs, float32.

        Returns:
            N x 1024 features, float32, on the device.
        """
        coefficients = torch.as_tensor(windows).to(self.device).to(self.dtype)
        return self.fcaud(self.aud(coefficients).flatten(1).float())

    @full_float32
    @torch.inference_mode()
    def lip_features(self, frames: np.ndarray | Tensor) -> Tensor:
        """Compute lip features, the input of ``netfclip``.

        Args:
            frames: (N + 4) x 224 x 224 x 3 consecutive frames, uint8, BGR; an array, or a tensor on any device.

        Returns:
            N x 512 features, float32, on the device.
        """
        return self.lip(torch.as_tensor(frames).to(self.device).to(self.dtype)).flatten(1).float()

    @full_float32
    @torch.inference_mode()
    def video_features(self, frames: np.ndarray | Tensor) -> Tensor:
        """Compute video features.

        Args:
            frames: as in ``lip_features``.

        Returns:
            N x 1024 features, float32, on the device.
        """
        return self.fclip(self.lip_features(frames))


class FastS3FD(nn.Module):
    """``S3FDNet`` optimised for inference, with the same inputs and outputs.

    Args:
        net: the network; it is modified and becomes part of this one.
        device: device to run on.
        precision: one of ``defaults.PRECISIONS``, for convolutions; inputs and outputs are float32.
    """

    def __init__(self, net: S3FDNet, device: torch.device, *, precision: str = FLOAT32) -> None:
        super().__init__()
        self.net = net
        # a single convolution computes both location and score of a feature map
        self.heads = nn.ModuleList(joined(loc, conf) for loc, conf in zip(net.loc, net.conf))
        for index, (layer, following) in enumerate(zip(net.vgg, [*net.vgg][1:])):
            if isinstance(following, nn.MaxPool2d) and index not in SOURCE_INDICES:
                net.vgg[index], net.vgg[index + 1] = following, layer
        if device.type == "cpu" and precision == FLOAT32:
            net.vgg = nn.ModuleList(map(cheaper, net.vgg))
        self.dtype = DTYPES[precision]
        self.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.to(self.dtype)

    @full_float32
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.net.sources(x.to(self.dtype).contiguous(memory_format=torch.channels_last))
        outputs = (head(source).float() for head, source in zip(self.heads, maps))
        return merge_heads(read_head(output[:, :BOX_VALUES], output[:, BOX_VALUES:]) for output in outputs)


def joined(first: Any, second: Any) -> nn.Conv2d:
    """Combine two convolutions of the same input into one, which concatenates their output channels.

    Args:
        first: an ``nn.Conv2d``; ``nn.ModuleList`` does not type its elements.
        second: an ``nn.Conv2d``.
    """
    outputs = first.out_channels + second.out_channels
    conv = nn.Conv2d(first.in_channels, outputs, first.kernel_size, padding=first.padding, device="meta")
    conv.weight = nn.Parameter(torch.cat([first.weight, second.weight]))
    conv.bias = nn.Parameter(torch.cat([first.bias, second.bias]))
    return conv
