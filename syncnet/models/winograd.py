"""Convolutions with fewer multiplications, for CPUs.

Cook-Toom algorithms, also called Winograd convolutions, compute m outputs of an r-tap filter from m + r - 1 products
instead of m * r: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

HALF, THREE_HALVES = Fraction(1, 2), Fraction(3, 2)
ONE_POINT = 1  # index of the point 1, whose product has weight 1 in every output
TIME_POINTS = (0, 1, -1, 2, -2, HALF, -HALF, THREE_HALVES, -THREE_HALVES)
TIME_OUTPUTS = 6  # windows per tile
STRIP_ROWS = 27  # rows of pooled output that are computed together
PLANE_POINTS = (0, 1, -1, 2, -2)
PLANE_OUTPUTS = 4  # rows and columns of a tile
CACHED_TILES = 320  # tiles that are computed together


def cook_toom(outputs: int, taps: int, points: Sequence[int | Fraction]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the matrices of y = AT ((G w) * (BT x)), where y[k] is the sum over t of w[t] x[k + t].

    Entries of BT are integers, so that transforming integers such as pixels is exact. The last non-zero entry in each
    row of BT is positive.

    Args:
        outputs: length m of y.
        taps: length r of w.
        points: m + r - 2 different numbers; the last point is infinity, which is not listed.

    Returns:
        AT (m x n), G (n x r) and BT (n x n), n = m + r - 1, float64.
    """
    size = outputs + taps - 1

    def powers(columns: int) -> list[list[Fraction]]:
        finite = [[Fraction(p) ** j for j in range(columns)] for p in points]
        return [*finite, [Fraction(0)] * (columns - 1) + [Fraction(1)]]

    transposed = [list(row) for row in zip(*inverse(powers(size)))]
    scales = [lcm(*(v.denominator for v in row)) * (1 if [v for v in row if v][-1] > 0 else -1) for row in transposed]
    at = torch.tensor([list(map(float, row)) for row in zip(*powers(outputs))], dtype=torch.float64)
    g = torch.tensor([[float(v / s) for v in row] for row, s in zip(powers(taps), scales)], dtype=torch.float64)
    bt = torch.tensor([[float(v * s) for v in row] for row, s in zip(transposed, scales)], dtype=torch.float64)
    assert len(at.T) == len(g) == len(bt) == size
    return at, g, bt


def inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Invert a square matrix of fractions exactly, by Gauss-Jordan elimination."""
    size = len(matrix)
    rows = [row + [Fraction(int(i == j)) for j in range(size)] for i, row in enumerate(matrix)]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for i in range(size):
            if i != column:
                factor = rows[i][column]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[column])]
    return [row[size:] for row in rows]


class TimeConvolution(nn.Module):
    """The lip network's first layer and its pooling: ten 2-D convolutions give six windows that overlap in time.

    The transform of pixels is exact, so that the result has the precision of float32.

    Args:
        conv: 3-D convolution without padding; weight O x C x 5 x h x w.
        pool: the 2-D max pooling without padding that follows it; kernel size and stride are tuples.
    """

    def __init__(self, conv: nn.Conv3d, pool: nn.MaxPool2d) -> None:
        super().__init__()
        assert conv.bias is not None and isinstance(pool.kernel_size, tuple) and isinstance(pool.stride, tuple)
        assert (pool.kernel_size, pool.stride) == ((3, 3), (2, 2)), "which ``pooled`` does"
        self.taps, self.stride = conv.kernel_size[0], conv.stride[1:]
        at, g, bt = cook_toom(TIME_OUTPUTS, self.taps, TIME_POINTS)
        kernels = torch.einsum("nt,octyx->nocyx", g, conv.weight.detach().double()).float()
        self.kernels = [kernel.contiguous(memory_format=torch.channels_last) for kernel in kernels]
        bias = conv.bias.detach()
        self.biases = [bias if n == ONE_POINT else None for n in range(len(kernels))]
        self.at, self.bt = at.float(), bt.float()
        # a row of pooled output depends on ``reach`` input rows, which start ``step`` rows below those of the last one
        self.step = self.stride[0] * pool.stride[0]
        self.reach = self.stride[0] * (pool.kernel_size[0] - 1) + conv.kernel_size[1]

    def forward(self, frames: Tensor) -> Tensor:
        """Convolve and pool all windows of consecutive frames.

        Args:
            frames: (N + 4) x H x W x C integers, float32.

        Returns:
            N x O x H' x W', channels-last.
        """
        count = len(frames) - self.taps + 1
        missing = -count % TIME_OUTPUTS
        if missing:
            frames = torch.cat([frames, frames.new_zeros(missing, *frames.shape[1:])])
        rows, columns = ((size - self.reach) // self.step + 1 for size in frames.shape[1:3])
        result = frames.new_empty(len(frames) - self.taps + 1, rows, columns, len(self.kernels[0]))
        for start in range(0, count, TIME_OUTPUTS):
            group = frames[start : start + len(self.bt)]
            images = (self.bt @ group.flatten(1)).view(group.shape).permute(0, 3, 1, 2)
            # in strips, so that intermediate results stay in the cache
            for top in range(0, rows, STRIP_ROWS):
                end = min(top + STRIP_ROWS, rows)
                strip = images[:, :, self.step * top : self.step * (end - 1) + self.reach]
                result[start : start + TIME_OUTPUTS, top:end] = self.strip(strip).permute(0, 2, 3, 1)
        return result[:count].permute(0, 3, 1, 2)

    def strip(self, images: Tensor) -> Tensor:
        """Compute some rows of six windows from the corresponding rows of ten transformed images."""
        products = [
            F.conv2d(image, kernel, bias, stride=self.stride).permute(0, 2, 3, 1)
            for image, kernel, bias in zip(images.split(1), self.kernels, self.biases)
        ]
        windows = self.at @ torch.cat(products).flatten(1)
        return pooled(windows.view(TIME_OUTPUTS, *products[0].shape[1:])).permute(0, 3, 1, 2)


def pooled(x: Tensor) -> Tensor:
    """Take the maximum of every 3 x 3 values at stride 2, N x H x W x C; five times as fast as torch's pooling."""
    rows = torch.maximum(x[:, 0:-2:2], x[:, 2::2])
    torch.maximum(rows, x[:, 1:-1:2], out=rows)
    columns = torch.maximum(rows[:, :, 0:-2:2], rows[:, :, 2::2])
    return torch.maximum(columns, rows[:, :, 1:-1:2], out=columns)


def combine(matrix: list[list[float]], inputs: Sequence[Tensor] | Tensor, outputs: Iterable[Tensor] | Tensor) -> None:
    """Multiply a matrix by a vector of tensors. Sums are faster than a matrix product, because most entries are 0.

    Args:
        matrix: M x N weights; each row has at least two non-zero ones, of which one is 1.
        inputs: N tensors of equal shape.
        outputs: M tensors of that shape, which are overwritten.
    """
    for row, output in zip(matrix, outputs):
        (first, second, *rest) = sorted(((x, w) for x, w in zip(inputs, row) if w), key=lambda term: term[1] != 1)
        assert first[1] == 1
        torch.add(first[0], second[0], alpha=second[1], out=output)
        for x, w in rest:
            output.add_(x, alpha=w)


class PlaneConvolution(nn.Module):
    """A 3x3 convolution with stride and padding 1 in tiles of 4x4 outputs: 36 products per tile instead of 144.

    Args:
        weight: O x C x 3 x 3.
        bias: (O,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        at, g, bt = cook_toom(PLANE_OUTPUTS, weight.shape[-1], PLANE_POINTS)
        taps = weight.permute(3, 2, 1, 0).flatten(0, 1).flatten(1)  # columns first
        self.kernels = (torch.kron(g, g).float() @ taps).unflatten(1, (weight.shape[1], weight.shape[0]))
        self.bias, self.at, self.bt = bias, at.tolist(), bt.tolist()

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PlaneConvolution:
        """Convert a 3x3 convolution with stride and padding 1."""
        assert conv.bias is not None
        return cls(conv.weight.detach(), conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve N x C x H x W, channels-last, to N x O x H x W, channels-last."""
        count, _, height, width = x.shape
        m, outputs = PLANE_OUTPUTS, len(self.bias)
        down, across = -(-height // m), -(-width // m)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, across * m + 1 - width, 1, down * m + 1 - height))
        result = x.new_empty(count, down, m, across, m, outputs)
        # few enough tiles to keep intermediate results in the cache, but enough for efficient matrix products
        rows = min(down, max(1, CACHED_TILES // across))
        images = max(1, CACHED_TILES // (down * across))
        for i in range(0, count, images):
            for j in range(0, down, rows):
                strip = padded[i : i + images, m * j : m * min(j + rows, down) + 2]
                self.convolve(strip, result[i : i + images, j : j + rows])
        return result.view(count, down * m, across * m, outputs)[:, :height, :width].permute(0, 3, 1, 2)

    def convolve(self, images: Tensor, result: Tensor) -> None:
        """Convolve images into tiles.

        Args:
            images: padded images, N x rows x columns x C.
            result: the output, N x tiles down x 4 x tiles across x 4 x O.
        """
        m, n = PLANE_OUTPUTS, len(self.bt)
        count, down, _, across, _, outputs = result.shape
        channels = images.shape[-1]
        # transform the rows of the overlapping tiles, then their columns
        rows = images.new_empty(n, count, down, images.shape[2], channels)
        combine(self.bt, [images[:, p : p + m * (down - 1) + 1 : m] for p in range(n)], rows)
        tiles = images.new_empty(n, n, count, down, across, channels)
        combine(self.bt, [rows[:, :, :, q : q + m * (across - 1) + 1 : m] for q in range(n)], tiles)
        products = torch.bmm(tiles.view(n * n, -1, channels), self.kernels)
        products[ONE_POINT * n + ONE_POINT] += self.bias
        columns = products.new_empty(m, n, count, down, across, outputs)
        combine(self.at, products.view(n, *columns.shape[1:]), columns)
        combine(self.at, columns.transpose(0, 1), result.permute(2, 4, 0, 1, 3, 5))


class StridedPlaneConvolution(nn.Module):
    """A 5x5 convolution with stride 2 and padding 1, as a 3x3 one at half the size with four times the channels.

    Args:
        conv: the convolution; its input must have even numbers of rows and columns.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.bias is not None
        # pad the kernel to 6x6 by a row at the top and a column at the left, so that it covers three pairs of each
        weight = F.pad(conv.weight.detach(), (1, 0, 1, 0)).unflatten(3, (3, 2)).unflatten(2, (3, 2))
        self.plane = PlaneConvolution(weight.permute(0, 3, 5, 1, 2, 4).flatten(1, 3), conv.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Convolve N x C x 2H x 2W, channels-last, to N x O x (H - 1) x (W - 1)."""
        pairs = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        deep = pairs.permute(0, 1, 3, 2, 4, 5).flatten(3).permute(0, 3, 1, 2)
        return self.plane(deep)[:, :, :-1, :-1]
