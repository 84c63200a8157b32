"""S3FD, the pipeline's face detector.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from .box_utils import decode, nms, prior_boxes

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXEL_MEANS = (123.0, 117.0, 104.0)  # RGB
CONFIDENCE_FLOOR = 0.05  # candidates with lower scores are dropped first
CANDIDATE_IOU = 0.3
CANDIDATES = 5000
DETECTIONS = 750
SMALLEST_SIDE = 28  # pixels; the trunk's five pooling layers reduce smaller images to nothing
SCALES_IOU = 0.1  # threshold for merging the detections of all scales


class Detector:
    """Face detector that runs S3FD's network.

    Args:
        net: an ``S3FDNet`` or ``FastS3FD``, in evaluation mode, on the device.
        device: device of the network.
        weights: the network's ``syncnet.models.weights.Weights``, for the recipe, or None.
    """

    def __init__(self, net: torch.nn.Module, device: torch.device, weights: Any = None) -> None:
        self.net, self.device, self.weights = net, device, weights

    def detect_faces(self, image: np.ndarray, conf_th: float = 0.8, scales: Sequence[float] = (1,)) -> np.ndarray:
        """Detect faces in an image.

        Args:
            image: H x W x 3 array, uint8, RGB.
            conf_th: return only faces with a higher score.
            scales: factors by which the image is resized before detection; the detections of all scales are merged.

        Returns:
            N x 5 array, float32: x1, y1, x2, y2 in pixels, not clipped to the image, and score; best first.
        """
        return self.detect_batch(image[None], conf_th=conf_th, scales=scales)[0]

    def detect_batch(
        self, images: np.ndarray, conf_th: float = 0.8, scales: Sequence[float] = (1,)
    ) -> list[np.ndarray]:
        """Detect faces in a batch of images.

        Args:
            images: B x H x W x 3 array, uint8, RGB.
            conf_th: as in ``detect_faces``.
            scales: as in ``detect_faces``.

        Returns:
            For each image, an array as returned by ``detect_faces``.
        """
        height, width = images.shape[1:3]
        found = []
        for scale in scales:
            if round(min(height, width) * scale) >= SMALLEST_SIDE:
                resized = torch.from_numpy(np.stack([resize(image, scale) for image in images]))
                found.append(self._candidates(resized, conf_th, size=(width, height)))
        return merged(found, len(images))

    def detect_tensor(self, images: torch.Tensor, conf_th: float = 0.8) -> list[np.ndarray]:
        """Detect faces in a batch of images, as they are; images on the detector's device do not leave it.

        Args:
            images: B x H x W x 3 tensor, uint8, RGB.
            conf_th: as in ``detect_faces``.

        Returns:
            For each image, an array as returned by ``detect_faces``.
        """
        height, width = images.shape[1:3]
        large = min(height, width) >= SMALLEST_SIDE
        return merged([self._candidates(images, conf_th, size=(width, height))] if large else [], len(images))

    @torch.inference_mode()
    def _candidates(self, images: torch.Tensor, conf_th: float, *, size: tuple[int, int]) -> list[np.ndarray]:
        """Detect faces at a single scale.

        Args:
            images: B x H x W x 3 tensor, uint8, RGB.
            conf_th: as in ``detect_faces``.
            size: width and height that the result refers to.

        Returns:
            For each image, an array as returned by ``detect_faces``.
        """
        pixels = images.to(self.device).permute(0, 3, 1, 2).float()
        locations, scores = self.net(pixels - pixels.new_tensor(PIXEL_MEANS)[:, None, None])
        # Suppression starts with the best score, so dropping scores below the threshold first does not change it.
        owners, indices = torch.nonzero(scores > max(conf_th, CONFIDENCE_FLOOR), as_tuple=True)
        priors = prior_boxes(*pixels.shape[2:], str(self.device))
        boxes = decode(locations[owners, indices], priors[indices]) * pixels.new_tensor(size * 2)
        # a single tensor, so that boxes and scores leave the device in one transfer
        rows = torch.cat([boxes, scores[owners, indices, None]], dim=1).cpu().numpy()
        owner_indices = owners.cpu().numpy()
        detections = [rows[owner_indices == index] for index in range(len(images))]
        return [r[nms(r[:, :4], r[:, 4], CANDIDATE_IOU, top_k=CANDIDATES)[:DETECTIONS]] for r in detections]


def merged(found: Sequence[list[np.ndarray]], count: int) -> list[np.ndarray]:
    """Merge the detections of several scales.

    Args:
        found: per scale, an array of detections for each image.
        count: number of images.
    """
    nothing = [np.zeros((0, 5), np.float32)] * count
    rows_of_images = [np.concatenate(parts) for parts in zip(nothing, *found)]
    return [rows[nms(rows[:, :4], rows[:, 4], SCALES_IOU)] for rows in rows_of_images]


def resize(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
