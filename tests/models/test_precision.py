"""The networks in bfloat16, and float32 that stays float32; tensors instead of arrays."""

import copy

import av
import cv2
import numpy as np
import pytest
import torch
from test_networks import CPU, clip, randomised

from detectors import S3FD
from detectors.s3fd import SMALLEST_SIDE, Detector
from syncnet.defaults import BFLOAT16, FLOAT32
from syncnet.errors import UsageError
from syncnet.models.devices import check_precision, full_float32
from syncnet.models.fast import FastS3FD, FastSyncNet
from syncnet.models.weights import ROOT, load_s3fd
from SyncNetInstance import SyncNetInstance
from SyncNetModel import S

STARTER = ROOT / "data" / "starter" / "s3fd.pt"
SCALE = 0.5
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=gpu)]


@pytest.fixture(scope="module")
def syncnet():
    return randomised(S(width=0.125))


@pytest.fixture(scope="module")
def frames():
    """Two frames of the sample at half their size, RGB."""
    with av.open(str(ROOT / "data" / "sample.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(30), container.decode(video=0))]
    return np.stack([cv2.resize(image, None, fx=SCALE, fy=SCALE) for image in images[::29]])


def relative_error(ours, exact):
    return float((ours.cpu() - exact).norm() / exact.norm())


def cpu_with(monkeypatch, *names):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **dict.fromkeys(names, True)})


@pytest.mark.parametrize("device", DEVICES)
def test_features_in_bfloat16(syncnet, device):
    """They are float32 numbers within 1 %, but not those of float32."""
    audio = np.random.default_rng(1).normal(0, 10, (7, 1, 13, 20)).astype(np.float32)
    # each gets its own network, because layers that need no optimisation are moved to the device as they are
    exact, rounded = (
        FastSyncNet(copy.deepcopy(syncnet), place, precision=precision)
        for place, precision in ((CPU, FLOAT32), (device, BFLOAT16))
    )
    for method, given in (("video_features", clip(7)), ("lip_features", clip(5)), ("audio_features", audio)):
        found, right = getattr(rounded, method)(given), getattr(exact, method)(given)
        assert found.dtype == torch.float32
        assert 1e-4 < relative_error(found, right) < 0.01


@pytest.mark.parametrize("device", DEVICES)
def test_faces_in_bfloat16(frames, device):
    net, _ = load_s3fd(STARTER)
    rounded = Detector(FastS3FD(copy.deepcopy(net), device, precision=BFLOAT16), device)
    exact = Detector(FastS3FD(net, CPU), CPU)
    for found, right in zip(rounded.detect_batch(frames, 0.9), exact.detect_batch(frames, 0.9)):
        assert len(found) == len(right) == 2
        by_place = (rows[rows[:, 0].argsort()] for rows in (found, right))
        np.testing.assert_allclose(*by_place, atol=0.5)


@pytest.mark.parametrize("build", [SyncNetInstance, S3FD])
def test_bfloat16_is_refused_without_instructions(monkeypatch, build):
    cpu_with(monkeypatch)
    with pytest.raises(UsageError, match=r"^--precision bfloat16: .*AVX-512 BF16.*AMX.*--precision float32$"):
        build("cpu", precision=BFLOAT16)


@pytest.mark.parametrize("instruction", INSTRUCTIONS)
def test_bfloat16_is_accepted_with_instructions(monkeypatch, instruction):
    cpu_with(monkeypatch, instruction)
    net = SyncNetInstance("cpu", precision=BFLOAT16)
    net.loadParameters(STARTER.with_name("syncnet.pt"))
    detector = S3FD("cpu", STARTER, precision=BFLOAT16)
    assert net.precision == detector.precision == BFLOAT16
    assert net.net.dtype == detector.net.dtype == torch.bfloat16


def test_precision_that_does_not_exist():
    with pytest.raises(UsageError, match=r"--precision half: .*float32, bfloat16"):
        check_precision("half", CPU)
    with pytest.raises(UsageError, match="mps"):
        check_precision(BFLOAT16, torch.device("mps"))
    assert check_precision(FLOAT32, torch.device("mps")) == FLOAT32


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_give_the_same_as_arrays(syncnet, frames, device):
    net, windows = FastSyncNet(syncnet, device), clip(7)
    assert torch.equal(net.video_features(torch.from_numpy(windows).to(device)), net.video_features(windows))
    detector = S3FD(device, STARTER)
    of_tensor = detector.detect_tensor(torch.from_numpy(frames).to(device), 0.9)
    of_array = detector.detect_batch(frames, 0.9)
    assert [len(rows) for rows in of_tensor] == [2, 2]
    for ours, right in zip(of_tensor, of_array):
        np.testing.assert_array_equal(ours, right)


def test_tensors_too_small_for_a_face():
    images = torch.zeros(3, SMALLEST_SIDE - 1, 100, 3, dtype=torch.uint8)
    assert [rows.shape for rows in S3FD("cpu", STARTER).detect_tensor(images)] == [(0, 5)] * 3


def test_settings_of_float32_are_restored_by_the_last_to_leave():
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "tf32"
        with full_float32:
            with full_float32:
                assert conv.fp32_precision == "ieee"
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("of_the_program", ["high", "medium"])
def test_scores_do_not_depend_on_tf32(syncnet, of_the_program):
    net, windows = FastSyncNet(syncnet, torch.device("cuda")), clip(7)
    before, saved = net.video_features(windows), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(of_the_program)
        assert torch.equal(net.video_features(windows), before)
        assert torch.get_float32_matmul_precision() == of_the_program
    finally:
        torch.set_float32_matmul_precision(saved)
