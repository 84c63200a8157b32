"""Batches for the face detector's trainer: cuts of frames, and what the priors should answer to them.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017: matching with scale compensation (section
3.2).
"""

import numpy as np
import torch

from detectors.s3fd import PIXEL_MEANS
from detectors.s3fd.box_utils import VARIANCES, prior_boxes
from training import common
from training.s3fd.evaluate import overlaps
from training.s3fd.frames import distort, face_crop, faceless_crop, made_up_picture, occlude

SIDES = (128, 192, 256, 416)  # of the cuts in pixels, one size a step
SIDE_SHARES = (0.4, 0.3, 0.22, 0.08)
PIXELS_PER_STEP = 294912  # cuts of any size come in batches of so many pixels
FACELESS_SHARE, MADE_UP_SHARE = 0.1, 0.06  # of the cuts: without a face
BACKGROUND_SHARE, OCCLUDED_SHARE = 0.6, 0.1  # of the other cuts and of the faces: set into another room, partly covered
RENDERED_SHARE = 0.12  # of the cuts with a face, if there are rendered frames
MATCH_IOU, WEAK_MATCH_IOU, WANTED_PRIORS = 0.35, 0.1, 5  # section 3.2
UNKNOWN_SHARE = 0.3  # a prior that lies in an unknown box to that extent is left out
FACE, BACKGROUND, UNKNOWN = 1, 0, -1


def match(faces, unknown, side):
    """What the priors of a square picture should answer.

    Args:
        faces: N x 4 array, x1, y1, x2, y2 in pixels.
        unknown: M x 4 array, boxes where a face may or may not be.
        side: of the picture.

    Returns:
        P labels (FACE, BACKGROUND, UNKNOWN) and P x 4 offsets (those of faces have a meaning).
    """
    priors = prior_boxes(side, side).numpy() * side
    centres, sizes = priors[:, :2], priors[:, 2:]
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    labels = np.full(len(priors), BACKGROUND)
    if len(unknown):
        near = np.maximum(corners[:, None, :2], unknown[None, :, :2])
        far = np.minimum(corners[:, None, 2:], unknown[None, :, 2:])
        common_area = np.clip(far - near, 0, None).prod(axis=2)
        inside = common_area / sizes.prod(axis=1, keepdims=True) > UNKNOWN_SHARE
        labels[(inside | (overlaps(corners, unknown) > UNKNOWN_SHARE)).any(axis=1)] = UNKNOWN
    if not len(faces):
        return labels, np.zeros((len(priors), 4))
    iou = overlaps(corners, faces)
    owner, best = iou.argmax(axis=1), iou.max(axis=1)
    taken = best >= MATCH_IOU
    for face in range(len(faces)):  # scale compensation: a face between two sizes of priors gets the nearest ones too
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
    """Draws batches of cuts: first a person, then a frame of theirs, so that long videos do not dominate."""

    def __init__(self, frames, *, seed, rendered=()):
        self.seed, self.rendered = seed, rendered
        persons = {}
        for frame in frames:
            if frame.trusted.any():
                persons.setdefault(frame.person, []).append(frame)
        if not persons:
            raise common.TrainingError("no frame with a face to train on")
        self.persons = [persons[name] for name in sorted(persons)]
        shares = np.sqrt([len(p) for p in self.persons])
        self.shares = shares / shares.sum()

    def frame(self, rng):
        """A frame of a random person."""
        person = self.persons[rng.choice(len(self.persons), p=self.shares)]
        return person[rng.integers(len(person))]

    def cut(self, rng, side):
        """A picture, its faces, its unknown boxes."""
        nothing = np.zeros((0, 4))
        chance = rng.random()
        if chance < MADE_UP_SHARE:
            return made_up_picture(rng, side), nothing, nothing
        if chance < MADE_UP_SHARE + FACELESS_SHARE:
            return faceless_crop(rng, self.frame(rng), side), nothing, nothing
        background = None
        if rng.random() < BACKGROUND_SHARE:
            background = faceless_crop(rng, self.frame(rng), side)
        rendered = self.rendered and rng.random() < RENDERED_SHARE
        frame = self.rendered[rng.integers(len(self.rendered))] if rendered else self.frame(rng)
        image, faces, unknown = face_crop(rng, frame, side, background)
        for box in faces:
            if rng.random() < OCCLUDED_SHARE:
                occlude(rng, image, box)
        return image, faces, unknown

    def draw(self, step):
        """The batch of a step: N x 3 x H x W pixels less their means, N x P labels, N x P x 4 offsets."""
        rng = common.step_generator(self.seed, step)
        side = int(rng.choice(SIDES, p=SIDE_SHARES))
        cuts = [self.cut(rng, side) for _ in range(max(2, PIXELS_PER_STEP // side**2))]
        images = np.stack([distort(rng, image) for image, _, _ in cuts])
        labels, offsets = zip(*(match(faces, unknown, side) for _, faces, unknown in cuts))
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() - torch.tensor(PIXEL_MEANS)[:, None, None]
        return pixels, torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(offsets)).float()
