"""Estimation of the training clips that are out of sync, by a network trained on all of them as if none were.

    python -m training.syncnet.alignment --data FACES --cache ~/syncnet/cache --weights ~/syncnet/syncnet.pt \\
        --output ~/syncnet/alignment.json
    python -m training.syncnet.train ... --alignment ~/syncnet/alignment.json

Clips without a published score are assumed to be in sync, but the models that generated them do not always ensure it.
A network does not learn a few wrong labels among many right ones at first, so its estimate shows the true offset of
the mislabelled clips (Arpit et al., "A closer look at memorization in deep networks", ICML 2017, section 3).
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2

from syncnet.results.step_files import save_json
from training import common
from training.syncnet.clips import Clip, load_clips, realigned
from training.syncnet.evaluate import clip_squares, score
from training.syncnet.half_lip import HalfS, load_half
from training.syncnet.sync_loss import trust

IN_STEP = 1  # frames; error of an estimate that is still in sync
SURE = 4.0  # confidence from which an estimated offset is undone, and one of several faces is taken for the speaker
LARGEST_OFFSET = 8  # frames; larger estimates are taken for wrong


def aligned(clips: Iterable[Clip], offsets: dict[str, tuple[int, float]]) -> list[Clip]:
    """Return the clips with their estimated offsets undone and weighted by the confidence of the estimate.

    Clips with a published score stay as they are.

    Args:
        clips: The clips.
        offsets: By clip name, the AV offset in frames and its confidence.
    """
    return [
        clip if clip.offset is not None or clip.name not in offsets else _aligned(clip, *offsets[clip.name])
        for clip in clips
    ]


def _aligned(clip, offset, confidence):
    sure = confidence >= SURE and abs(offset) <= LARGEST_OFFSET
    if abs(offset) > IN_STEP and sure:
        clip = realigned(clip, offset)
    weight = trust(confidence if sure or abs(offset) <= IN_STEP else 0.0)
    return replace(clip, faces=1 if sure else clip.faces, extra={**clip.extra, "weight": weight})


def read_alignment(path: str | Path) -> dict[str, tuple[int, float]]:
    """Read a file that ``main`` wrote.

    Returns:
        By clip name, the AV offset in frames and its confidence.

    Raises:
        TrainingError: The file cannot be read or is not such a file.
    """
    try:
        return {name: (int(offset), float(sure)) for name, (offset, sure) in json.loads(Path(path).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise common.TrainingError(
            f"{path}: not a file of training.syncnet.alignment ({type(error).__name__}); write one with that command"
        ) from error


def estimate(net: HalfS, clips: Iterable[Clip], **calibration: float) -> dict[str, tuple[int, float]]:
    """Estimate the offset of every clip.

    Args:
        net: Network in evaluation mode.
        clips: The clips.
        **calibration: Keyword arguments of ``evaluate.score``.

    Returns:
        By clip name, the AV offset in frames and its confidence.
    """
    found = {clip.name: score(clip_squares(net, clip)[0], **calibration) for clip in clips}
    return {name: (own.offset, own.confidence) for name, own in found.items()}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Estimate the AV offsets of the training clips.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    parser.add_argument("--cache", required=True, help="folder with the decoded clips")
    parser.add_argument("--weights", required=True, help="calibrated weights in the layout of S")
    parser.add_argument("--output", required=True, help="JSON file to write")
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    net, calibration = load_half(args.weights)
    rows, _ = common.split_by_person(common.read_index(args.data))
    clips = [c for c in load_clips(args.data, rows, args.cache) if c.offset is None]
    found = estimate(net, clips, **calibration)
    save_json(found, Path(args.output))
    moved = sum(abs(offset) > IN_STEP and sure >= SURE for offset, sure in found.values())
    print(f"{len(found)} clips, {moved} of them clearly out of sync: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
