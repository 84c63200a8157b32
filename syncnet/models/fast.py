"""The same networks, arranged to run fast: equal numbers (to about 1e-5) from less work.

Batch norm is folded into the convolutions, pooling comes before ReLU (they commute, and ReLU then sees a quarter of
the values), tensors are channels-last, the lip network's 3-D convolutions run as 2-D ones (every temporal kernel but
the first is 1, and five frames of three channels are one picture of 15), and on CPUs the convolutions that cost most
take fewer multiplications (``winograd``).
"""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from detectors.s3fd.nets import merge_heads, read_head
from syncnet.constants import WINDOW_FRAMES
from syncnet.models.winograd import TIME_OUTPUTS, PlaneConvolution, StridedPlaneConvolution, TimeConvolution

PLANE_CHANNEL_PAIRS = 64 * 128  # inputs times outputs from which fewer multiplications outweigh the additions for them
BOX_VALUES = 4


def spatial(size):
    """The rows and columns of a size in time, rows and columns."""
    return size[-2:] if isinstance(size, tuple) else size


class StackedConvolution(nn.Module):
    """The lip network's first layer, on windows of five frames stacked to 15 channels.

    Args:
        conv: 3-D convolution, O x 3 x 5 x h x w, without padding.
    """

    def __init__(self, conv):
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

    def forward(self, frames):
        """(N + 4) x H x W x 3 -> N x O x H' x W'."""
        frames = frames.permute(0, 3, 1, 2).contiguous()
        count, channels, height, width = frames.shape
        # overlapping windows are views: frame i's three planes are followed by those of frame i + 1
        windows = frames.as_strided(
            (count - WINDOW_FRAMES + 1, WINDOW_FRAMES * channels, height, width), frames.stride()
        )
        return self.conv(windows.contiguous(memory_format=torch.channels_last))


def flat_convolution(conv):
    """A 3-D convolution with a temporal kernel of 1 as a 2-D one; others as they are."""
    if isinstance(conv, nn.Conv2d) or conv.kernel_size[0] > 1:
        return conv
    kernel, stride, padding = map(spatial, (conv.kernel_size, conv.stride, conv.padding))
    flat = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride=stride, padding=padding, device="meta")
    flat.weight, flat.bias = nn.Parameter(conv.weight.squeeze(2)), conv.bias
    return flat


def folded(layers):
    """Layers of S for inference: see the module's first paragraph."""
    fast = []
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


def with_fewer_products(layers):
    """Layers for CPUs: convolutions that cost much are computed by ``winograd``."""
    return nn.Sequential(*(cheaper(layer) for layer in layers))


def cheaper(layer):
    if not isinstance(layer, nn.Conv2d) or layer.in_channels * layer.out_channels < PLANE_CHANNEL_PAIRS:
        return layer
    shape = layer.kernel_size, layer.stride, layer.padding
    if shape == ((3, 3), (1, 1), (1, 1)):
        return PlaneConvolution.of(layer)
    if shape == ((5, 5), (2, 2), (1, 1)):
        return StridedPlaneConvolution(layer)
    return layer


class FastSyncNet(nn.Module):
    """``S`` for inference.

    Args:
        net: the network, in evaluation mode.
        device: torch device to run on.

    Attributes:
        group: windows are computed in groups of so many.
    """

    def __init__(self, net, device):
        super().__init__()
        conv, pool, *rest = folded(net.netcnnlip)
        self.aud, self.fcaud, self.fclip = map(folded, (net.netcnnaud, net.netfcaud, net.netfclip))
        if device.type == "cpu":
            self.lip, self.group = nn.Sequential(TimeConvolution(conv, pool), *with_fewer_products(rest)), TIME_OUTPUTS
            self.aud = with_fewer_products(self.aud)
        else:
            self.lip, self.group = nn.Sequential(StackedConvolution(conv), pool, *rest), 1
        self.device = device
        self.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def audio_features(self, windows):
        """N x 1 x 13 x 20 MFCCs (float32 array) -> N x 1024 features on the device."""
        return self.fcaud(self.aud(torch.from_numpy(windows).to(self.device)).flatten(1))

    @torch.inference_mode()
    def lip_features(self, frames):
        """N + 4 consecutive frames -> N x 512 features before ``netfclip``.

        Args:
            frames: (N + 4) x 224 x 224 x 3 array, uint8, BGR.
        """
        return self.lip(torch.from_numpy(frames).to(self.device).float()).flatten(1)

    @torch.inference_mode()
    def video_features(self, frames):
        """N + 4 consecutive frames (as ``lip_features``) -> N x 1024 features on the device."""
        return self.fclip(self.lip_features(frames))


class FastS3FD(nn.Module):
    """``S3FDNet`` for inference: takes and returns the same.

    Args:
        net: the network, which becomes part of this one.
        device: torch device to run on.
    """

    def __init__(self, net, device):
        super().__init__()
        self.net = net
        # location and score of a map come from one convolution
        self.heads = nn.ModuleList(joined(loc, conf) for loc, conf in zip(net.loc, net.conf))
        if device.type == "cpu":
            net.vgg = nn.ModuleList(map(cheaper, net.vgg))
        self.requires_grad_(False).eval().to(device, memory_format=torch.channels_last)

    def forward(self, x):
        maps = self.net.sources(x.contiguous(memory_format=torch.channels_last))
        outputs = (head(source) for head, source in zip(self.heads, maps))
        return merge_heads(read_head(output[:, :BOX_VALUES], output[:, BOX_VALUES:]) for output in outputs)


def joined(*convs):
    """Convolutions of one input as one, their outputs one after the other."""
    first = convs[0]
    outputs = sum(conv.out_channels for conv in convs)
    whole = nn.Conv2d(first.in_channels, outputs, first.kernel_size, padding=first.padding, device="meta")
    whole.weight = nn.Parameter(torch.cat([conv.weight for conv in convs]))
    whole.bias = nn.Parameter(torch.cat([conv.bias for conv in convs]))
    return whole
