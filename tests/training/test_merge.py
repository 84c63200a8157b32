"""Merged sync networks: the squared distance is the mean of the networks'."""

from pathlib import Path

import pytest
import torch
from training_fixtures import randomise

from SyncNetModel import S
from training import common
from training.syncnet import merge
from training.syncnet.half_lip import HalfS, full_state, load_half, width_of


@pytest.fixture
def files(tmp_path):
    """Return the files of two networks of different width with random weights."""
    paths = []
    for width in (0.0625, 0.125):
        paths.append(tmp_path / f"{width}.pt")
        torch.save(full_state(randomise(HalfS(width)), scale=2.0), paths[-1])
    return paths


def features(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return video and audio features of random inputs."""
    net = common.load_weights(path, S(width=width_of(path))).eval()
    generator = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (3, 3, 5, 224, 224), generator=generator).float()
    coefficients = torch.randn(4, 1, 13, 20, generator=generator) * 10
    with torch.no_grad():
        return net.forward_lip(frames).double(), net.forward_aud(coefficients).double()


def test_squared_distance_is_the_mean(files, tmp_path, capsys):
    out = tmp_path / "both.pt"
    assert merge.main([*map(str, files), "--output", str(out)]) == 0
    assert "0.0625 + 0.125 = 0.1875" in capsys.readouterr().out
    assert {v.dtype for v in common.load_checkpoint(out).values()} == {torch.float16, torch.int64}
    found = [features(path) for path in [*files, out]]
    distances = [torch.cdist(video, audio).square() for video, audio in found]
    torch.testing.assert_close(distances[2], (distances[0] + distances[1]) / 2, rtol=0.02, atol=0)
    silence = [video.square().sum(1) for video, _ in found]  # beyond the ends of the audio
    torch.testing.assert_close(silence[2], (silence[0] + silence[1]) / 2, rtol=0.02, atol=0)


def test_constants_are_left_out(tmp_path):
    net, distances = randomise(HalfS(0.0625)), []
    for name, constants in (("without", {}), ("with", {"floor": 3.0, "beyond": 5.0})):
        path, out = tmp_path / f"{name}.pt", tmp_path / f"{name}.merged.pt"
        torch.save(full_state(net, scale=2.0, **constants), path)
        assert merge.main([str(path), "--output", str(out)]) == 0
        distances.append(torch.cdist(*features(out)))
    torch.testing.assert_close(*distances, rtol=0.01, atol=0)


def test_merged_network_can_be_calibrated(files, tmp_path):
    out = tmp_path / "both.pt"
    assert merge.main([*map(str, files), "--output", str(out)]) == 0
    net, calibration = load_half(out)
    torch.save(full_state(net, **calibration), tmp_path / "again.pt")
    for one, two in zip(features(out), features(tmp_path / "again.pt")):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-2)


def test_too_many_networks(files, tmp_path, capsys):
    assert merge.main([str(files[1])] * 8 + ["--output", str(tmp_path / "out.pt")]) == 1
    assert "more than 1023" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


def test_missing_file_is_one_line(tmp_path, capsys):
    assert merge.main(["nowhere.pt", "--output", str(tmp_path / "out.pt")]) == 1
    assert capsys.readouterr().err.startswith("syncnet.merge: error: nowhere.pt: no such file")


def test_other_files_are_refused(tmp_path, capsys):
    path = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(1)}, path)
    assert merge.main([str(path), "--output", str(tmp_path / "out.pt")]) == 1
    message = f"{path}: not weights of the sync network; give a file in the layout of S"
    assert capsys.readouterr().err == f"syncnet.merge: error: {message}\n"
