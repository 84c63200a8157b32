"""The padded starter weights of the benchmarks: the same function at the published size."""

import pytest
import torch

from benchmarks import padding
from detectors.s3fd.nets import S3FDNet
from syncnet.models.weights import ROOT, S3FD, SYNCNET, load_s3fd, load_syncnet
from SyncNetModel import AUDIO_WINDOW, LIP_WINDOW, S

EXACT = {"rtol": 1e-4, "atol": 1e-4}  # longer sums, of zeros, in another order


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return padding.write_padded(tmp_path_factory.mktemp("padded"))


def starter(spec):
    return ROOT / spec.starter


@torch.no_grad()
def test_a_padded_detector_predicts_the_same(files):
    wide, plain = load_s3fd(files[0])[0], load_s3fd(starter(S3FD))[0]
    assert [p.shape for p in wide.parameters()] == [p.shape for p in S3FDNet().parameters()]
    image = torch.randint(-120, 130, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0)).float()
    for found, expected in zip(wide(image), plain(image)):
        torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_a_padded_syncnet_gives_the_same_features(files):
    wide, plain = load_syncnet(files[1])[0], load_syncnet(starter(SYNCNET))[0]
    assert [p.shape for p in wide.parameters()] == [p.shape for p in S().parameters()]
    draw = torch.Generator().manual_seed(0)
    lips = torch.randint(0, 256, (1, *LIP_WINDOW), generator=draw).float()
    sound = torch.randn((1, *AUDIO_WINDOW), generator=draw) * 10
    torch.testing.assert_close(wide.forward_lip(lips), plain.forward_lip(lips), **EXACT)
    torch.testing.assert_close(wide.forward_aud(sound), plain.forward_aud(sound), **EXACT)
