"""Pose of a head in an image."""

from typing import NamedTuple


class Pose(NamedTuple):
    """Place and direction of a head.

    Attributes:
        x: Column of the centre, half-way down the face box, in pixels of the image.
        y: Row of the centre, in pixels.
        height: Height of the face in pixels.
        roll: Rotation in the image plane, in radians.
        yaw: Turn to the side, in radians; small, because only the relief is shifted and nothing is occluded.
        pitch: Nod, in radians; small likewise.
    """

    x: float
    y: float
    height: float
    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
