"""Batches for the face detector's trainer: crops of frames, and the targets of the priors.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017: matching with scale compensation (section
3.2).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from detectors.s3fd import PIXEL_MEANS
from detectors.s3fd.box_utils import VARIANCES, prior_boxes
from training import common
from training.s3fd.evaluate import overlaps
from training.s3fd.frames import Frame, distort, face_crop, faceless_crop, occlude, synthetic_image

SIDES = (128, 192, 256, 416)  # sides of the crops in pixels, one size per step
SIDE_SHARES = (0.4, 0.3, 0.22, 0.08)
PIXELS_PER_STEP = 294912  # a batch has about this many pixels, whatever the size of its crops
FACELESS_SHARE, SYNTHETIC_SHARE = 0.1, 0.06  # shares of crops without a face
BACKGROUND_SHARE, OCCLUDED_SHARE = 0.6, 0.1  # of the other crops: in another room; of the faces: partly covered
RENDERED_SHARE = 0.12  # of the crops with a face, if there are rendered frames
MATCH_IOU, WEAK_MATCH_IOU, WANTED_PRIORS = 0.35, 0.1, 5  # section 3.2
AMBIGUOUS_SHARE = 0.3  # a prior overlapping an ambiguous box by more than this is ignored
FACE, BACKGROUND, AMBIGUOUS = 1, 0, -1


def match(faces: np.ndarray, ambiguous: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of the priors of a square image (section 3.2).

    Args:
        faces: N x 4, x1, y1, x2, y2 in pixels.
        ambiguous: M x 4, boxes where a face may or may not be.
        side: Side of the image in pixels.

    Returns:
        P labels (``FACE``, ``BACKGROUND`` or ``AMBIGUOUS``) and P x 4 offsets, meaningful for faces only.
    """
    priors = prior_boxes(side, side).numpy() * side
    centres, sizes = priors[:, :2], priors[:, 2:]
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    labels = np.full(len(priors), BACKGROUND)
    if len(ambiguous):
        near = np.maximum(corners[:, None, :2], ambiguous[None, :, :2])
        far = np.minimum(corners[:, None, 2:], ambiguous[None, :, 2:])
        common_area = np.clip(far - near, 0, None).prod(axis=2)
        inside = common_area / sizes.prod(axis=1, keepdims=True) > AMBIGUOUS_SHARE
        labels[(inside | (overlaps(corners, ambiguous) > AMBIGUOUS_SHARE)).any(axis=1)] = AMBIGUOUS
    if not len(faces):
        return labels, np.zeros((len(priors), 4))
    iou = overlaps(corners, faces)
    owner, best = iou.argmax(axis=1), iou.max(axis=1)
    taken = best >= MATCH_IOU
    for face in range(len(faces)):  # scale compensation: faces between two prior sizes also get the nearest priors
        if (taken & (owner == face)).sum() < WANTED_PRIORS:
            nearest = np.argsort(-iou[:, face], kind="stable")[:WANTED_PRIORS]
            nearest = nearest[(iou[nearest, face] > WEAK_MATCH_IOU) & (~taken[nearest] | (owner[nearest] == face))]
            taken[nearest], owner[nearest] = True, face
    labels[taken] = FACE
    own = faces[owner]
    shift = ((own[:, :2] + own[:, 2:]) / 2 - centres) / (VARIANCES[0] * sizes)
    growth = np.log(np.maximum(own[:, 2:] - own[:, :2], 1) / sizes) / VARIANCES[1]
    return labels, np.concatenate([shift, growth], axis=1)


class Batches:
    """Draws batches of crops, first a person and then one of their frames, so that long videos do not dominate.

    Args:
        frames: Frames to train on.
        seed: Seed of the batches.
        rendered: Rendered frames to mix in.

    Raises:
        TrainingError: No frame has a face.
    """

    def __init__(self, frames: Iterable[Frame], *, seed: int, rendered: Sequence[Frame] = ()) -> None:
        self.seed, self.rendered = seed, rendered
        persons = {}
        for frame in frames:
            if frame.trusted.any():
                persons.setdefault(frame.person, []).append(frame)
        if not persons:
            raise common.TrainingError("no training frame has a face; give other frames with --data")
        self.persons = [persons[name] for name in sorted(persons)]
        shares = np.sqrt([len(p) for p in self.persons])
        self.shares = shares / shares.sum()

    def frame(self, rng: np.random.Generator) -> Frame:
        """Draw a frame of a random person."""
        person = self.persons[rng.choice(len(self.persons), p=self.shares)]
        return person[rng.integers(len(person))]

    def crop(self, rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw an image (side x side x 3, uint8, RGB), its faces (N x 4) and its ambiguous boxes (M x 4)."""
        nothing = np.zeros((0, 4))
        chance = rng.random()
        if chance < SYNTHETIC_SHARE:
            return synthetic_image(rng, side), nothing, nothing
        if chance < SYNTHETIC_SHARE + FACELESS_SHARE:
            return faceless_crop(rng, self.frame(rng), side), nothing, nothing
        background = None
        if rng.random() < BACKGROUND_SHARE:
            background = faceless_crop(rng, self.frame(rng), side)
        rendered = self.rendered and rng.random() < RENDERED_SHARE
        frame = self.rendered[rng.integers(len(self.rendered))] if rendered else self.frame(rng)
        image, faces, ambiguous = face_crop(rng, frame, side, background)
        for box in faces:
            if rng.random() < OCCLUDED_SHARE:
                occlude(rng, image, box)
        return image, faces, ambiguous

    def draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the batch of a step.

        Returns:
            Pixels minus their means (N x 3 x H x W, float32), labels (N x P) and offsets (N x P x 4, float32).
        """
        rng = common.step_generator(self.seed, step)
        side = int(rng.choice(SIDES, p=SIDE_SHARES))
        crops = [self.crop(rng, side) for _ in range(max(2, PIXELS_PER_STEP // side**2))]
        images = np.stack([distort(rng, image) for image, _, _ in crops])
        labels, offsets = zip(*(match(faces, ambiguous, side) for _, faces, ambiguous in crops))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() - torch.tensor(PIXEL_MEANS)[:, None, None]
        return pixels, torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(offsets)).float()
