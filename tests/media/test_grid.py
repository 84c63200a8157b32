"""The pictures at 25 per second: at every time the one whose time stamp is nearest, by its number."""

from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from syncnet import reasons
from syncnet.errors import MediaError
from syncnet.media import grid as grid_module
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.grid import Grid, nearest, nearest_indices
from tests import numbered

RATES = ("15", "24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")
STEP = 0.04
ROUNDING = 0.0011  # seconds; Matroska's time stamps are whole milliseconds


def nearest_numbers(times, *, end, step=STEP):
    """Return the index of the nearest of ``times`` at every time of the grid, and how much later it is."""
    grid = np.arange(times[0], end - 1e-6, step)
    far = np.abs(grid[:, None] - np.array(times)[None]).round(6)
    found = far.shape[1] - 1 - far[:, ::-1].argmin(1)  # of two that are equally near, the later
    return found, np.array(times)[found] - grid


def shown(path):
    """Return the numbers that the grid's pictures show, how late they are, and the ``Grid``."""
    with Grid(path) as grid:
        pictures = list(grid)
        return [numbered.number_of(p.picture.bgr()) for p in pictures], np.array([p.late for p in pictures]), grid


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".mp4", ".ts"])
def test_the_nearest_picture(rate, suffix, tmp_path):
    times, base = numbered.regular(rate, seconds=3)
    path = numbered.write(tmp_path / f"a{suffix}", times, time_base=base, rate=Fraction(rate), b_frames=2)
    numbers, late, _ = shown(path)
    seconds = [float(time * base) for time in times]
    expected, expected_late = nearest_numbers(seconds, end=seconds[-1] + float(base))
    assert numbers == expected.tolist()
    np.testing.assert_allclose(late, expected_late, atol=1e-4)  # MPEG-TS counts in 1/90000 s
    assert abs(late.mean()) < 0.0015


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("drop", [0.0, 0.3])
def test_variable_rate(suffix, drop, tmp_path):
    times, base = numbered.jittery(30, spread=0.4, drop=drop, seconds=6)
    path = numbered.write(tmp_path / f"a{suffix}", times, time_base=base, rate=Fraction(30))
    numbers, late, _ = shown(path)
    stored = [round(float(t * base), 3 if suffix == ".mkv" else 6) for t in times]
    expected, expected_late = nearest_numbers(stored, end=stored[-1] + 1 / 30)
    assert numbers == expected.tolist()
    np.testing.assert_allclose(late, expected_late, atol=ROUNDING)
    assert abs(late.mean()) < 0.003


def test_a_video_that_starts_late(tmp_path):
    """The sound starts first: the grid starts with the first picture, a player later."""
    times, base = numbered.regular(25, start=9)
    for suffix in (".mp4", ".mkv", ".ts"):
        path = numbered.write(tmp_path / f"a{suffix}", times, time_base=base, rate=Fraction(25), b_frames=2)
        numbers, late, grid = shown(path)
        assert numbers == list(range(50))
        assert np.abs(late).max() < ROUNDING
        # the declared priming of AAC is before time 0 where the container cannot hide it
        assert grid.delay == pytest.approx(9 * STEP, abs=ROUNDING if suffix == ".mp4" else 0.03)


def test_the_part_of_a_file_that_its_edit_list_shows(tmp_path):
    """A copy from 0.5 s on still holds the pictures before, which no player shows."""
    times, base = numbered.regular(25)
    source = numbered.write(tmp_path / "a.mp4", times, time_base=base, rate=Fraction(25))
    Ffmpeg(["-ss", "0.52", "-i", source, "-c", "copy", tmp_path / "b.mp4"], source=source).finish()
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert sum(bool(packet.size) for packet in container.demux(video=0)) == 50  # all are stored
    numbers, _, grid = shown(tmp_path / "b.mp4")
    assert numbers == list(range(13, 50))
    assert grid.delay < 0.03


def test_time_stamps_before_zero(tmp_path):
    times, base = numbered.regular(25)
    source = numbered.write(tmp_path / "a.mkv", times, time_base=base, rate=Fraction(25), codec="mpeg4")
    path, options = tmp_path / "b.mkv", {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as reader, av.open(str(path), "w", container_options=options) as writer:
        streams = {stream.index: writer.add_stream_from_template(stream) for stream in reader.streams}
        for packet in reader.demux():
            if packet.size:
                early = round(0.2 / packet.time_base)
                packet.pts, packet.dts = packet.pts - early, packet.dts - early
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)
    numbers, late, grid = shown(path)
    assert grid.start == pytest.approx(-0.2)
    assert grid.delay < 0.03  # the priming of AAC comes first
    assert numbers == list(range(50))
    assert np.abs(late).max() < 1e-6


def test_reordered_frames_in_a_container_without_presentation_times(tmp_path):
    """Of H.264 in AVI, libavformat makes up presentation times that go back and forth."""
    times, base = numbered.regular(25)
    path = numbered.write(tmp_path / "a.avi", times, time_base=base, rate=Fraction(25), b_frames=2)
    numbers, late, _ = shown(path)
    assert numbers == list(range(50))
    assert np.abs(late).max() < 1e-6


class Frame:
    """What ``Grid`` needs of a decoded frame."""

    def __init__(self, time):
        self.time = time


def test_equal_backward_and_missing_time_stamps(tmp_path, monkeypatch):
    """A player never goes back; a frame without a time stamp follows the last one."""
    times, base = numbered.regular(25)
    path = numbered.write(tmp_path / "a.mp4", times, time_base=base, rate=Fraction(25))
    stamps = [0.0, 0.04, 0.04, 0.02, 0.08, None, 0.16]
    monkeypatch.setattr(grid_module, "decoded", lambda *_: map(Frame, stamps))
    monkeypatch.setattr(grid_module, "picture", lambda frame, size: FakePicture(stamps.index(frame.time)))
    with Grid(path) as grid:
        assert [(found.picture.index, round(found.late, 6)) for found in grid] == [
            (index, 0.0) for index in (0, 1, 4, 5, 6)
        ]


class FakePicture:
    width = height = 2

    def __init__(self, index):
        self.index = index


def test_time_stamps_that_jump(tmp_path, monkeypatch):
    """A wild time stamp does not make a video of days; what is left out is said."""
    times, base = numbered.regular(25)
    path = numbered.write(tmp_path / "a.mp4", times, time_base=base, rate=Fraction(25))
    monkeypatch.setattr(grid_module, "picture", lambda frame, size: FakePicture(frame.time))
    for jump, count in ((10**6, 2), (-60, 2), (5, 2 + 5 * 25)):
        stamps = [0.0, 0.04, 0.04 + jump, 0.08 + jump]
        monkeypatch.setattr(grid_module, "decoded", lambda *_, stamps=stamps: map(Frame, stamps))
        with Grid(path) as grid:
            assert len(list(grid)) == count + (jump == 5)
            assert bool(grid.complaint) == (jump != 5)


def test_the_last_frame_lasts():
    def indices(frames):
        return [index for index, _ in nearest(frames, start=0.0, convert=lambda index: index)]

    assert indices([(0.0, 0.04, 0), (0.04, 0.2, 1)]) == [0, 1, 1, 1, 1, 1]
    assert indices([(0.0, 0.01, 0)]) == [0]
    assert indices([]) == []


@pytest.mark.parametrize("rate", [15, 23.976, 25, 30, 59.94])
def test_frames_in_memory(rate):
    found = list(nearest_indices(90, frame_rate=rate))
    expected, late = nearest_numbers(np.arange(90) / rate, end=90 / rate)
    assert [index for index, _ in found] == expected.tolist()
    np.testing.assert_allclose([seconds for _, seconds in found], late, atol=1e-9)


def test_damaged_packets(tmp_path):
    """What can be read is used, in its place, and the decoder's complaint is kept."""
    times, base = numbered.regular(25, seconds=4)
    source = numbered.write(tmp_path / "a.mkv", times, time_base=base, rate=Fraction(25), codec="mpeg4")
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for index in (48, 49):  # of a group of 12, the last two
        pos, size = places[index]
        start = data.index(b"\x00\x00\x01\xb6", pos)
        assert start < pos + size
        data[start : pos + size] = b"\xff" * (pos + size - start)
    (tmp_path / "b.mkv").write_bytes(data)
    numbers, _, grid = shown(tmp_path / "b.mkv")
    assert len(numbers) == 100
    assert numbers[:48] == list(range(48)) and numbers[-30:] == list(range(70, 100))
    assert grid.complaint
    assert shown(source)[2].complaint == ""


def test_nothing_to_show(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(MediaError, match=r"a\.mp4: not a media file") as error:
        Grid(tmp_path / "a.mp4")
    assert error.value.code == reasons.NOT_MEDIA
    times, base = numbered.regular(25)
    source = numbered.write(tmp_path / "b.mkv", times, time_base=base, rate=Fraction(25))
    Ffmpeg(["-i", source, "-vn", "-c", "copy", tmp_path / "c.mkv"], source=source).finish()
    with pytest.raises(MediaError, match=r"c\.mkv: has no video stream") as error:
        Grid(tmp_path / "c.mkv")
    assert error.value.code == reasons.NO_VIDEO
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    (tmp_path / "d.mkv").write_bytes(data)
    with pytest.raises(MediaError, match=r"d\.mkv: no frame of it can be decoded"):
        Grid(tmp_path / "d.mkv")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".mov"])
@pytest.mark.parametrize("rate", ["25", "15"])
def test_pictures_again(tmp_path, suffix, rate):
    """By seeking, the same pictures are found as in one pass."""
    flags = ("-c:v", "mpeg4", "-q:v", "2", "-g", "12", "-bf", "0")
    path = clips.make(tmp_path / f"a{suffix}", f"testsrc2=s=64x48:r={rate}:d=2", flags=flags)
    with Grid(path) as again:
        pictures = [found.picture.planes for found in again]
    wanted = [0, 1, 7, 13, 20, 39]
    with Grid(path) as again:
        for number, found in zip(wanted, again.at(wanted), strict=True):
            np.testing.assert_array_equal(found.planes, pictures[number])
