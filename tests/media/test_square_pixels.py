"""Pictures whose pixels are not square, in all places that show or measure them."""

import numpy as np
import pytest

from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.grid import Grid
from syncnet.media.pictures import square_scale, square_size
from tests import clips

SIZE = (320, 240)
SIDE = 100  # of a square, in pixels of the picture as shown


def squeezed(path, aspect, *, rotate=None):
    """Write a clip of a red square on grey, whose pixels have the shape ``aspect``, and return its path."""
    stored = tuple(round(side / factor) for side, factor in zip(SIZE, square_scale(aspect)))
    source = clips.canvas(seconds=0.4) + clips.square(110, 70, side=SIDE)
    flags = ("-vf", f"scale={stored[0]}:{stored[1]},setsar={aspect}", "-c:v", "libx264", "-crf", "10")
    clips.make(path, source, flags=flags)
    if rotate is None:
        return path
    turned = path.with_name(f"turned{path.suffix}")
    Ffmpeg(["-i", path, "-c", "copy", "-metadata:s:v", f"rotate={rotate}", turned], source=path).finish()
    return turned


def extent(image):
    """Return width and height of what is red."""
    red = (image[..., 2] > 150) & (image[..., 1] < 100)
    return np.ptp(np.flatnonzero(red.any(axis=0))) + 1, np.ptp(np.flatnonzero(red.any(axis=1))) + 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("aspect", [2, 4 / 3, 0.5, 1])
def test_a_square_is_square(aspect, suffix, tmp_path):
    path = squeezed(tmp_path / f"a{suffix}", aspect)
    with Grid(path) as grid:
        pictures = [found.picture for found in grid]
    assert grid.aspect == pytest.approx(aspect, rel=0.01)
    assert {(picture.width, picture.height) for picture in pictures} == {SIZE}
    assert np.abs(np.subtract(extent(pictures[0].bgr()), SIDE)).max() <= 4


@pytest.mark.parametrize("aspect", [2, 0.5])
@pytest.mark.parametrize("rotate", [90, 180, 270])
def test_turned_as_well(aspect, rotate, tmp_path):
    with Grid(squeezed(tmp_path / "a.mp4", aspect, rotate=rotate)) as grid:
        image = next(iter(grid)).picture.bgr()
    assert image.shape[1::-1] == (SIZE if rotate == 180 else SIZE[::-1])
    assert np.abs(np.subtract(extent(image), SIDE)).max() <= 4
    assert grid.aspect == pytest.approx(aspect if rotate == 180 else 1 / aspect)


@pytest.mark.parametrize("aspect", ["405/404", "255", "1/200"])
def test_what_is_nearly_square_or_cannot_be_true(aspect, tmp_path):
    path = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=0.4), flags=("-vf", f"setsar={aspect}"))
    with Grid(path) as grid:
        assert grid.aspect == 1
        assert (next(iter(grid)).picture.width, next(iter(grid)).picture.height) == SIZE


def test_sizes():
    assert square_size(320, 360, 2.0) == (640, 360)
    assert square_size(640, 180, 0.5) == (640, 360)
    assert square_size(720, 576, 16 / 15) == (768, 576)
    assert square_size(719, 575, 1.0)[0] % 2 == 0
