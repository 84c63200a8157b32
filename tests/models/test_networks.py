"""Comparison of the fast networks with the plain modules, and of their convolutions with direct ones."""

import itertools
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detectors.s3fd.nets import S3FDNet
from syncnet.constants import WINDOW_FRAMES
from syncnet.models.devices import MAX_WORKERS, in_parallel
from syncnet.models.fast import FastS3FD, FastSyncNet, StackedConvolution, folded, with_matrix_product
from syncnet.models.winograd import (
    TIME_OUTPUTS,
    PlaneConvolution,
    StridedPlaneConvolution,
    TimeConvolution,
    combine,
    cook_toom,
)
from SyncNetModel import S

CPU = torch.device("cpu")
WIDTH = 0.125


def randomised(net, seed=0):
    """Return the network in evaluation mode with random batch norm statistics; the initial ones would hide errors."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.1)
    return net.eval().requires_grad_(False)


def close(ours, plain):
    """Return True if the values are equal to about 1e-5 of the largest one."""
    return (ours - plain).abs().max() <= 2e-5 * plain.abs().max()


@pytest.fixture(scope="module")
def syncnet():
    return randomised(S(width=WIDTH))


def clip(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)


def stacked(frames):
    """Return the windows of a clip as input of the plain network, N x 3 x 5 x 224 x 224."""
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return torch.stack([planes[i : i + WINDOW_FRAMES].transpose(0, 1) for i in range(len(frames) - WINDOW_FRAMES + 1)])


@pytest.mark.parametrize("windows", [1, 2, TIME_OUTPUTS, TIME_OUTPUTS + 1])
def test_video_features(syncnet, windows):
    frames = clip(windows + WINDOW_FRAMES - 1)
    fast = FastSyncNet(syncnet, CPU)
    assert close(fast.lip_features(frames), syncnet.forward_lipfeat(stacked(frames)))
    assert close(fast.video_features(frames), syncnet.forward_lip(stacked(frames)))


def test_audio_features(syncnet):
    audio = np.random.default_rng(1).normal(0, 10, (7, 1, 13, 20)).astype(np.float32)
    assert close(FastSyncNet(syncnet, CPU).audio_features(audio), syncnet.forward_aud(torch.from_numpy(audio)))


def test_layers_of_other_devices_equal_the_plain_ones(syncnet):
    """The first and last layers on all devices except the CPU."""
    frames = clip(7)
    conv, pool, *rest = folded(syncnet.netcnnlip)
    fast = nn.Sequential(StackedConvolution(conv), pool, *with_matrix_product(rest))
    assert close(fast(torch.from_numpy(frames).float()).flatten(1), syncnet.forward_lipfeat(stacked(frames)))


def test_fast_network_does_not_modify_the_plain_one(syncnet):
    before = {name: value.clone() for name, value in syncnet.state_dict().items()}
    FastSyncNet(syncnet, CPU)
    assert all(torch.equal(value, before[name]) for name, value in syncnet.state_dict().items())


def test_published_parameter_names_and_shapes():
    state = S().state_dict()
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnlip.18.weight"].shape == (512, 256, 1, 6, 6)
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert state["netfclip.3.weight"].shape == (1024, 512)
    state = S3FDNet().state_dict()
    assert state["vgg.33.weight"].shape == (1024, 1024, 1, 1)
    assert state["conf.0.weight"].shape == (4, 256, 3, 3)
    assert state["L2Norm5_3.weight"].shape == (512,)


@pytest.mark.parametrize("width", [WIDTH, 0.5])  # 0.5 is wide enough for PlaneConvolution
def test_detector(width):
    torch.manual_seed(0)
    net = S3FDNet(width).eval().requires_grad_(False)
    images = torch.rand(3, 3, 70, 101) * 255 - 110
    locations, scores = net(images)
    one_by_one = [net(image[None])[0][0] for image in images]
    assert close(torch.stack(one_by_one), locations)
    fast_locations, fast_scores = FastS3FD(net, CPU)(images)
    assert close(fast_locations, locations)
    assert (fast_scores - scores).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("outputs", "taps", "points"), [(2, 3, (0, 1, -1)), (4, 3, (0, 1, -1, 2, -2)), (3, 2, (0, 1, 2))]
)
def test_cook_toom(outputs, taps, points):
    at, g, bt = cook_toom(outputs, taps, points)
    torch.manual_seed(0)
    signal, kernel = torch.randn(outputs + taps - 1).double(), torch.randn(taps).double()
    direct = torch.stack([signal[k : k + taps] @ kernel for k in range(outputs)])
    assert torch.allclose(at @ ((g @ kernel) * (bt @ signal)), direct)
    assert torch.equal(bt, bt.round())


@pytest.mark.parametrize("matrix", cook_toom(4, 3, (0, 1, -1, 2, -2))[::2])
def test_combine(matrix):
    torch.manual_seed(0)
    inputs, outputs = torch.randn(matrix.shape[1], 5), torch.full((len(matrix), 5), torch.nan)
    combine(matrix.tolist(), inputs, outputs)
    assert close(outputs, matrix.float() @ inputs)


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (54, 54)])
def test_strided_plane_convolution(size):
    torch.manual_seed(0)
    x = torch.randn(3, 8, *size).contiguous(memory_format=torch.channels_last)
    conv = torch.nn.Conv2d(8, 12, 5, stride=2, padding=1).requires_grad_(False)
    assert close(StridedPlaneConvolution(conv)(x), conv(x))


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_parallel_streams_keep_order(threads):
    """For any number of threads, which does not change."""
    before = torch.get_num_threads()

    def work(item):
        time.sleep(0.01 * (item % 3))
        return item, torch.get_num_threads()

    try:
        torch.set_num_threads(threads)
        found = list(in_parallel(work, iter(range(10)), CPU))
        assert [item for item, _ in found] == list(range(10))
        assert {share for _, share in found} == {max(1, threads // MAX_WORKERS)}
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_parallel_streams_raise_errors():
    def work(item):
        if item == 3:
            raise OSError(28, "No space left on device")
        return item

    found = in_parallel(work, itertools.count(), CPU)
    with pytest.raises(OSError, match="No space left"):
        list(found)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (13, 13), (33, 7)])
def test_plane_convolution(size):
    torch.manual_seed(0)
    x = torch.randn(3, 16, *size).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(24, 16, 3, 3), torch.randn(24)
    assert close(PlaneConvolution(weight, bias)(x), F.conv2d(x, weight, bias, padding=1))


def test_plane_convolution_of_many_images():
    """More images than are computed together."""
    torch.manual_seed(0)
    x = torch.randn(50, 4, 17, 31).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(4, 4, 3, 3), torch.randn(4)
    assert close(PlaneConvolution(weight, bias)(x), F.conv2d(x, weight, bias, padding=1))


def test_time_convolution(syncnet):
    conv, pool, *_ = folded(syncnet.netcnnlip)
    frames = clip(TIME_OUTPUTS + WINDOW_FRAMES - 1)
    exact = F.conv3d(stacked(frames).double(), conv.weight.double(), conv.bias.double(), (1, 2, 2))
    exact = F.max_pool3d(exact, (1, 3, 3), (1, 2, 2)).squeeze(2)
    ours = TimeConvolution(conv, pool)(torch.from_numpy(frames).float())
    assert ours.shape == exact.shape
    assert (ours - exact).abs().max() < 3e-5 * exact.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu(syncnet):
    cuda = torch.device("cuda")
    frames = clip(10)
    cpu = FastSyncNet(syncnet, CPU).video_features(frames)
    assert (FastSyncNet(syncnet, cuda).video_features(frames).cpu() - cpu).abs().max() < 1e-4 * cpu.abs().max()
    torch.manual_seed(0)
    net = S3FDNet(0.5).eval()
    images = torch.rand(2, 3, 70, 101) * 255 - 110
    plain = net(images)
    for gpu, expected in zip(FastS3FD(net, cuda)(images.to(cuda)), plain):
        assert (gpu.cpu() - expected).abs().max() < 1e-3
