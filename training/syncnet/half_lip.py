"""S made cheap to train on a CPU: the same function, arranged for speed.

Five rearrangements, all undone by ``full_state``:

- The picture is 112x112, the 2x2 averages of the scored 224x224. A 3x3 kernel of stride 1 there is a 6x6 kernel of
  stride 2 on the full picture (every weight repeated 2x2 and divided by 4), which fits into S's 7x7.
- The picture is grey: the kernel of each colour is the grey kernel times that colour's part of the luma.
- The five frames are channels of one 2-D convolution: every temporal kernel after the first is 1.
- Batch norm and ReLU come after max pooling. They commute as long as the norm's scale is positive, which
  ``keep_scales_positive`` sees to, and touch a quarter of the values.
- A batch norm behind each head, folded into its last layer.
"""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from syncnet.constants import WINDOW_FRAMES
from syncnet.models.weights import SYNCNET
from SyncNetModel import EMBEDDING_SIZE, S, head, scaled
from training import common

PIXEL_MEAN = 128  # taken off as integers; folded into the first layer
MFCC_SCALE = 10.0  # likewise
SMALLEST_SCALE = 1e-3
DROPOUT = 0.1  # of what the heads see
LUMA = (0.114, 0.587, 0.299)  # of blue, green, red (ITU-R BT.601, as cv2.COLOR_BGR2GRAY)
GREEN = 1
LEARNED = EMBEDDING_SIZE - 1  # the last dimension is a constant, see ``full_state``


def block(inputs, outputs, kernel, *, stride=1, padding=0, pool=None):
    """Convolution, pooling where given as (kernel, stride, padding), batch norm, ReLU."""
    pooling = [nn.MaxPool2d(*pool)] if pool else []
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
    return [convolution, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def centred_head(features):
    """S's head with a batch norm behind it: without one both streams' means drown the differences within a clip."""
    return nn.Sequential(*head(features, LEARNED), nn.BatchNorm1d(LEARNED))


class HalfS(nn.Module):
    """S of one width, seeing 112x112 pictures.

    Args:
        width: as in ``SyncNetModel.S``.
    """

    def __init__(self, width=1.0):
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
        with torch.no_grad():  # the first layer starts out seeing motion only: a still face is most of the picture
            first = self.lip[0].weight
            first -= first.mean(1, keepdim=True)
        self.to(memory_format=torch.channels_last)

    def forward_aud(self, mfcc):
        """N x 13 x 20 unscaled MFCCs -> N x 1023, float32."""
        x = (mfcc / MFCC_SCALE).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        return self.fcaud(self.dropout(self.aud(x).flatten(1))).float()

    def forward_lip(self, frames):
        """N x 5 x 112 x 112 uint8 (five grey frames) -> N x 1023, float32."""
        return self.fclip(self.dropout(self.lip(normalised(frames)).flatten(1))).float()

    @torch.no_grad()
    def keep_scales_positive(self):
        """Clamp the scale of every batch norm that stands behind a pooling; call it after each step."""
        for stream in (self.aud, self.lip):
            for before, layer in zip(stream, list(stream)[1:]):
                if isinstance(before, nn.MaxPool2d):
                    layer.weight.clamp_(min=SMALLEST_SCALE)


def normalised(frames):
    """N x 5 x 112 x 112 uint8 -> the same, channels last, -128 .. 127: exact in bfloat16, too."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled(frames.device.type) else torch.float32
    return frames.bitwise_xor(PIXEL_MEAN).view(torch.int8).to(dtype).contiguous(memory_format=torch.channels_last)


def windows_of(frames, starts):
    """T x 112 x 112 uint8 and window starts -> N x 5 x 112 x 112."""
    return frames[starts[:, None] + torch.arange(WINDOW_FRAMES)]


def _norms(stream):
    return [layer for layer in stream if isinstance(layer, nn.BatchNorm2d)]


def _convolutions(stream):
    return [layer for layer in stream if isinstance(layer, nn.Conv2d)]


@torch.no_grad()
def full_state(net, *, scale=1.0, floor=0.0, beyond=None):
    """State dict in S's layout (float32) that computes on 224x224 pixels and unscaled MFCCs what ``net`` computes.

    Args:
        scale: factor on all features.
        floor: a distance d of the features becomes sqrt((scale * d)^2 + floor^2), by a last dimension that is
            constant in each stream.
        beyond: that constant of the video stream (the audio stream's is less by ``floor``): the distance of video
            features v to the zeros beyond the ends of the sound is sqrt((scale * |v|)^2 + beyond^2).
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
def load_full(net, full):
    """Put the weights of an ``S`` that ``full_state`` made into a ``HalfS``, but for the constants.

    The norms behind the heads are in the last layers then: see ``common.pass_through``.
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


def width_of(path):
    """Width factor of weights in S's layout."""
    state = common.load_checkpoint(path)
    layer = state.get(SYNCNET.first_layer) if isinstance(state, dict) else None
    if layer is None:
        raise common.TrainingError(f"{path}: not weights of the sync network")
    return len(layer) / SYNCNET.first_channels


def load_half(path):
    """(``HalfS`` in evaluation mode, its calibration as a dict) of a file that holds a ``full_state``."""
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
                target.bias.copy_(-PIXEL_MEAN * weight.sum((1, 2, 3)))  # no padding: the mean folds in exactly
                weight = _unfolded(weight)
        if isinstance(target, nn.Conv3d) and index:
            weight = weight.unsqueeze(2)
        target.weight.copy_(weight)
    for source, target in zip(_norms(stream), norms):
        target.load_state_dict(source.state_dict())


def _unfolded(weight):
    """O x 5 x 3 x 3 on grey 2x2 averages -> O x 3 x 5 x 7 x 7 of stride 2 on the full picture (last row, column 0)."""
    outputs = len(weight)
    wide = weight.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) / 4
    kernel = weight.new_zeros(outputs, len(LUMA), WINDOW_FRAMES, 7, 7)
    kernel[..., :6, :6] = wide[:, None] * weight.new_tensor(LUMA).view(1, -1, 1, 1, 1)
    return kernel
