"""Held-out report of a sync network: offsets, whether they follow shifts, confidence against the published one.

    python -m training.syncnet.evaluate --data FACES --weights data/starter/syncnet.pt

scores the held-out clips as run_syncnet would (the suite's own ``SyncNetInstance`` on the clips' files) and prints
a JSON report. The functions of this module score clips that are already decoded; the trainer uses them.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn import functional

from syncnet.defaults import VSHIFT
from training import common
from training.syncnet.clips import SAMPLES_PER_FRAME, VERSIONS, delayed, mfcc, mfcc_windows
from training.syncnet.half_lip import windows_of

CHUNK = 256  # windows at a time
TRUSTED = 3.0  # published confidence from which its offset is taken for right
REPORTED_SHIFTS = (-7, 4)  # frames by which the sound of every held-out clip is moved in a report


@dataclass(frozen=True)
class Score:
    """What scoring gives for one clip: an offset in frames and two distances."""

    offset: int
    confidence: float
    min_dist: float


class Squares(NamedTuple):
    """Squared distances of a clip's raw features: windows x 31, True where beyond the ends of the sound."""

    values: torch.Tensor
    beyond: torch.Tensor


def lag_squares(video, audio):
    """Windows x D features of both streams -> ``Squares``; the sound beyond the ends is zero."""
    count = len(video)
    padded = functional.pad(audio, (0, 0, VSHIFT, VSHIFT))
    lags = padded.unfold(0, 2 * VSHIFT + 1, 1).transpose(1, 2)
    columns = torch.arange(count)[:, None] + torch.arange(-VSHIFT, VSHIFT + 1)
    return Squares((video[:, None] - lags).square().sum(2), (columns < 0) | (columns >= count))


def score(squares, *, scale=1.0, floor=0.0, beyond=0.0):
    """``Squares`` -> Score, with the distances calibrated as ``half_lip.full_state`` does."""
    constant = torch.where(squares.beyond, beyond**2, floor**2)
    curve = (squares.values * scale**2 + constant).sqrt().mean(0)
    best = int(curve.argmin())
    return Score(VSHIFT - best, float(curve.median() - curve[best]), float(curve[best]))


@torch.inference_mode()
def video_features(net, frames, count, device):
    """T x 112 x 112 -> count x D."""
    frames = torch.from_numpy(np.array(frames))
    chunks = torch.arange(count).split(CHUNK)
    return torch.cat([net.forward_lip(windows_of(frames, places).to(device)).float().cpu() for places in chunks])


@torch.inference_mode()
def audio_features(net, audio, count, device):
    """int16 samples -> count x D."""
    windows = torch.from_numpy(np.ascontiguousarray(mfcc_windows(mfcc(audio), count)))
    return torch.cat([net.forward_aud(part.to(device)).float().cpu() for part in windows.split(CHUNK)])


def clip_squares(net, clip, device="cpu", shifts=(0,)):
    """{shift: ``lag_squares``} of a clip with its sound moved later by so many frames."""
    video = video_features(net, clip.frames[VERSIONS[0]], clip.windows, device)
    return {
        shift: lag_squares(
            video, audio_features(net, delayed(clip.audio, shift * SAMPLES_PER_FRAME), clip.windows, device)
        )
        for shift in shifts
    }


def score_clips(net, clips, device="cpu", *, shifts=(), **calibration):
    """Per clip: (Score, {shift: Score} with the sound moved later by ``shift`` frames).

    calibration: keyword arguments of ``score``.
    """
    results = []
    for clip in clips:
        squares = clip_squares(net, clip, device, (0, *shifts))
        found = {shift: score(s, **calibration) for shift, s in squares.items()}
        results.append((found.pop(0), found))
    return results


def _share(values):
    return float(np.mean(values)) if len(values) else float("nan")


def report(clips, results):
    """Figures of scored clips as a dict; shares are 0 .. 1.

    ``within_1``, ``exact`` and ``sure_follows_shift`` are about clips whose published confidence is at least
    ``TRUSTED``; ``others_within_1`` is about single faces without a published score, ``others_sure_within_1`` about
    those of them whose own confidence is at least ``TRUSTED``: nobody knows which of them are in step.
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


def by_source(clips, results):
    """{source: clips, share within one frame, mean confidence, offsets}: where a network fails."""
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


def score_files(instance, rows, data, shifts):
    """As ``score_clips``, by the suite itself on the files of ``rows``; moved sound is written to a file of its own."""
    from training.syncnet.clips import clip_of, move_sound

    clips, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for row in rows:
            clip, path = clip_of(row), Path(data) / "clips" / row["clip"]
            found = {}
            for shift in (0, *shifts):
                moved = folder / "moved.mkv"
                move_sound(path, moved, (shift + clip.extra["early"]) * SAMPLES_PER_FRAME)
                found[shift] = _score_file(instance, moved, folder / "scratch")
            clips.append(clip)
            results.append((found.pop(0), found))
    return clips, results


def get_parser():
    parser = argparse.ArgumentParser(description="Held-out report of a sync network.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    parser.add_argument("--weights", default="data/starter/syncnet.pt", help="weights in S's layout")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--clip", action="append", default=[], help="also score this face clip; may be repeated")
    return parser


@common.command
def main(args):
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
