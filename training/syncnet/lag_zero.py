"""Measure the zero of the lag: what SyncNet's weights measure where sound and picture are in step.

    python -m training.syncnet.lag_zero --videos FOLDER --initial_model weights.pt
    python -m training.syncnet.lag_zero --rendered 40

The zero is where the training material called itself in step, so every file of weights has its own. It is the mean lag
of videos known to be in step: face crops of 224x224 at 25 frames per second, or rendered people that the starter was
not trained on. It is written beside the weights (of the suite's own: to data/starter/lag_zero.json), where direct mode
finds it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from syncnet import reasons
from syncnet.constants import WINDOW_FRAMES
from syncnet.defaults import BATCH_SIZE, VSHIFT
from syncnet.errors import MediaError
from syncnet.media.frames import decode_frames
from syncnet.models.weights import KNOWN_ZEROS, ROOT, SYNCNET, Weights, known_zeros, zero_file
from syncnet.results.layout import new_file
from syncnet.sync import lag, scoring
from SyncNetInstance import SyncNetInstance, checked_frame
from training import common
from training.face.talking_face import render_clip
from training.syncnet.clips import read_audio

FIRST_RENDERED = 9000  # training renders lower seeds
RENDERED_SECONDS = 10.0
FEWEST_VIDEOS = 2


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", type=Path, metavar="FOLDER", help="folder of videos that are known to be in step")
    source.add_argument("--rendered", type=int, metavar="N", help="use N rendered people instead")
    parser.add_argument("--initial_model", type=Path, help="SyncNet's weights (default: as run_syncnet)")
    parser.add_argument("--output", type=Path, help="file to write (default: the place where direct mode looks)")
    return parser


def video_features(net: SyncNetInstance, frames: np.ndarray) -> torch.Tensor:
    """Return the features of all windows of N x 224 x 224 x 3 frames."""
    overlap = WINDOW_FRAMES - 1
    starts = range(0, len(frames) - overlap, BATCH_SIZE)
    return torch.cat([net.net.video_features(frames[at : at + BATCH_SIZE + overlap]) for at in starts])


def audio_features(net: SyncNetInstance, samples: np.ndarray) -> torch.Tensor:
    """Return the features of all windows of int16 samples at 16 kHz."""
    windows = scoring.audio_windows(samples)
    starts = range(0, len(windows), BATCH_SIZE)
    return torch.cat([net.net.audio_features(windows[at : at + BATCH_SIZE]) for at in starts])


def lag_of(net: SyncNetInstance, frames: np.ndarray, samples: np.ndarray) -> tuple[float, lag.Lag]:
    """Return confidence and lag, without a zero, of a face crop.

    Args:
        net: SyncNet.
        frames: N x 224 x 224 x 3, uint8, BGR, 25 per second.
        samples: int16 at 16 kHz.

    Raises:
        MediaError: it is too short.
    """
    needed = WINDOW_FRAMES + 1
    usable = min(len(frames), scoring.audio_frames(samples))
    if usable < needed:
        raise MediaError(reasons.too_short(frames=usable, needed=needed).text, code=reasons.TOO_SHORT)
    video, audio = video_features(net, frames), audio_features(net, samples)
    video = video[: len(audio)]
    dists = scoring.distances(video, audio, vshift=VSHIFT)
    score = scoring.score(dists, video_frames=len(frames), audio_frames=scoring.audio_frames(samples))
    return score.confidence, lag.measure(dists, audio=range(len(audio)))


def videos(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, frames and samples of every face crop in a folder."""
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        frames = [checked_frame(image, path) for image in decode_frames(path)]
        if frames:
            yield path.name, np.stack(frames), read_audio(path)


def rendered(count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, frames and samples of rendered people."""
    for seed in range(FIRST_RENDERED, FIRST_RENDERED + count):
        clip = render_clip(seed, RENDERED_SECONDS)
        yield f"rendered person {seed}", clip.frames, clip.audio


def write_zero(path: Path, weights: Weights, lags: Sequence[float]) -> None:
    """Write the zero of some weights to a file that may know others; see ``weights.lag_zero``."""
    known = known_zeros(path) if path.is_file() else {}
    known[weights.sha256] = {
        "weights": weights.name,
        "zero_ms": round(float(np.mean(lags)), 2),
        "spread_ms": round(float(np.std(lags, ddof=1)), 2),
        "videos": len(lags),
    }
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


@common.command
def main(args: argparse.Namespace) -> None:
    net = SyncNetInstance()
    net.loadParameters(args.initial_model)
    weights = net.weights
    lags = []
    for name, frames, samples in videos(args.videos) if args.videos else rendered(args.rendered):
        confidence, found = lag_of(net, frames, samples)
        counts = confidence >= reasons.SURE_CONFIDENCE
        note = "" if counts else ": not counted"
        print(f"{name}: {found.ms:.1f} +- {found.error_ms:.1f} ms, confidence {confidence:.2f}{note}")
        if counts:
            lags.append(found.ms)
    if len(lags) < FEWEST_VIDEOS:
        raise common.TrainingError(
            f"{args.videos or 'rendered people'}: {len(lags)} videos of confidence {reasons.SURE_CONFIDENCE:g} or "
            f"more, at least {FEWEST_VIDEOS} are needed: give more videos that are in step"
        )
    path = args.output or default_file(weights)
    write_zero(path, weights, lags)
    print(f"zero {np.mean(lags):.1f} ms, spread {np.std(lags, ddof=1):.1f} ms, {len(lags)} videos: {path}")


def default_file(weights: Weights) -> Path:
    """Return the file in which direct mode looks for the zero of some weights."""
    starter = ROOT / SYNCNET.starter
    return starter.with_name(KNOWN_ZEROS) if Path(weights.path).resolve() == starter else zero_file(weights)


if __name__ == "__main__":
    sys.exit(main())
