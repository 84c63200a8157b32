"""What run_visualise --speakers draws: whose turn it is, and the turns of the whole video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from syncnet.results.step_files import SavedTurns
    from syncnet.steps.visualise import DrawnFace

Colour = tuple[int, int, int]

# Okabe & Ito, "Color Universal Design" (2008): people who cannot tell red from green can tell these apart; BGR
COLOURS: tuple[Colour, ...] = (
    *((0, 159, 230), (233, 180, 86), (115, 158, 0), (66, 228, 240)),
    *((178, 114, 0), (0, 94, 213), (167, 121, 204)),
)
OFF_SCREEN_COLOUR: Colour = (200, 200, 200)
BACKGROUND: Colour = (40, 40, 40)
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
SPEAKING, OFF_SCREEN = "speaking", "voice off screen"
NOBODY, UNSEEN = -1, -2  # instead of a track
FONT = cv2.FONT_HERSHEY_SIMPLEX
# relative to the height of the picture, with the least in pixels (of TEXT_HEIGHT the scale)
STRIP_HEIGHT, LEAST_STRIP = 0.04, 10
THICK, LEAST_THICK = 0.008, 4
TEXT_HEIGHT, LEAST_TEXT = 1 / 900, 0.45
THIN_PARTS = 4  # a thick line has the width of so many thin ones
MARGIN = 4
LUMINANCE = np.array([0.114, 0.587, 0.299])  # of B, G and R
BRIGHT = 110


def colour_of(track: int) -> Colour:
    """Return the colour of a track."""
    return COLOURS[track % len(COLOURS)]


class Overlay:
    """Draws boxes with the speaking face's name, and the strip with all turns.

    Args:
        turns: ``SavedTurns``.
        height, width: size of the pictures, in pixels.
    """

    def __init__(self, turns: SavedTurns, *, height: int, width: int) -> None:
        self.speaker = np.full(turns.frames, NOBODY)
        for first, end in turns.without_face:
            self.speaker[first:end] = UNSEEN
        for first, end, track in turns.spans:
            self.speaker[first:end] = track
        self.thick = max(LEAST_THICK, round(height * THICK))
        self.thin = max(1, self.thick // THIN_PARTS)
        self.scale = max(LEAST_TEXT, height * TEXT_HEIGHT)
        self.strip_height = min(height, max(LEAST_STRIP, round(height * STRIP_HEIGHT)))
        colours = {NOBODY: BACKGROUND, UNSEEN: OFF_SCREEN_COLOUR}
        of_frames = [colours.get(track, colour_of(track)) for track in self.speaker.tolist()]
        self.strip = np.array(of_frames, np.uint8)[np.arange(width) * turns.frames // width]

    def draw(self, image: np.ndarray, faces: Sequence[DrawnFace], index: int) -> None:
        """Draw into a frame.

        Args:
            image: H x W x 3 array, uint8, BGR; modified in place.
            faces: its faces.
            index: its index.
        """
        speaker = self.speaker[index] if index < len(self.speaker) else NOBODY
        for face in sorted(faces, key=lambda each: each.track == speaker):  # the speaker on top
            self._draw_face(image, face, speaks=face.track == speaker)
        top = image.shape[0] - self.strip_height
        if speaker == UNSEEN:
            self._write(image, OFF_SCREEN, (MARGIN, top - MARGIN), OFF_SCREEN_COLOUR)
        image[top:] = self.strip
        at = min(index, len(self.speaker) - 1) * image.shape[1] // len(self.speaker)
        for half, colour in ((2 * self.thin, BLACK), (self.thin, WHITE)):
            cv2.rectangle(image, (at - half, top), (at + half, image.shape[0]), colour, cv2.FILLED)

    def _draw_face(self, image: np.ndarray, face: DrawnFace, *, speaks: bool) -> None:
        colour = colour_of(face.track)
        corner = int(face.x - face.s), int(face.y - face.s)
        opposite = int(face.x + face.s), int(face.y + face.s)
        cv2.rectangle(image, corner, opposite, colour, self.thick if speaks else self.thin)
        self._write(image, f"{face.track} {SPEAKING}" if speaks else f"{face.track}", corner, colour)

    def _write(self, image: np.ndarray, text: str, corner: tuple[int, int], colour: Colour) -> None:
        """Write a text on a field of a colour, whose lower left corner is there, or as near as the picture allows."""
        line = max(1, round(self.scale * 2))
        (width, height), below = cv2.getTextSize(text, FONT, self.scale, line)
        width, height = width + 2 * MARGIN, height + below + MARGIN
        x = max(0, min(corner[0], image.shape[1] - width))
        y = max(height, min(corner[1], image.shape[0] - self.strip_height - 1))
        cv2.rectangle(image, (x, y - height), (x + width, y), colour, cv2.FILLED)
        ink = BLACK if LUMINANCE @ colour > BRIGHT else WHITE
        cv2.putText(image, text, (x + MARGIN, y - below), FONT, self.scale, ink, line, cv2.LINE_AA)
