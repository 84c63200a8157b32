"""What a file promises and does not hold, and what only looks like damage."""

import contextlib
import io
from fractions import Fraction

import av
import numpy as np
import pytest

from syncnet.media import integrity
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.grid import Grid
from syncnet.media.integrity import Inventory, missing_of
from syncnet.media.sound import Sound
from tests import clips

COPY = ("-c", "copy")
SECONDS = 6
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac")
# By name: flags that encode, and how the file is written
CONTAINERS = {
    "a.mp4": (*H264, "-movflags", "+faststart"),
    "a.mov": (*H264, "-movflags", "+faststart"),
    "parts.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
    "a.mkv": H264,
    "a.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "25", "-c:a", "libopus"),
    "a.ts": H264,
    "a.m2ts": (*H264, "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "a.avi": ("-c:v", "mpeg4", "-q:v", "4", "-c:a", "libmp3lame"),
    "pcm.avi": ("-c:v", "mpeg4", "-q:v", "4", "-c:a", "pcm_s16le"),
    "h264.avi": H264,
    "a.flv": H264,
}
ESTIMATED = ("a.ts", "a.m2ts")  # MPEG-TS does not state how long it is


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a function that returns the path of a whole file of a name in ``CONTAINERS``."""
    folder = tmp_path_factory.mktemp("containers")
    source = f"testsrc2=s=320x240:r=25:d={SECONDS}", clips.tone(seconds=SECONDS)

    def file(name):
        path = folder / name
        return path if path.exists() else clips.make(path, *source, flags=CONTAINERS[name])

    return file


def copy(source, target, *, before=(), flags=(), second=None):
    """Write a file again without encoding, and return its path."""
    inputs = [*before, "-i", source, *(("-i", second, "-map", "0:v", "-map", "1:a") if second else ())]
    Ffmpeg([*inputs, *COPY, *flags, target], source=source).finish()
    return target


def decoded(path):
    """Return the inventories of the picture and of the sound, after all of both was decoded."""
    with Grid(path) as grid, contextlib.closing(Sound(path, zero=grid.start)) as sound:
        for _ in grid:
            pass
        sound.length(10**9)
        return grid.inventory, sound.inventory, grid.inventory.missing()


@pytest.mark.parametrize("name", CONTAINERS)
def test_whole_files(name, files):
    picture, sound, missing = decoded(files(name))
    assert missing is None and missing_of(files(name)) is None
    assert (picture.complaint, sound.complaint, picture.lost + sound.lost) == ("", "", 0)


@pytest.mark.parametrize("percent", [10, 33, 58, 80, 95])
@pytest.mark.parametrize("name", CONTAINERS)
def test_truncated(name, percent, files, tmp_path):
    data = files(name).read_bytes()
    path = tmp_path / name
    length = len(data) * percent // 100
    path.write_bytes(data[: length + (length % 188 == 0)])
    missing = missing_of(path)
    assert missing is not None and missing.held == path.stat().st_size
    assert missing == decoded(path)[2]
    if name in ESTIMATED:
        assert (missing.promised, missing.seconds) == (None, {})
        return
    assert name == "a.flv" or missing.promised > missing.held
    for kind in (integrity.PICTURE, integrity.SOUND):
        held, promised = missing.seconds[kind]
        if name != "parts.mp4":  # whose promise grows with every part
            assert promised == pytest.approx(SECONDS, abs=0.1)
            assert held == pytest.approx(SECONDS * percent / 100, abs=1.0)
        assert held < promised


@pytest.mark.parametrize("percent", [10, 33, 58, 80, 95])
def test_a_live_recording_that_ends_inside_a_packet(percent, files, tmp_path):
    data = copy(files("a.mkv"), tmp_path / "live.mkv", flags=("-live", "1", "-f", "matroska")).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(data[: len(data) * percent // 100])
    assert missing_of(path).promised is None
    assert missing_of(path) == decoded(path)[2]


def test_the_last_packet_alone_is_missing(files, tmp_path):
    for name in ("a.mkv", "a.mp4", "a.avi"):
        data = files(name).read_bytes()
        (tmp_path / name).write_bytes(data[:-100])
        assert missing_of(tmp_path / name) is not None


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi"])
def test_a_download_that_was_given_its_size_beforehand(name, files, tmp_path):
    """The end of the file is zeros; a part of its packets is there."""
    data = files(name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    missing = missing_of(tmp_path / name)
    assert missing.promised == len(data) and abs(missing.held - len(data) / 2) < 0.1 * len(data)
    assert all(held < promised - 1 for held, promised in missing.seconds.values())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "h264.avi"])
def test_flipped_bits(name, files, tmp_path):
    """Both the decoder of direct mode and ffmpeg notice."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = np.fromfile(files(name), np.uint8)
        data[rng.integers(len(data) * 2 // 5, len(data) * 3 // 5, 60)] ^= 1 << rng.integers(0, 8, 60).astype(np.uint8)
        path = tmp_path / f"{seed}{name}"
        data.tofile(path)
        picture, sound, _ = decoded(path)
        assert picture.complaint + sound.complaint
        process = Ffmpeg(["-loglevel", "error", "-i", path, "-f", "null", "-"], source=path)
        process.finish()
        assert process.fault and " @ 0x" not in process.fault


@pytest.mark.parametrize("name", ["a.webm", "a.mkv"])
def test_a_hole_inside(name, files, tmp_path):
    """After unreadable bytes a Matroska file goes on with its next cluster: no decoder notices that one is missing."""
    data = files(name).read_bytes()
    clusters = [at for at in range(len(data)) if data.startswith(b"\x1f\x43\xb6\x75", at)]
    middle = next(index for index, at in enumerate(clusters) if at > len(data) // 3)
    first, end = clusters[middle : middle + 2]
    (tmp_path / name).write_bytes(data[:first] + b"\x00" * (end - first) + data[end:])
    picture, sound, missing = decoded(tmp_path / name)
    assert "cannot be read" in picture.complaint and "cannot be read" in sound.complaint
    assert missing is None


def test_damaged_sound_alone(files, tmp_path):
    path, data = tmp_path / "a.mp4", bytearray(files("a.mp4").read_bytes())
    with av.open(str(files("a.mp4"))) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for packet in packets[60:70]:
        data[packet.pos : packet.pos + packet.size] = b"\xa5" * packet.size
    path.write_bytes(data)
    picture, sound, missing = decoded(path)
    assert (picture.lost, missing) == (0, None)
    assert 1 <= sound.lost <= 11


def still(folder, *, last):
    """Write a video of which the last picture lasts for some seconds, in Matroska, which does not say so."""
    times = [*range(0, 3000, 40), 3000 + last]
    path = folder / "still.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time in times[:-1]:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), time % 250, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, stream.time_base
            for packet in stream.encode(frame):
                packet.duration = last if time == times[-2] else 40
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def make_innocent(case, files, folder):
    """Make a file that only looks damaged."""
    mp4, mkv, ts, avi = (files(name) for name in ("a.mp4", "a.mkv", "a.ts", "a.avi"))
    short = copy(mp4, folder / "short.mp4", flags=("-t", "2", "-an"))
    match case.split():
        case ["edit", suffix]:
            return copy(mp4, folder / f"b{suffix}", before=("-ss", "2.3"))
        case ["late", suffix]:
            return copy(mp4, folder / f"b{suffix}", before=("-itsoffset", "1.3"), second=mp4)
        case ["short", "picture", suffix]:
            return copy(short, folder / f"b{suffix}", second=avi if suffix == ".avi" else mp4)
        case ["live", suffix]:
            flags = ("-live", "1") if suffix != ".avi" else ()
            return copy(mkv, folder / f"b{suffix}", flags=(*flags, "-f", "matroska"))
        case ["fragments"]:
            return copy(mp4, folder / "b.mp4", flags=("-movflags", "dash+frag_keyframe+delay_moov"))
        case ["joined"]:
            copy(ts, folder / "c.ts", flags=("-output_ts_offset", str(SECONDS)))
            (folder / "b.ts").write_bytes(ts.read_bytes() + (folder / "c.ts").read_bytes())
            return folder / "b.ts"
        case ["cut", "mp3"]:
            return copy(avi, folder / "b.avi", before=("-ss", "2.3"))
        case ["variable"]:
            source = f"testsrc2=s=320x240:r=25:d={SECONDS},select='not(mod(n,7))+not(mod(n,5))'"
            return clips.make(folder / "b.mkv", source, clips.tone(seconds=SECONDS), flags=("-vsync", "vfr", *H264))
        case ["last", "picture"]:
            return still(folder, last=5000)
        case ["rounded"]:
            data = bytearray(avi.read_bytes())
            data[4:8] = len(data).to_bytes(4, "little")  # the length of the whole file, not of what follows
            (folder / "b.avi").write_bytes(data)
            return folder / "b.avi"
        case ["trailer"]:
            (folder / "b.mp4").write_bytes(mp4.read_bytes() + b"\0\0\xff\xffTAG an advertisement")
            return folder / "b.mp4"
    raise AssertionError(case)


INNOCENT = (
    *("edit .mp4", "edit .mov", "edit .mkv", "late .mp4", "late .mkv", "late .ts"),
    *("short picture .mp4", "short picture .mkv", "short picture .ts", "short picture .avi"),
    *("live .mkv", "fragments", "joined", "cut mp3", "variable", "last picture", "rounded", "trailer"),
)


@pytest.mark.parametrize("case", INNOCENT)
def test_not_damaged(case, files, tmp_path):
    path = make_innocent(case, files, tmp_path)
    assert missing_of(path) is None
    picture, sound, missing = decoded(path)
    assert (picture.complaint, sound.complaint, missing) == ("", "", None)


def test_harmless_messages_of_ffmpeg(files, tmp_path):
    """A cut before pictures that refer to others before it makes ffmpeg complain, but nothing is lost."""
    process = Ffmpeg(["-loglevel", "error", "-i", files("a.mp4"), "-f", "null", "-"], source="a.mp4")
    process.log.write(b"[h264 @ 0x21227b80] mmco: unref short failure\n    Last message repeated 1 times\n")
    process.finish()
    assert process.complaint and not process.fault


def test_numbers_of_matroska():
    data = bytes([0x81, 0x40, 0x02, 0xFF, 0x01, *[0xFF] * 7, 0x1A, 0x45, 0xDF, 0xA3])
    file = io.BytesIO(data)
    assert integrity.variable_number(file, 0) == (1, 1)
    assert integrity.variable_number(file, 1) == (2, 3)
    assert integrity.variable_number(file, 3) == (None, 4)
    assert integrity.variable_number(file, 4) == (None, 12)
    assert integrity.variable_number(file, 12, keep_length=True) == (0x1A45DFA3, 16)


def test_long_boxes():
    """A box of more than 4 GB, or of unknown length, has its length elsewhere."""
    long = b"\0\0\0\x01mdat" + (40).to_bytes(8, "big") + bytes(24)
    unknown, junk = b"\0\0\0\0mdat" + bytes(50), long + b"\0\0\0\x63junk1234"
    for data, end in ((long, 40), (long[:30], 40), (unknown, 58), (junk, 52)):
        assert integrity.boxes_end(io.BytesIO(data), len(data)) == end


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_packet_is_counted_in_either_mode(name, files):
    """What decodes one stream sees the packets of all."""
    with av.open(str(files(name))) as container:
        alone = Inventory(container, files(name))
        for packet in container.demux():
            alone.add(packet)
        assert len(alone.ends) == 2
    assert decoded(files(name))[0].ends == alone.ends
