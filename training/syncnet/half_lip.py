"""S arranged for fast training on a CPU; it computes the same function.

Five rearrangements, all undone by ``full_state``:

- Frames are 112x112, the 2x2 averages of the scored 224x224. A 3x3 kernel of stride 1 there equals a 6x6 kernel of
  stride 2 on the full frame (every weight repeated 2x2 and divided by 4), which fits into the 7x7 kernel of S.
- Frames are grey: the kernel of each colour is the grey kernel times the colour's luma coefficient.
- The five frames are the channels of one 2-D convolution: every later kernel of S has a temporal size of 1.
- Batch norm and ReLU follow max pooling, where they touch a quarter of the values. They commute with it as long as the
  scale of the norm is positive, which ``keep_scales_positive`` ensures.
- Each head ends with a batch norm, folded into its last layer.
"""

import copy
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from syncnet.constants import WINDOW_FRAMES
from syncnet.models.weights import SYNCNET
from SyncNetModel import EMBEDDING_SIZE, S, head, scaled
from training import common

PIXEL_MEAN = 128  # subtracted as an integer; folded into the first layer
MFCC_SCALE = 10.0  # divisor of the MFCCs; folded into the first layer
SMALLEST_SCALE = 1e-3
DROPOUT = 0.1  # of the heads' inputs
LUMA = (0.114, 0.587, 0.299)  # of blue, green, red (ITU-R BT.601, as cv2.COLOR_BGR2GRAY)
GREEN = 1
LEARNED = EMBEDDING_SIZE - 1  # the last dimension is a constant, see ``full_state``


def block(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    pool: tuple | None = None,
) -> list[nn.Module]:
    """Return the layers of a block: convolution, optional max pooling, batch norm, ReLU.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size of the convolution.
        stride: Stride of the convolution.
        padding: Padding of the convolution.
        pool: Kernel, stride and padding of the pooling, or None.
    """
    pooling = [nn.MaxPool2d(*pool)] if pool else []
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    return [convolution, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def centred_head(features: int) -> nn.Sequential:
    """Return a head of S with a batch norm, without which the streams' means mask the differences within a clip."""
    return nn.Sequential(*head(features, LEARNED), nn.BatchNorm1d(LEARNED))


class HalfS(nn.Module):
    """S of a given width on 112x112 grey frames.

    Args:
        width: As in ``SyncNetModel.S``.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c64, c96, c192, c256, c384, c512 = (scaled(c, width) for c in (64, 96, 192, 256, 384, 512))
        self.width = width
        self.aud = nn.Sequential(
            *block(1, c64, 3, padding=1),
            *block(c64, c192, 3, padding=1, pool=(3, (1, 2), 0)),
            *block(c192, c384, 3, padding=1),
            *block(c384, c256, 3, padding=1),
            *block(c256, c256, 3, padding=1, pool=(3, 2, 0)),
            *block(c256, c512, (5, 4)),
        )
        self.lip = nn.Sequential(
            *block(WINDOW_FRAMES, c96, 3, pool=(3, 2, 0)),
            *block(c96, c256, 5, stride=2, padding=1, pool=(3, 2, 1)),
            *block(c256, c256, 3, padding=1),
            *block(c256, c256, 3, padding=1),
            *block(c256, c256, 3, padding=1, pool=(3, 2, 0)),
            *block(c256, c512, 6),
        )
        self.dropout = nn.Dropout(DROPOUT)
        self.fcaud = centred_head(c512)
        self.fclip = centred_head(c512)
        with torch.no_grad():  # start with a first layer that sees motion only, because most of a frame is a still face
            first = self.lip[0].weight
            first -= first.mean(1, keepdim=True)
        self.to(memory_format=torch.channels_last)

    def forward_aud(self, mfcc: torch.Tensor) -> torch.Tensor:
        """Return the N x 1023 float32 features of N x 13 x 20 unscaled MFCCs."""
        x = (mfcc / MFCC_SCALE).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        return self.fcaud(self.dropout(self.aud(x).flatten(1))).float()

    def forward_lip(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the N x 1023 float32 features of N x 5 x 112 x 112 uint8 grey frames."""
        return self.fclip(self.dropout(self.lip(normalised(frames)).flatten(1))).float()

    @torch.no_grad()
    def keep_scales_positive(self) -> None:
        """Clamp the scale of every batch norm that follows a pooling layer; call it after each update."""
        for stream in (self.aud, self.lip):
            for before, layer in zip(stream, list(stream)[1:]):
                if isinstance(before, nn.MaxPool2d):
                    layer.weight.clamp_(min=SMALLEST_SCALE)


def normalised(frames: torch.Tensor) -> torch.Tensor:
    """Convert N x 5 x 112 x 112 uint8 frames to -128 .. 127, channels last; exact in bfloat16 too."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled(frames.device.type) else torch.float32
    return frames.bitwise_xor(PIXEL_MEAN).view(torch.int8).to(dtype).contiguous(memory_format=torch.channels_last)


def windows_of(frames: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return the windows, N x 5 x 112 x 112, of T x 112 x 112 frames at N starts."""
    return frames[starts[:, None] + torch.arange(WINDOW_FRAMES)]


def _norms(stream):
    return [layer for layer in stream if isinstance(layer, nn.BatchNorm2d)]


def _convolutions(stream):
    return [layer for layer in stream if isinstance(layer, nn.Conv2d)]


@torch.no_grad()
def full_state(
    net: HalfS, *, scale: float = 1.0, floor: float = 0.0, beyond: float | None = None
) -> dict[str, torch.Tensor]:
    """Return a float32 state dict in the layout of S that computes the same as ``net``, on 224x224 frames.

    Args:
        net: The network; its MFCC inputs are unscaled in both.
        scale: Factor on all features.
        floor: Constant that turns a distance d of the features into sqrt((scale * d)^2 + floor^2), stored as a last
            dimension that is constant in each stream.
        beyond: That constant of the video stream (the audio stream's is smaller by ``floor``): the distance of video
            features v to the zeros beyond the ends of the audio is sqrt((scale * |v|)^2 + beyond^2). None: ``floor``.
    """
    beyond = floor if beyond is None else beyond
    full = S(width=net.width)
    _copy(net.aud, full.netcnnaud, MFCC_SCALE)
    _copy(net.lip, full.netcnnlip, 1.0)
    for source, target, constant in ((net.fcaud, full.netfcaud, beyond - floor), (net.fclip, full.netfclip, beyond)):
        target[:3].load_state_dict(source[:3].state_dict())
        last = fuse_linear_bn_eval(copy.deepcopy(source[3]).eval(), copy.deepcopy(source[4]).eval())
        target[3].weight.copy_(torch.cat([last.weight * scale, torch.zeros_like(last.weight[:1])]))
        target[3].bias.copy_(torch.cat([last.bias * scale, last.bias.new_tensor([constant])]))
    return full.state_dict()


@torch.no_grad()
def load_full(net: HalfS, full: S) -> None:
    """Copy the weights of an ``S`` made by ``full_state`` into a ``HalfS``, without the constants.

    The batch norms behind the heads are then part of the last layers; see ``common.pass_through``.

    Args:
        net: Network to change in place.
        full: Network with the weights.
    """
    for stream, layers in ((net.aud, full.netcnnaud), (net.lip, full.netcnnlip)):
        sources = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.Conv3d)]
        for index, (source, target) in enumerate(zip(sources, _convolutions(stream))):
            weight = source.weight
            if index == 0 and weight.ndim == 4:
                weight = weight * MFCC_SCALE
            elif index == 0:
                weight = weight[:, GREEN, :, :6:2, :6:2] * 4 / LUMA[GREEN]
            elif weight.ndim == 5:
                weight = weight.squeeze(2)
            target.weight.copy_(weight)
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d)]
        for source, target in zip(norms, _norms(stream)):
            target.load_state_dict(source.state_dict())
    for head_, source in ((net.fcaud, full.netfcaud), (net.fclip, full.netfclip)):
        head_[:3].load_state_dict(source[:3].state_dict())
        head_[3].weight.copy_(source[3].weight[:LEARNED])
        head_[3].bias.copy_(source[3].bias[:LEARNED])


def width_of(path: str | Path) -> float:
    """Return the width factor of a weights file in the layout of S.

    Raises:
        TrainingError: The file holds other weights.
    """
    state = common.load_checkpoint(path)
    layer = state.get(SYNCNET.first_layer) if isinstance(state, dict) else None
    if layer is None:
        raise common.TrainingError(f"{path}: not weights of the sync network; give a file in the layout of S")
    return len(layer) / SYNCNET.first_channels


def load_half(path: str | Path) -> tuple[HalfS, dict[str, float]]:
    """Load a file that holds a ``full_state``; return the network in evaluation mode and its calibration."""
    width = width_of(path)
    full = common.load_weights(path, S(width=width))
    net = HalfS(width)
    load_full(net, full)
    beyond, rest = (head[3].bias[-1].item() for head in (full.netfclip, full.netfcaud))
    return net.eval(), {"scale": 1.0, "floor": beyond - rest, "beyond": beyond}


def _copy(stream, full, input_scale):
    targets = [layer for layer in full if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    norms = [layer for layer in full if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d)]
    for index, (source, target) in enumerate(zip(_convolutions(stream), targets)):
        weight = source.weight.float()
        target.bias.zero_()
        if index == 0:
            weight = weight / input_scale
            if isinstance(target, nn.Conv3d):
                target.bias.copy_(-PIXEL_MEAN * weight.sum((1, 2, 3)))  # exact, because there is no padding
                weight = _unfolded(weight)
        if isinstance(target, nn.Conv3d) and index:
            weight = weight.unsqueeze(2)
        target.weight.copy_(weight)
    for source, target in zip(_norms(stream), norms):
        target.load_state_dict(source.state_dict())


def _unfolded(weight):
    """Convert O x 5 x 3 x 3 kernels to O x 3 x 5 x 7 x 7 of stride 2 on full frames; the last row and column are 0."""
    outputs = len(weight)
    wide = weight.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4
    kernel = weight.new_zeros(outputs, len(LUMA), WINDOW_FRAMES, 7, 7)
    kernel[..., :6, :6] = wide[:, None] * weight.new_tensor(LUMA).view(1, -1, 1, 1, 1)
    return kernel
