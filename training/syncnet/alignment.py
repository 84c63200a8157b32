"""Which clips to train on are out of step, by a network trained on all of them as if none were.

    python -m training.syncnet.alignment --data FACES --cache ~/syncnet/cache --weights ~/syncnet/syncnet.pt \\
        --output ~/syncnet/alignment.json
    python -m training.syncnet.train ... --alignment ~/syncnet/alignment.json

Clips without a published score are taken to be in step, but the models that made them do not always see to it.
A few wrong ones among many right ones are not learned at first: the network finds their own offset against what it was
told (learning from noisy labels; Arpit et al., "A closer look at memorization in deep networks", ICML 2017, section 3).
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2

from syncnet.results.step_files import save_json
from training import common
from training.syncnet.clips import load_clips, realigned
from training.syncnet.evaluate import clip_squares, score
from training.syncnet.half_lip import load_half
from training.syncnet.sync_loss import trust

IN_STEP = 1  # frames that an estimate may be off by itself
SURE = 4.0  # confidence from which an estimated offset is undone, or the face of several is the speaker's
LARGEST_OFFSET = 8  # estimates beyond are taken for wrong


def aligned(clips, offsets):
    """Clips with their estimated offset undone and with the weight that its confidence gives them.

    Clips with a published score stay as they are.

    Args:
        offsets: {clip name: (offset in frames, confidence)}.
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


def read_alignment(path):
    """{clip name: (offset, confidence)} of a file that ``main`` wrote."""
    try:
        return {name: (int(offset), float(sure)) for name, (offset, sure) in json.loads(Path(path).read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise common.TrainingError(
            f"{path}: not a file of training.syncnet.alignment ({type(error).__name__})"
        ) from error


def estimate(net, clips, **calibration):
    """{clip name: (offset, confidence)} of every clip."""
    found = {clip.name: score(clip_squares(net, clip)[0], **calibration) for clip in clips}
    return {name: (own.offset, own.confidence) for name, own in found.items()}


def get_parser():
    parser = argparse.ArgumentParser(description="Estimate the offsets of the clips to train on.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    parser.add_argument("--cache", required=True, help="folder of decoded clips")
    parser.add_argument("--weights", required=True, help="weights in S's layout, calibrated")
    parser.add_argument("--output", required=True, help="JSON file to write")
    return parser


@common.command
def main(args):
    cv2.setNumThreads(1)
    net, calibration = load_half(args.weights)
    rows, _ = common.split_by_person(common.read_index(args.data))
    clips = [c for c in load_clips(args.data, rows, args.cache) if c.offset is None]
    found = estimate(net, clips, **calibration)
    save_json(found, Path(args.output))
    moved = sum(abs(offset) > IN_STEP and sure >= SURE for offset, sure in found.values())
    print(f"{len(found)} clips, {moved} of them surely out of step: {args.output}")


if __name__ == "__main__":
    sys.exit(main())
