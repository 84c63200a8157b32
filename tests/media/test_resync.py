# ruff: noqa: F811, fixtures are imported
"""Moved sound: where it is for readers with and without time stamps."""

import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest
from av.codec.codec import Codec
from moved_sound import (  # noqa: F401
    KINDS,
    LIMIT_MS,
    RATE,
    SECONDS,
    clip,
    heard_ms,
    late_ms,
    moved,
    noise,
    packets,
    picture_start,
    sound,
    stamp_of,
    wav,
)

from syncnet.errors import DiskFullError, MediaError, SyncNetError, UsageError
from syncnet.media.containers import main_video, open_container
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.resync import COPY, Moved, Shift, move_sound

EXACT = ("pcm_s16le", "pcm_s24le", "flac", "alac")


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_readers_with_and_without_time_stamps(clip, tmp_path, kind):
    suffix, codec = kind
    source = clip(suffix, codec)
    before, _ = heard_ms(source)
    for delay in (215, -370):
        output = tmp_path / f"{delay}.{suffix}"
        found = moved(source, output, delay)
        assert found.codecs == (Codec(codec, "w").canonical_name,) and found.notes == ()
        by_stamps, plain = heard_ms(output)
        assert abs(by_stamps - before - delay) <= LIMIT_MS
        assert abs(plain - before - delay) <= LIMIT_MS
        assert packets(output, "video") == packets(source, "video")
        length = len(sound(output)[0]) / RATE
        assert SECONDS - 0.001 <= length <= SECONDS + 0.06 or abs(length - SECONDS) < 0.03  # a frame of the codec
        if codec in EXACT:
            assert np.array_equal(shifted(sound(source)[0], delay), sound(output)[0])


def shifted(samples, delay):
    count = round(delay * RATE / 1000)
    found = np.zeros_like(samples)
    if count > 0:
        found[count:] = samples[:-count]
    else:
        found[:count] = samples[-count:]
    return found


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("late", ["picture", "sound"])
def test_streams_that_start_late(clip, tmp_path, suffix, late):
    whole = clip("mkv", "aac", **{"before_video" if late == "picture" else "before_sound": ("-itsoffset", "0.4")})
    source = tmp_path / f"source.{suffix}"
    Ffmpeg(["-i", whole, "-c", "copy", source], source=whole).finish()
    before, _ = heard_ms(source)
    assert abs(before - (-400 if late == "picture" else 400)) < 30
    output = tmp_path / f"out.{suffix}"
    moved(source, output, 90)
    by_stamps, plain = heard_ms(output)
    assert abs(by_stamps - before - 90) <= LIMIT_MS
    assert abs(plain - before - 90) <= LIMIT_MS
    assert abs(sound(output)[1]) <= LIMIT_MS / 1000  # begins with the picture
    if suffix == "mp4":  # others have no start to count from
        assert picture_start(output) == pytest.approx(picture_start(source), abs=1e-3)


def remux(source, target, keep):
    """Copy the packets for which ``keep`` is true."""
    with open_container(source) as container, av.open(str(target), "w") as out:
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in container.streams]
        for packet in container.demux():
            if packet.size and keep(packet):
                packet.stream = streams[packet.stream.index]
                out.mux(packet)


def test_hole_in_the_sound_stays_silent(clip, tmp_path):
    whole, source, output = clip("mkv", "flac"), tmp_path / "hole.mkv", tmp_path / "out.mkv"
    remux(whole, source, lambda packet: packet.stream.type == "video" or not 1.0 < stamp_of(packet) < 1.5)
    moved(source, output, 120)
    samples, _ = sound(output)
    assert not samples[round(1.25 * RATE) : round(1.55 * RATE)].any()
    assert abs(late_ms(samples[2 * RATE :], like=noise()[2 * RATE :]) - 120) <= LIMIT_MS


def test_pictures_that_cannot_be_decoded(clip, tmp_path):
    """Without its first key frame a picture begins with the next one, and so does the sound, at its own time."""
    source, cut = clip("mkv", flags=("-g", "25")), tmp_path / "cut.mkv"
    with av.open(str(source)) as reader, av.open(str(cut), "w") as writer:
        streams = [writer.add_stream_from_template(stream) for stream in reader.streams]
        key_frames = 0
        for packet in reader.demux():
            key_frames += packet.stream.type == "video" and packet.is_keyframe
            if packet.dts is not None and (packet.stream.type == "audio" or packet.pts * packet.time_base > 0.01):
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)
    assert key_frames > 1
    before = heard_ms(cut)[0]
    for delay in (-80, 100):
        moved(cut, tmp_path / f"{delay}.mkv", delay)
        stamped, plain = heard_ms(tmp_path / f"{delay}.mkv")
        assert stamped - before == pytest.approx(delay, abs=LIMIT_MS)
        assert plain < -500


def test_drift(clip, tmp_path):
    source, output = clip("mkv", "flac"), tmp_path / "out.mkv"
    shift = Shift(40.0, drift_ms_per_min=120.0, at_s=1.5)
    assert shift.delay_ms_at(2.5) == 42
    move_sound(source, output, shift=shift)
    samples, _ = sound(output)
    for time in (0.3, 1.5, 2.7):
        first = round((time - 0.01) * RATE)
        part = noise()[first : first + RATE // 50]
        late = late_ms(samples[first - RATE // 10 : first + RATE // 5], like=part) - 100
        assert abs(late - shift.delay_ms_at(time)) <= LIMIT_MS


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("delay", [240, -120])
def test_copy_moves_time_stamps_alone(clip, tmp_path, suffix, delay):
    source, output = clip(suffix, "aac"), tmp_path / f"out.{suffix}"
    found = moved(source, output, delay, audio_codec=COPY)
    assert found.codecs == ("aac",)
    assert packets(output, "audio") == packets(source, "audio")
    assert packets(output, "video") == packets(source, "video")
    assert abs(heard_ms(output)[0] - heard_ms(source)[0] - delay) <= LIMIT_MS


def test_sample_of_the_repository(tmp_path):
    sample = Path(__file__).parents[2] / "data" / "sample.mp4"
    assert moved(sample, tmp_path / "out.mp4", 30) == Moved(("aac",), ())


REFUSED = [
    ("out.wmv", {}, "out.wmv: cannot be written"),
    ("out.avi", {"audio_codec": COPY}, "no time stamps"),
    ("out.mp4", {"audio_codec": COPY, "drift": 1.0}, "drift"),
    ("out.mp4", {"audio_codec": "nonsense"}, "nonsense"),
    ("out.webm", {}, "webm cannot hold its picture (h264)"),
    ("out.webm", {"audio_codec": COPY}, "webm cannot hold its picture (h264)"),
]


@pytest.mark.parametrize(("name", "options", "text"), REFUSED)
def test_wrong_usage(clip, tmp_path, name, options, text):
    shift = Shift(10, drift_ms_per_min=options.get("drift", 0.0))
    with pytest.raises(UsageError, match=text.replace("(", r"\(").replace(")", r"\)")) as found:
        move_sound(clip(), tmp_path / name, shift=shift, audio_codec=options.get("audio_codec"))
    assert "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("delay", [1e300, 1000 * SECONDS, -1000 * SECONDS])
@pytest.mark.parametrize("audio_codec", [None, COPY])
def test_shift_that_leaves_no_sound(clip, tmp_path, delay, audio_codec):
    with pytest.raises(UsageError, match="none of its sound is left, because the picture lasts"):
        move_sound(clip(), tmp_path / "out.mp4", shift=Shift(delay), audio_codec=audio_codec)
    assert not list(tmp_path.iterdir())


def test_files_without_sound_picture_or_sense(tmp_path):
    silent = clips.make(tmp_path / "silent.mp4", clips.canvas(seconds=1))
    blind = clips.make(tmp_path / "blind.mp4", clips.tone(seconds=1))
    (tmp_path / "text.mp4").write_text("no media")
    for source, text in ((silent, "has no audio"), (blind, "has no video"), (tmp_path / "text.mp4", "not a media")):
        with pytest.raises(MediaError, match=text):
            move_sound(source, tmp_path / "out.mp4", shift=Shift(10))
    assert not (tmp_path / "out.mp4").exists()


NAMES = ["-leading.mp4", "two words.mp4", "a\nb.mp4", "%d.mp4", "http:.mp4", os.fsdecode(b"caf\xe9.mp4")]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source, output = Path(name), Path("out") / name
    output.parent.mkdir()
    shutil.copy(clip(), source)
    moved(source, output, 30)
    assert abs(heard_ms(output)[0] - 30) <= LIMIT_MS


class Stop:
    """Progress that raises an error after a number of packets."""

    def __init__(self, error):
        self.error = error

    def __call__(self, items, *, total=None, desc=None):
        for count, item in enumerate(items):
            if count == 20:
                raise self.error
            yield item


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), DiskFullError),
        (av.FFmpegError(28, "No space left on device"), DiskFullError),
        (OSError(5, "Input/output error"), SyncNetError),
    ],
)
def test_nothing_half_written_is_left(clip, tmp_path, error, kind):
    output = tmp_path / "out.mp4"
    output.write_text("old")
    with pytest.raises(kind):
        move_sound(clip(), output, shift=Shift(10), progress=Stop(error))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"] and output.read_text() == "old"


@pytest.mark.parametrize("share", [0.1, 0.6, 0.99])
def test_full_disk(clip, tmp_path, share):
    source, disk = clip("mov", "pcm_s24le"), tmp_path / "disk"
    disk.mkdir()
    size = int(source.stat().st_size * share) // 4096 * 4096
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr!r}")
    try:
        with pytest.raises(DiskFullError, match="No space"):
            move_sound(source, disk / "out.mov", shift=Shift(10))
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_damaged_source_is_moved_as_far_as_it_goes(clip, tmp_path):
    content = clip("mkv", "flac").read_bytes()
    (tmp_path / "short.mkv").write_bytes(content[: len(content) // 2])
    moved(tmp_path / "short.mkv", tmp_path / "out.mkv", 50)
    assert 0.3 * SECONDS < len(sound(tmp_path / "out.mkv")[0]) / RATE < 0.7 * SECONDS
    assert abs(heard_ms(tmp_path / "out.mkv")[0] - 50) <= LIMIT_MS


def test_pictures_that_an_edit_list_hides(clip, tmp_path):
    source = tmp_path / "cut.mp4"

    def earlier(packet):
        ticks = round(Fraction(7, 10) / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
        return True

    remux(clip(), source, earlier)
    before = hidden_ms(source)
    assert moved(source, tmp_path / "out.mp4", 60).notes == ()
    assert abs(hidden_ms(tmp_path / "out.mp4") - before - 60) <= LIMIT_MS
    notes = moved(source, tmp_path / "out.mkv", 60).notes
    assert len(notes) == 1 and "pictures at the start that the source hides" in notes[0]
    assert abs(heard_ms(tmp_path / "out.mkv")[0] - heard_ms(source)[0] - 60) <= LIMIT_MS


def hidden_ms(path):
    """Return by how much the noise is late against the first picture that is shown, without time stamps."""
    with open_container(path) as container:
        first = next(container.decode(main_video(container))).time
    samples, stamp = sound(path)
    return late_ms(samples) + (stamp + picture_start(path) - first) * 1000


def test_folder_that_does_not_exist(clip, tmp_path):
    with pytest.raises(SyncNetError, match="cannot write it"):
        move_sound(clip(), tmp_path / "none" / "out.mp4", shift=Shift(10))


def test_moving_there_and_back_changes_nothing(clip, tmp_path):
    source = clip("mkv", "flac")
    moved(source, tmp_path / "there.mkv", 100)
    moved(tmp_path / "there.mkv", tmp_path / "back.mkv", -100)
    one, other = sound(source)[0], sound(tmp_path / "back.mkv")[0]
    assert np.array_equal(one[: -RATE // 10], other[: -RATE // 10])


def test_stretch_is_a_fraction():
    assert Shift(0, drift_ms_per_min=60.0).stretch == Fraction(1001, 1000)
