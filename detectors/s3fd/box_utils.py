"""Vectorised prior boxes, box decoding and non-maximum suppression of S3FD."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch

STEPS = (4, 8, 16, 32, 64, 128)  # distance between priors in pixels, per feature map
SIZES = (16, 32, 64, 128, 256, 512)  # side length of the priors in pixels, per feature map
VARIANCES = (0.1, 0.2)  # scale of the predicted centres and sizes


def map_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (rows, columns) of the six feature maps for an input of height x width pixels."""
    half = [(height, width)]
    for layer in range(5):
        rows, columns = half[-1]
        # the third pooling layer rounds up, the others down
        half.append(((rows + 1) // 2, (columns + 1) // 2) if layer == 2 else (rows // 2, columns // 2))
    extras = [half[-1]]
    for _ in range(2):  # 3x3 convolutions with stride 2 and padding 1
        rows, columns = extras[-1]
        extras.append(((rows + 1) // 2, (columns + 1) // 2))
    return [*half[2:5], *extras]


@lru_cache(maxsize=8)
def prior_boxes(height: int, width: int, device: str = "cpu") -> torch.Tensor:
    """Return the priors for an input of height x width pixels.

    Returns:
        P x 4, float32: centre x, centre y, width, height, as fractions of the input; in the order of ``S3FDNet``'s
        output.
    """
    priors = []
    for (rows, columns), step, size in zip(map_sizes(height, width), STEPS, SIZES):
        y, x = np.mgrid[0:rows, 0:columns].reshape(2, -1) + 0.5
        ones = np.ones_like(x)
        priors.append(np.stack([x * step / width, y * step / height, ones * size / width, ones * size / height], 1))
    return torch.from_numpy(np.concatenate(priors).astype(np.float32)).to(device)


def decode(locations: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Decode predicted offsets.

    Args:
        locations: ... x 4, the network's output.
        priors: ... x 4, as returned by ``prior_boxes``.

    Returns:
        ... x 4: x1, y1, x2, y2 as fractions of the input.
    """
    centres = priors[..., :2] + locations[..., :2] * VARIANCES[0] * priors[..., 2:]
    sizes = priors[..., 2:] * torch.exp(locations[..., 2:] * VARIANCES[1])
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, *, top_k: int = 0) -> np.ndarray:
    """Apply non-maximum suppression.

    Args:
        boxes: N x 4: x1, y1, x2, y2.
        scores: (N,), all above 0.
        threshold: remove boxes whose IoU with a better box is higher.
        top_k: consider only this many of the best boxes; 0 for all.

    Returns:
        (K,) indices of the remaining boxes, best first.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    confidences = np.asarray(scores, np.float32)
    kept = cv2.dnn.NMSBoxes(rectangles, confidences, 0.0, threshold, top_k=top_k)  # type: ignore[arg-type]
    return np.asarray(kept, dtype=int).reshape(-1)
