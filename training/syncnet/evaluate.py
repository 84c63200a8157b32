"""Held-out report of a sync network: its offsets, whether they follow shifts, and its confidence.

    python -m training.syncnet.evaluate --data FACES --weights data/starter/syncnet.pt

Scores the held-out clips as run_syncnet would (``SyncNetInstance`` on the clips' files) and prints a JSON report, with
confidence compared to the published network's. The functions of this module score decoded clips; the trainer uses them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from syncnet.defaults import VSHIFT
from training import common
from training.syncnet.clips import SAMPLES_PER_FRAME, VERSIONS, Clip, delayed, mfcc, mfcc_windows
from training.syncnet.half_lip import HalfS, windows_of

if TYPE_CHECKING:
    from SyncNetInstance import SyncNetInstance

CHUNK = 256  # windows per forward pass
TRUSTED = 3.0  # published confidence from which the published offset is taken for right
REPORTED_SHIFTS = (-7, 4)  # frames by which a report delays the audio of every held-out clip


@dataclass(frozen=True)
class Score:
    """Score of one clip.

    Attributes:
        offset: AV offset in frames.
        confidence: Median minus minimum of the mean distances over all shifts.
        min_dist: Minimum of the mean distances.
    """

    offset: int
    confidence: float
    min_dist: float


class Squares(NamedTuple):
    """Squared distances of the raw features of a clip.

    Attributes:
        values: windows x 31, for every shift.
        beyond: windows x 31, True where a shift reaches beyond the ends of the audio.
    """

    values: torch.Tensor
    beyond: torch.Tensor


def lag_squares(video: torch.Tensor, audio: torch.Tensor) -> Squares:
    """Return the squared distances of windows x D features at all shifts; beyond its ends the audio is zero."""
    count = len(video)
    padded = functional.pad(audio, (0, 0, VSHIFT, VSHIFT))
    lags = padded.unfold(0, 2 * VSHIFT + 1, 1).transpose(1, 2)
    columns = torch.arange(count)[:, None] + torch.arange(-VSHIFT, VSHIFT + 1)
    return Squares((video[:, None] - lags).square().sum(2), (columns < 0) | (columns >= count))


def score(squares: Squares, *, scale: float = 1.0, floor: float = 0.0, beyond: float = 0.0) -> Score:
    """Score a clip from its squared distances.

    Args:
        squares: The squared distances.
        scale: See ``half_lip.full_state``.
        floor: See ``half_lip.full_state``.
        beyond: See ``half_lip.full_state``.
    """
    constant = torch.where(squares.beyond, beyond**2, floor**2)
    curve = (squares.values * scale**2 + constant).sqrt().mean(0)
    best = int(curve.argmin())
    return Score(VSHIFT - best, float(curve.median() - curve[best]), float(curve[best]))


@torch.inference_mode()
def video_features(net: HalfS, frames: np.ndarray, count: int, device: str) -> torch.Tensor:
    """Return the features, count x D on the CPU, of the first windows of T x 112 x 112 uint8 frames."""
    frames = torch.from_numpy(np.array(frames))
    chunks = torch.arange(count).split(CHUNK)
    return torch.cat([net.forward_lip(windows_of(frames, places).to(device)).float().cpu() for places in chunks])


@torch.inference_mode()
def audio_features(net: HalfS, audio: np.ndarray, count: int, device: str) -> torch.Tensor:
    """Return the features, count x D on the CPU, of the first windows of int16 samples."""
    windows = torch.from_numpy(np.ascontiguousarray(mfcc_windows(mfcc(audio), count)))
    return torch.cat([net.forward_aud(part.to(device)).float().cpu() for part in windows.split(CHUNK)])


def clip_squares(net: HalfS, clip: Clip, device: str = "cpu", shifts: Iterable[int] = (0,)) -> dict[int, Squares]:
    """Return the squared distances of a clip for every delay of its audio.

    Args:
        net: Network in evaluation mode.
        clip: The clip.
        device: Device of the network.
        shifts: Delays of the audio in frames.
    """
    video = video_features(net, clip.frames[VERSIONS[0]], clip.windows, device)
    return {
        shift: lag_squares(
            video, audio_features(net, delayed(clip.audio, shift * SAMPLES_PER_FRAME), clip.windows, device)
        )
        for shift in shifts
    }


def score_clips(
    net: HalfS, clips: Iterable[Clip], device: str = "cpu", *, shifts: Iterable[int] = (), **calibration: float
) -> list[tuple[Score, dict[int, Score]]]:
    """Score clips as they are and with delayed audio.

    Args:
        net: Network in evaluation mode.
        clips: The clips.
        device: Device of the network.
        shifts: Delays of the audio in frames.
        **calibration: Keyword arguments of ``score``.

    Returns:
        Per clip, its score and its scores by delay.
    """
    results = []
    for clip in clips:
        squares = clip_squares(net, clip, device, (0, *shifts))
        found = {shift: score(s, **calibration) for shift, s in squares.items()}
        results.append((found.pop(0), found))
    return results


def _share(values):
    return float(np.mean(values)) if len(values) else float("nan")


def report(clips: Sequence[Clip], results: Sequence[tuple[Score, dict[int, Score]]]) -> dict[str, int | float]:
    """Summarise scored clips. Shares are 0 to 1.

    ``within_1``, ``exact`` and ``sure_follows_shift`` cover clips whose published confidence is at least ``TRUSTED``.
    ``others_within_1`` covers single faces without a published score, ``others_sure_within_1`` those of them whose own
    confidence is at least ``TRUSTED``. Which of these clips are in sync is unknown.

    Args:
        clips: The clips.
        results: What ``score_clips`` returned for them.
    """
    scores = [own for own, _ in results]
    known = [(c, s) for c, s in zip(clips, scores) if c.confidence is not None]
    sure = [(c, s) for c, s in known if c.confidence >= TRUSTED]
    others = [s for c, s in zip(clips, scores) if c.confidence is None and c.faces == 1]
    others_sure = [s for s in others if s.confidence >= TRUSTED]
    moved = [(clip, own, k, m) for clip, (own, many) in zip(clips, results) for k, m in many.items()]
    follows = [(clip, m.offset == own.offset - k) for clip, own, k, m in moved]
    figures = {
        "clips": len(clips),
        "published_sure": len(sure),
        "within_1": _share([abs(s.offset - c.offset) <= 1 for c, s in sure]),
        "exact": _share([s.offset == c.offset for c, s in sure]),
        "others": len(others),
        "others_within_1": _share([abs(s.offset) <= 1 for s in others]),
        "others_confidence": _share([s.confidence for s in others]),
        "others_sure": len(others_sure),
        "others_sure_within_1": _share([abs(s.offset) <= 1 for s in others_sure]),
        "follows_shift": _share([right for _, right in follows]),
        "sure_follows_shift": _share([right for clip, right in follows if (clip.confidence or 0) >= TRUSTED]),
    }
    if len(known) > 2:
        published = np.array([[c.confidence, c.min_dist] for c, _ in known])
        ours = np.array([[s.confidence, s.min_dist] for _, s in known])
        for column, name in enumerate(("confidence", "min_dist")):
            figures[f"{name}_spearman"] = float(spearmanr(published[:, column], ours[:, column]).statistic)
            figures[f"{name}_error"] = float(np.abs(ours - published)[:, column].mean())
            figures[f"{name}_bias"] = float((ours - published)[:, column].mean())
    return figures


def by_source(clips: Sequence[Clip], results: Sequence[tuple[Score, dict[int, Score]]]) -> dict[str, dict]:
    """Return per source the number of clips, share within one frame, mean confidence and offsets."""
    groups = defaultdict(list)
    for clip, (own, _) in zip(clips, results):
        groups[clip.source].append(own)
    return {
        source: {
            "clips": len(own),
            "within_1": _share([abs(s.offset) <= 1 for s in own]),
            "confidence": _share([s.confidence for s in own]),
            "offsets": [s.offset for s in own],
        }
        for source, own in groups.items()
    }


def _score_file(instance, path, folder):
    found = instance.score(path, folder=folder, print_line=lambda line: None)
    return Score(found.offset, found.confidence, found.min_dist)


def score_files(
    instance: SyncNetInstance, rows: Iterable[dict[str, str]], data: str | Path, shifts: Iterable[int]
) -> tuple[list[Clip], list[tuple[Score, dict[int, Score]]]]:
    """Score the files of clips with the suite itself.

    Args:
        instance: Loaded network of the suite.
        rows: Rows of the index.
        data: Folder with clips/.
        shifts: Delays of the audio in frames; each is written to a temporary file.

    Returns:
        The clips, without frames and audio, and their results as from ``score_clips``.
    """
    from training.syncnet.clips import clip_from_row, shift_audio

    clips, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for row in rows:
            clip, path = clip_from_row(row), Path(data) / "clips" / row["clip"]
            found = {}
            for shift in (0, *shifts):
                moved = folder / "moved.mkv"
                shift_audio(path, moved, (shift + clip.extra["early"]) * SAMPLES_PER_FRAME)
                found[shift] = _score_file(instance, moved, folder / "scratch")
            clips.append(clip)
            results.append((found.pop(0), found))
    return clips, results


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Report the scores of a sync network on held-out clips.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    parser.add_argument("--weights", default="data/starter/syncnet.pt", help="weights in the layout of S")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--clip", action="append", default=[], help="face clip to score as well; may be repeated")
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    from SyncNetInstance import SyncNetInstance

    _, rows = common.split_by_person(common.read_index(args.data))
    instance = SyncNetInstance(device=args.device)
    instance.loadParameters(args.weights)
    with contextlib.redirect_stdout(sys.stderr):
        clips, results = score_files(instance, rows, args.data, REPORTED_SHIFTS)
        with tempfile.TemporaryDirectory() as folder:
            single = {path: vars(_score_file(instance, path, Path(folder) / "scratch")) for path in args.clip}
    print(json.dumps({**report(clips, results), "sources": by_source(clips, results), "single": single}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
