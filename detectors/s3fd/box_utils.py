"""Priors, decoding and non-maximum suppression of S3FD, over arrays instead of single boxes."""

from functools import lru_cache

import cv2
import numpy as np
import torch

STEPS = (4, 8, 16, 32, 64, 128)  # pixels between two priors, per feature map
SIZES = (16, 32, 64, 128, 256, 512)  # side of the priors in pixels, per feature map
VARIANCES = (0.1, 0.2)  # scale of the predicted centres and sizes


def map_sizes(height, width):
    """(rows, columns) of the six feature maps for an input of height x width pixels."""
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
def prior_boxes(height, width, device="cpu"):
    """Priors of an input of height x width pixels.

    Returns:
        P x 4 tensor: centre x, centre y, width, height, as fractions of the input; the order of ``S3FDNet``'s output.
    """
    priors = []
    for (rows, columns), step, size in zip(map_sizes(height, width), STEPS, SIZES):
        y, x = np.mgrid[0:rows, 0:columns].reshape(2, -1) + 0.5
        ones = np.ones_like(x)
        priors.append(np.stack([x * step / width, y * step / height, ones * size / width, ones * size / height], 1))
    return torch.from_numpy(np.concatenate(priors).astype(np.float32)).to(device)


def decode(locations, priors):
    """Predicted offsets and their priors (both ... x 4) -> boxes x1 y1 x2 y2 as fractions of the input."""
    centres = priors[..., :2] + locations[..., :2] * VARIANCES[0] * priors[..., 2:]
    sizes = priors[..., 2:] * torch.exp(locations[..., 2:] * VARIANCES[1])
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def nms(boxes, scores, threshold, *, top_k=0):
    """Non-maximum suppression: of boxes that overlap by an IoU above ``threshold`` the best stays.

    Args:
        boxes: N x 4 array, x1 y1 x2 y2.
        scores: N array, all above 0.
        threshold: IoU.
        top_k: only so many of the best boxes take part; 0 for all.

    Returns:
        Indices of the boxes that stay, best first.
    """
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    rectangles = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(rectangles, np.asarray(scores, np.float32), 0.0, threshold, top_k=top_k)
    return np.asarray(kept, dtype=int).reshape(-1)
