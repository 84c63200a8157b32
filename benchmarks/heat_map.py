"""Draw how far sound and lips are apart over time and shift, before and after the lag is taken out.

    python -m benchmarks.heat_map --output img/correction.png
    python -m benchmarks.heat_map --videofile video.mp4 --move_ms 0 --output map.png

By default the sound of data/sample.mp4 is made 240 ms early first. Of several faces at one time, the one with the
highest confidence is drawn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.truth import ROOT
from syncnet.api import Score, TrackScore
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME
from syncnet.errors import SyncNetError
from syncnet.media.resync import Shift, move_sound
from syncnet.steps.direct import PHASE_MS

MOVE_MS = 240
WIDTH = 1600  # of the picture, in pixels
CELL_HEIGHT = 10  # of a shift, in pixels
LEFT, RIGHT, TOP, BOTTOM, GAP = 150, 30, 60, 60, 26  # margins of a map, and from labels to what they name
TICK_MS, TICK_S, TICK = 200, 1, 8
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (225, 225, 225)
FONT, SIZE, STROKE = cv2.FONT_HERSHEY_SIMPLEX, 0.85, 2
COLOURS = cv2.COLORMAP_VIRIDIS
FARTHEST = 98  # percentile of the distances that gets the darkest colour


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videofile", type=Path, default=ROOT / "data/sample.mp4", help="default: %(default)s")
    parser.add_argument(
        "--move_ms", type=float, default=MOVE_MS, help="make its sound early by so much first (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    return parser


def distances(tracks: Sequence[TrackScore], *, seconds: float) -> np.ndarray:
    """Return the distance of lips and sound at every time and shift.

    Args:
        tracks: the scored tracks.
        seconds: length of the video.

    Returns:
        Shifts x frames array, from the latest sound (negative lag) to the earliest; NaN where there is none.
    """
    scored = sorted((t for t in tracks if t.dists is not None and len(t.dists)), key=lambda t: t.confidence or 0.0)
    found = np.full((scored[0].dists.shape[1], round(seconds * FRAME_RATE)), np.nan)
    for track in scored:
        shifts = track.dists.T[::-1]  # column k has the offset vshift - k
        found[:, track.first_frame : track.first_frame + shifts.shape[1]] = shifts
    return found


def colours(values: np.ndarray, *, farthest: float) -> np.ndarray:
    """Return a colour for every value, bright for small ones and grey for NaN: H x W x 3, uint8."""
    alike = 1 - np.nan_to_num(values / farthest).clip(0, 1)
    image = cv2.applyColorMap((alike * np.iinfo(np.uint8).max).astype(np.uint8), COLOURS)
    image[np.isnan(values)] = GREY
    return image


def write(image: np.ndarray, text: str, x: int, y: int, *, align: float = 0.0) -> None:
    """Write text whose vertical middle is at y; ``align`` is the part of it that lies left of x."""
    (width, height), _ = cv2.getTextSize(text, FONT, SIZE, STROKE)
    cv2.putText(image, text, (round(x - align * width), y + height // 2), FONT, SIZE, BLACK, STROKE, cv2.LINE_AA)


def draw(values: np.ndarray, *, title: str, farthest: float, zero_ms: float) -> np.ndarray:
    """Draw a map with its axes.

    Args:
        values: from ``distances``.
        title: what is written above it.
        farthest: distance that gets the darkest colour.
        zero_ms: shift at which sound and picture that are in step fit best, in milliseconds.

    Returns:
        H x ``WIDTH`` x 3 array, uint8, BGR.
    """
    shifts, frames = values.shape
    width, height = WIDTH - LEFT - RIGHT, shifts * CELL_HEIGHT
    image = np.full((TOP + height + BOTTOM, WIDTH, 3), WHITE, np.uint8)
    cells = colours(values[::-1], farthest=farthest)  # early sound at the top
    image[TOP : TOP + height, LEFT : LEFT + width] = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    write(image, title, LEFT, TOP // 2)
    middle = TOP + height // 2
    largest = shifts // 2 * MILLISECONDS_PER_FRAME
    for lag in range(-(largest // TICK_MS) * TICK_MS, largest + 1, TICK_MS):
        y = middle - round((lag + zero_ms) / MILLISECONDS_PER_FRAME * CELL_HEIGHT)
        cv2.line(image, (LEFT - TICK, y), (LEFT, y), BLACK, STROKE)
        write(image, f"{lag:+d} ms" if lag else "0 ms", LEFT - TICK - STROKE, y, align=1.0)
    below = TOP + height
    for second in range(0, int(frames / FRAME_RATE) + 1, TICK_S):
        x = LEFT + round(second * FRAME_RATE * width / frames)
        cv2.line(image, (x, below), (x, below + TICK), BLACK, STROKE)
        write(image, f"{second} s", x, below + GAP, align=0.5)
    return image


def key(*, farthest: float) -> np.ndarray:
    """Draw what the colours mean."""
    image = np.full((2 * GAP, WIDTH, 3), WHITE, np.uint8)
    first, last = WIDTH // 3, 2 * WIDTH // 3
    image[GAP // 2 : -GAP // 2, first:last] = colours(np.linspace(0, farthest, last - first)[None], farthest=farthest)
    write(image, "lips and sound fit", first - GAP, GAP, align=1.0)
    write(image, "do not fit", last + GAP, GAP)
    return image


def picture(videofile: Path, *, move_ms: float, folder: Path) -> np.ndarray:
    """Move the sound of a video, correct it, and return the maps of before and after, one above the other."""
    from syncnet import correct_offset, score_video

    before, after = (folder / f"{name}{videofile.suffix}" for name in ("before", "after"))
    move_sound(videofile, before, shift=Shift(-move_ms))
    correct_offset(before, after)
    scores: list[Score] = [score_video(path) for path in (before, after)]
    seconds = max(track.end for score in scores for track in score.tracks)
    maps = [distances(score.tracks, seconds=seconds) for score in scores]
    farthest = float(np.nanpercentile(maps, FARTHEST))
    titles = [f"{name}: lag {round(score.lag_ms or 0)} ms" for name, score in zip(("before", "after"), scores)]
    zero_ms = PHASE_MS + (0.0 if isinstance(scores[0].lag_zero, str) else scores[0].lag_zero or 0.0)
    drawn = [draw(values, title=title, farthest=farthest, zero_ms=zero_ms) for values, title in zip(maps, titles)]
    return np.concatenate([*drawn, key(farthest=farthest)])


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            image = picture(args.videofile, move_ms=args.move_ms, folder=Path(folder))
    except SyncNetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    cv2.imwrite(str(args.output), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return 0


if __name__ == "__main__":
    sys.exit(main())
