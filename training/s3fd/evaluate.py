"""Score a face detector on held-out people and on images without a face, as run_pipeline would use it.

    python -m training.s3fd.evaluate --data FACES [--weights data/starter/s3fd.pt]

A face counts as found if a detection scored above run_pipeline's threshold has an IoU of at least 0.5 with it, in an
image of the size that run_pipeline would pass to the network. Recall and precision cover faces of 100 pixels and more
in the original video; a detection that matches a smaller or ambiguous box counts neither as right nor as wrong.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch

from detectors import S3FD
from syncnet.defaults import FACEDET_SCALE, MIN_FACE_SIZE
from syncnet.faces.detect import CONFIDENCE
from training.common import command
from training.s3fd.frames import Frame, distort, faceless_crop, load_frames, synthetic_image

MATCH_IOU, AMBIGUOUS_IOU = 0.5, 0.2
FACELESS_SIDE = 256
CONFIDENCES = (0.5, 0.7, 0.8, CONFIDENCE, 0.95)  # thresholds to report at


class FaceDetector(Protocol):
    """A detector of one image at a time."""

    def detect_faces(self, image: np.ndarray, conf_th: float = 0.8, scales: Sequence[float] = (1,)) -> np.ndarray:
        """Return the faces of an H x W x 3 RGB image: N x 5, with x1, y1, x2, y2, score."""


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU, N x M, of every box (N x 4) with every other box (M x 4)."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    far = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(far - corner, 0, None).prod(axis=2)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def score_frame(found: np.ndarray, frame: Frame, scale: float) -> dict:
    """Compare detections with the boxes of a frame.

    Args:
        found: N x 4 detections in pixels of the frame.
        frame: The frame.
        scale: Pixels of the original video per pixel of the frame.

    Returns:
        ``faces`` (number of boxes large enough), ``found`` (of them), ``wrong`` (large detections on no box),
        ``wrong_small`` (small detections on no box) and ``ious`` of the found faces.
    """
    sizes = (frame.boxes[:, 2:] - frame.boxes[:, :2]).max(axis=1, initial=0) * scale
    large = (sizes >= MIN_FACE_SIZE) & frame.trusted
    iou = overlaps(found, frame.boxes)
    best = iou.max(axis=0, initial=0)[large]
    stray = iou.max(axis=1, initial=0) < AMBIGUOUS_IOU
    small = (found[:, 2:] - found[:, :2]).max(axis=1, initial=0) * scale < MIN_FACE_SIZE
    right = best >= MATCH_IOU
    return {
        "faces": int(large.sum()),
        "found": int(right.sum()),
        "wrong": int((stray & ~small).sum()),
        "wrong_small": int((stray & small).sum()),
        "ious": best[right].tolist(),
    }


def detect_all(
    detector: FaceDetector,
    frames: Iterable[Frame],
    *,
    confidence: float = CONFIDENCE,
    facedet_scale: float = FACEDET_SCALE,
) -> list[tuple[Frame, np.ndarray]]:
    """Detect faces in all frames that have boxes and a known scale.

    Args:
        detector: The detector.
        frames: The frames.
        confidence: Threshold of the detections.
        facedet_scale: Scale of detection relative to the original video, as in run_pipeline.

    Returns:
        The frames with their detections, N x 5.
    """
    frames = [frame for frame in frames if len(frame.boxes) and not np.isnan(frame.scale)]
    scales = [frame.scale * facedet_scale for frame in frames]
    return [(f, detector.detect_faces(f.image, conf_th=confidence, scales=[s])) for f, s in zip(frames, scales)]


def summarise(
    detections: Sequence[tuple[Frame, np.ndarray]], *, confidence: float = CONFIDENCE
) -> dict[str, int | float]:
    """Return recall, precision and mean IoU, as defined in the module, with the counts they come from.

    Args:
        detections: What ``detect_all`` returned.
        confidence: Threshold of the detections that count.
    """
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


def evaluate(detector: FaceDetector, frames: Iterable[Frame]) -> dict[str, int | float]:
    """Return recall, precision and mean IoU over frames, at run_pipeline's defaults."""
    return summarise(detect_all(detector, frames))


def faceless_images(frames: Iterable[Frame], *, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield images without a face, alternately synthetic and from the frames' rooms with the faces covered.

    Args:
        frames: Frames to take the rooms from.
        count: Number of images.
        seed: Seed.
    """
    rng = np.random.default_rng(seed)
    frames = [f for f in frames if len(f.boxes)]
    for index in range(count):
        if index % 2 or not frames:
            yield distort(rng, synthetic_image(rng, FACELESS_SIDE))
        else:
            yield distort(rng, faceless_crop(rng, frames[rng.integers(len(frames))], FACELESS_SIDE))


def false_detections(
    detector: FaceDetector, images: Iterable[np.ndarray], *, confidence: float = CONFIDENCE
) -> np.ndarray:
    """Return the scores of the detections in images without a face."""
    scores = [detector.detect_faces(image, conf_th=confidence)[:, 4] for image in images]
    return np.concatenate([np.zeros(0), *scores])


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with frames/, boxes.jsonl and index.tsv")
    parser.add_argument("--weights", help="weights to score (default: as in run_pipeline)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--faceless", type=int, default=1000, help="number of images without a face (default: %(default)s)"
    )
    return parser


@command
def main(args: argparse.Namespace) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(args.threads)
    held_out = load_frames(args.data)[1]
    detector = S3FD(device=args.device, weights=args.weights)
    detections = detect_all(detector, held_out, confidence=CONFIDENCES[0])
    images = faceless_images(held_out, count=args.faceless)
    false_scores = false_detections(detector, images, confidence=CONFIDENCES[0])
    for confidence in CONFIDENCES:
        result = summarise(detections, confidence=confidence)
        print(
            f"confidence {confidence}: recall {result['recall']:.4f} precision {result['precision']:.4f} "
            f"IoU {result['iou']:.3f} ({result['faces']} faces, {result['frames']} frames), small strays "
            f"{result['wrong_small']}, false detections {(false_scores > confidence).sum()} in {args.faceless} "
            "faceless images"
        )


if __name__ == "__main__":
    sys.exit(main())
