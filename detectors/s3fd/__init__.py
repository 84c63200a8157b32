"""S3FD, the face detector of the pipeline.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017.
"""

import cv2
import numpy as np
import torch

from .box_utils import decode, nms, prior_boxes

PIXEL_MEANS = (123.0, 117.0, 104.0)  # RGB
CONFIDENCE_FLOOR = 0.05  # candidates below are dropped before anything else
CANDIDATE_IOU = 0.3
CANDIDATES = 5000
DETECTIONS = 750
SMALLEST_SIDE = 28  # pixels; of less the trunk's five poolings leave nothing
SCALES_IOU = 0.1  # between the detections of all scales


class Detector:
    """Find faces with S3FD's network.

    Args:
        net: an ``S3FDNet`` or its fast form, in inference mode, on the device.
        device: the torch device.
        weights: what the network was made from, for the record.
    """

    def __init__(self, net, device, weights=None):
        self.net, self.device, self.weights = net, device, weights

    def detect_faces(self, image, conf_th=0.8, scales=(1,)):
        """Find the faces of one image.

        Args:
            image: H x W x 3 array, uint8, RGB.
            conf_th: only faces scored above.
            scales: factors by which the picture is resized before detection; found faces are merged.

        Returns:
            N x 5 array: x1, y1, x2, y2 in pixels of the picture (not clipped to it), score; best first.
        """
        return self.detect_batch(image[None], conf_th=conf_th, scales=scales)[0]

    def detect_batch(self, images, conf_th=0.8, scales=(1,)):
        """Find the faces of N images of one size: a list of what ``detect_faces`` returns for each."""
        found = zip(*(self._candidates(images, conf_th, scale) for scale in scales))
        merged = (np.concatenate(parts) for parts in found)
        return [rows[nms(rows[:, :4], rows[:, 4], SCALES_IOU)] for rows in merged]

    @torch.inference_mode()
    def _candidates(self, images, conf_th, scale):
        """Detections of one scale: per picture N x 5, as ``detect_faces`` returns them."""
        height, width = images[0].shape[:2]
        if round(min(height, width) * scale) < SMALLEST_SIDE:
            return [np.zeros((0, 5), np.float32)] * len(images)
        pixels = torch.from_numpy(np.stack([resize(image, scale) for image in images])).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2).float()
        locations, scores = self.net(pixels - pixels.new_tensor(PIXEL_MEANS)[:, None, None])
        # Suppression goes from the best down, so what is below the threshold in the end need not take part.
        owners, indices = torch.nonzero(scores > max(conf_th, CONFIDENCE_FLOOR), as_tuple=True)
        priors = prior_boxes(*pixels.shape[2:], str(self.device))
        boxes = decode(locations[owners, indices], priors[indices]) * pixels.new_tensor([width, height] * 2)
        rows = torch.cat([boxes, scores[owners, indices, None]], dim=1).cpu().numpy()  # one trip from the device
        owners = owners.cpu().numpy()
        rows = [rows[owners == index] for index in range(len(images))]
        return [r[nms(r[:, :4], r[:, 4], CANDIDATE_IOU, top_k=CANDIDATES)[:DETECTIONS]] for r in rows]


def resize(image, scale):
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
