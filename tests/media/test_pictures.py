"""Decoded frames as pictures: colours, sizes and turns, whatever the pixel format."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from syncnet.media.grid import Grid
from syncnet.media.pictures import Picture, Pixels, picture

WIDTH, HEIGHT = 96, 64
CHROMA, LUMA = 224 / 255, 219 / 255  # limited range relative to full range
IDENTITY = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000]  # display matrix of MP4


def colours(width=WIDTH, height=HEIGHT):
    """Return a smooth image with all hues, H x W x 3, RGB."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return (np.stack([x, y, 1 - (x + y) / 2], axis=2) * 200 + 28).astype(np.uint8)


def limited():
    return cv2.cvtColor(colours(), cv2.COLOR_RGB2YUV_I420)


def full():
    """Return the same in full range."""
    planes = limited().astype(float)
    planes[:HEIGHT] = (planes[:HEIGHT] - 16) / LUMA
    planes[HEIGHT:] = (planes[HEIGHT:] - 128) / CHROMA + 128
    return planes.round().clip(0, 255).astype(np.uint8)


def noise(seed=0):
    return Picture(np.random.default_rng(seed).integers(0, 256, (HEIGHT * 3 // 2, WIDTH), dtype=np.uint8))


@pytest.mark.parametrize("edges", [(0, 64, 0, 96), (3, 8, 7, 20), (4, 9, 6, 7), (63, 64, 95, 96), (2, 62, 1, 95)])
def test_region_is_that_part(edges):
    top, bottom, left, right = edges
    for found in (noise(), Pixels(noise().bgr())):
        np.testing.assert_array_equal(found.region(*edges), found.bgr()[top:bottom, left:right])


def test_resized_as_opencv_does():
    small = noise().resized(32, 22)
    brightness, u, v = noise().parts()
    for found, plane, size in zip(small.parts(), (brightness, u, v), ((32, 22), (16, 11), (16, 11))):
        np.testing.assert_array_equal(found, cv2.resize(plane, size))
    pixels = Pixels(noise().bgr())
    np.testing.assert_array_equal(pixels.resized(32, 22).bgr(), cv2.resize(pixels.bgr(), (32, 22)))
    np.testing.assert_array_equal(noise().rgb(), noise().bgr()[..., ::-1])


@pytest.mark.parametrize("tagged", [False, True])
def test_full_range_gives_the_same_colours(tagged):
    frame = av.VideoFrame.from_ndarray(full(), format="yuv420p" if tagged else "yuvj420p")
    if tagged:
        frame.color_range = ColorRange.JPEG
    difference = picture(frame).planes.astype(int) - limited()
    assert np.abs(difference).max() <= 2 and abs(difference.mean()) < 0.3


@pytest.mark.parametrize("space", [None, Colorspace.ITU709])
@pytest.mark.parametrize("kind", ["yuv420p10le", "yuv422p", "yuv444p", "yuv422p10le", "nv12"])
def test_formats(kind, space):
    """Other formats have the same numbers, so BT.601 gives the same colours whatever the file declares."""
    frame = av.VideoFrame.from_ndarray(limited(), format="yuv420p").reformat(format=kind)
    if space is not None:
        frame.colorspace = space
    difference = picture(frame).bgr().astype(int) - Picture(limited()).bgr()
    assert np.abs(difference).max() <= 8 and np.abs(difference).mean() < 2


@pytest.mark.parametrize("kind", ["rgb24", "gbrp", "rgba"])
def test_rgb(kind):
    frame = av.VideoFrame.from_ndarray(colours(), format="rgb24").reformat(format=kind)
    difference = picture(frame).rgb().astype(int) - colours()
    assert np.abs(difference).mean() < 2 and np.abs(difference).max() <= 12


def test_grey():
    grey = colours()[..., 0]
    difference = picture(av.VideoFrame.from_ndarray(grey, format="gray")).bgr() - grey[..., None].astype(int)
    assert np.abs(difference).max() <= 3


@pytest.mark.parametrize("size", [(95, 63), (96, 63), (1, 1), (16, 3)])
def test_odd_sizes(size):
    found = picture(av.VideoFrame.from_ndarray(colours(*size), format="rgb24"))
    width, height = (max(2, side - side % 2) for side in size)
    assert (found.width, found.height) == (width, height)
    assert np.abs(found.rgb().mean((0, 1)) - colours(*size).mean((0, 1))).max() < 6


def write(path, images):
    """Write RGB images of any sizes as Motion JPEG."""
    base = Fraction(1, 25)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p"
        container.start_encoding()
        for index, image in enumerate(images):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width = image.shape[:2]
            encoder.pix_fmt, encoder.time_base, encoder.options = "yuvj420p", base, {"q": "2"}
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuvj420p")
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream, packet.time_base, packet.duration = stream, base, 1
                packet.pts = packet.dts = index
                container.mux(packet)
    return path


# x' = a x + c y, y' = b x + d y: the x axis points down after a quarter turn to the right
@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_turned_as_a_player_shows_it(tmp_path, matrix, turns):
    path = write(tmp_path / "turned.mp4", [colours()] * 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"".join(value.to_bytes(4, "big") for value in IDENTITY), data.index(b"tkhd"))
    for place, value in zip((0, 1, 3, 4), matrix):
        data[at + 4 * place : at + 4 * place + 4] = (value * 0x10000).to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    with Grid(path) as grid:
        shown = [found.picture.rgb() for found in grid]
    expected = np.rot90(colours(), turns)
    for image in shown:
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).mean() < 4


def test_a_change_of_size_within_a_stream(tmp_path):
    """Every picture has the size of the first, and shows the whole frame."""
    path = write(tmp_path / "sizes.mkv", [colours(), colours(64, 48), colours()])
    with Grid(path) as grid:
        shown = [found.picture.rgb() for found in grid]
    assert len(shown) == 3
    for image in shown:
        assert image.shape == colours().shape
        assert np.abs(image.astype(int) - colours()).mean() < 4
