"""A folder of rendered talking faces in the form that the trainers read."""

import csv
from pathlib import Path

import pytest
import torch
from scipy.io import wavfile

from syncnet.constants import SAMPLE_RATE
from syncnet.media.ffmpeg import Ffmpeg
from training import common
from training.face.talking_face import render_clip
from training.syncnet import clips

SECONDS = 1.6
WIDTH = 0.0625
COLUMNS = (
    "clip", "source", "licence", "kind", "person", "frames", "faces_in_video", "face_px", "shift_applied",
    "published_offset", "published_confidence", "published_min_dist",
)  # fmt: skip


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Return a folder of talking faces with five rendered people and made-up scores."""
    folder = tmp_path_factory.mktemp("faces")
    (folder / "clips").mkdir()
    rows = []
    for seed in range(5):
        clip = render_clip(seed, SECONDS)
        silent, audio = folder / "silent.avi", folder / "audio.wav"
        clips.write_crop(clip.frames, silent)
        wavfile.write(audio, SAMPLE_RATE, clip.audio)
        name = f"person-{seed}-0.avi"
        Ffmpeg(["-i", silent, "-i", audio, "-c", "copy", folder / "clips" / name], source=name).finish()
        known = (4 + seed, 8 - seed)  # confidence and min dist, made up
        values = (name, "rendered", "MIT", "generated", f"person-{seed}", len(clip.frames), 1, 120, 0, 0, *known)
        rows.append(dict(zip(COLUMNS, map(str, values))))
    with (folder / "index.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def loaded(faces) -> list[clips.Clip]:
    """Return the clips of ``faces``."""
    return clips.load_clips(faces, common.read_index(faces), faces / "cache")


def arguments(faces: Path, work: Path, *more: str) -> list[str]:
    """Return the command line of a small training run."""
    return ["--data", str(faces), "--work", str(work), "--cache", str(faces / "cache"), "--width", str(WIDTH),
            "--rendered", "0", "--clips", "2", "--windows", "8", "--precision", "float32", "--threads", "1",
            *more]  # fmt: skip


def randomise(net: torch.nn.Module) -> torch.nn.Module:
    """Give batch norms random parameters, and return the network in evaluation mode."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()
