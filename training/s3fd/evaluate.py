"""Score a face detector on the held-out people and on pictures without a face, as run_pipeline would use it.

    python -m training.s3fd.evaluate --data FACES [--weights data/starter/s3fd.pt]

A face counts when it is found with an IoU of at least 0.5 by a detection scored above run_pipeline's threshold, on the
picture at the size that run_pipeline would show to the network. Recall and precision are about faces of 100 pixels and
more in the original video: a detection that matches a smaller or doubtful box is neither right nor wrong.
"""

import argparse
import sys

import cv2
import numpy as np
import torch

from detectors import S3FD
from syncnet.defaults import FACEDET_SCALE, MIN_FACE_SIZE
from syncnet.faces.detect import CONFIDENCE
from training.common import command
from training.s3fd.frames import distort, faceless_crop, load_frames, made_up_picture

MATCH_IOU, DOUBT_IOU = 0.5, 0.2
FACELESS_SIDE = 256
CONFIDENCES = (0.5, 0.7, 0.8, CONFIDENCE, 0.95)  # to report at


def overlaps(boxes, others):
    """IoU of every box (N x 4) with every other (M x 4): N x M."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    far = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.clip(far - corner, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others)]
    return common / (areas[0][:, None] + areas[1][None] - common)


def score_frame(found, frame, scale):
    """Compare detections with a frame's boxes.

    Args:
        found: N x 4 array in the frame's pixels.
        frame: a Frame.
        scale: pixels of the original video to one of the frame.

    Returns:
        dict: ``faces`` (boxes large enough), ``found`` (of them), ``wrong`` (large detections on no box),
        ``wrong_small`` (small ones), ``ious`` of the found.
    """
    sizes = (frame.boxes[:, 2:] - frame.boxes[:, :2]).max(axis=1, initial=0) * scale
    large = (sizes >= MIN_FACE_SIZE) & frame.trusted
    iou = overlaps(found, frame.boxes)
    best = iou.max(axis=0, initial=0)[large]
    stray = iou.max(axis=1, initial=0) < DOUBT_IOU
    small = (found[:, 2:] - found[:, :2]).max(axis=1, initial=0) * scale < MIN_FACE_SIZE
    right = best >= MATCH_IOU
    return {
        "faces": int(large.sum()),
        "found": int(right.sum()),
        "wrong": int((stray & ~small).sum()),
        "wrong_small": int((stray & small).sum()),
        "ious": best[right].tolist(),
    }


def detect_all(detector, frames, *, confidence=CONFIDENCE, facedet_scale=FACEDET_SCALE):
    """(frame, its detections, N x 5) of all frames with boxes and of known scale."""
    frames = [frame for frame in frames if len(frame.boxes) and not np.isnan(frame.scale)]
    scales = [frame.scale * facedet_scale for frame in frames]
    return [(f, detector.detect_faces(f.image, conf_th=confidence, scales=[s])) for f, s in zip(frames, scales)]


def summarise(detections, *, confidence=CONFIDENCE):
    """Recall, precision and mean IoU (see the module) of ``detect_all``'s, those above a confidence."""
    totals = {"faces": 0, "found": 0, "wrong": 0, "wrong_small": 0}
    ious = []
    for frame, rows in detections:
        counts = score_frame(rows[rows[:, 4] > confidence, :4], frame, frame.scale)
        ious += counts.pop("ious")
        totals = {name: totals[name] + counts[name] for name in totals}
    return {
        "recall": totals["found"] / max(1, totals["faces"]),
        "precision": totals["found"] / max(1, totals["found"] + totals["wrong"]),
        "iou": float(np.mean(ious)) if ious else 0.0,
        "frames": len(detections),
        **totals,
    }


def evaluate(detector, frames):
    """Recall, precision and mean IoU over frames, at run_pipeline's defaults."""
    return summarise(detect_all(detector, frames))


def faceless_pictures(frames, *, count, seed=0):
    """``count`` pictures without a face: half made up, half of the frames' rooms, the faces covered."""
    rng = np.random.default_rng(seed)
    frames = [f for f in frames if len(f.boxes)]
    for index in range(count):
        if index % 2 or not frames:
            yield distort(rng, made_up_picture(rng, FACELESS_SIDE))
        else:
            yield distort(rng, faceless_crop(rng, frames[rng.integers(len(frames))], FACELESS_SIDE))


def false_detections(detector, pictures, *, confidence=CONFIDENCE):
    """Scores of the detections on pictures that hold no face."""
    scores = [detector.detect_faces(picture, conf_th=confidence)[:, 4] for picture in pictures]
    return np.concatenate([np.zeros(0), *scores])


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with frames/, boxes.jsonl and index.tsv")
    parser.add_argument("--weights", help="weights to score (default: what the pipeline would use)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default: %(default)s)")
    parser.add_argument("--faceless", type=int, default=1000, help="pictures without a face (default: %(default)s)")
    return parser


@command
def main(args):
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    held_out = load_frames(args.data)[1]
    detector = S3FD(device=args.device, weights=args.weights)
    detections = detect_all(detector, held_out, confidence=CONFIDENCES[0])
    pictures = faceless_pictures(held_out, count=args.faceless)
    false_scores = false_detections(detector, pictures, confidence=CONFIDENCES[0])
    for confidence in CONFIDENCES:
        result = summarise(detections, confidence=confidence)
        print(
            f"confidence {confidence}: recall {result['recall']:.4f} precision {result['precision']:.4f} "
            f"IoU {result['iou']:.3f} ({result['faces']} faces, {result['frames']} frames), small strays "
            f"{result['wrong_small']}, false detections {(false_scores > confidence).sum()} in {args.faceless} "
            "faceless pictures"
        )


if __name__ == "__main__":
    sys.exit(main())
