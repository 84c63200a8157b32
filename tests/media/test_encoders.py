# ruff: noqa: F811, fixtures are imported
"""Codecs and bit rates of sound that is encoded anew."""

import numpy as np
import pytest
from moved_sound import LIMIT_MS, SECONDS, clip, heard_ms, moved, wav  # noqa: F401

from syncnet.errors import UsageError
from syncnet.media import encoders, tracks
from syncnet.media.containers import open_container
from syncnet.media.resync import COPY, Moved, Shift, move_sound
from syncnet.media.sound import single_channels

CHOICES = [
    # codec, lossless, sample format, container, encoder
    ("aac", False, "fltp", "mp4", "aac"),
    ("mp3", False, "fltp", "mpegts", "libmp3lame"),
    ("opus", False, "fltp", "webm", "libopus"),
    ("vorbis", False, "fltp", "webm", "libopus"),
    ("aac", False, "fltp", "webm", "libopus"),
    ("atrac3", False, "fltp", "avi", "aac"),
    ("dts", False, "fltp", "avi", "ac3"),
    ("wmapro", False, "fltp", "mp4", "aac"),
    ("dts", False, "fltp", "matroska", "ac3"),
    ("truehd", True, "s32", "matroska", "flac"),
    ("truehd", True, "s32", "mov", "alac"),
    ("flac", True, "s16", "mov", "alac"),
    ("alac", True, "s16p", "avi", "flac"),
    ("pcm_s16be", True, "s16", "avi", "pcm_s16le"),
    ("pcm_f32le", True, "flt", "webm", "libopus"),
    ("cook", False, "fltp", "mp4", "aac"),
    ("amr_nb", False, "flt", "mov", "aac"),
]


@pytest.mark.parametrize(("name", "exact", "sample_format", "format", "encoder"), CHOICES)
def test_nearest_codec(name, exact, sample_format, format, encoder):
    found = encoders.choose_encoder(name, exact=exact, sample_format=sample_format, format=format, wanted=None)
    assert found == encoder


def test_bit_rates():
    allowed = encoders.allowed_bit_rate
    assert allowed("aac", 131_000, channels=2, sample_rate=44100) == 131_000
    assert allowed("libmp3lame", 129_000, channels=2, sample_rate=44100) == 128_000  # measured
    assert allowed("libmp3lame", 140_000, channels=2, sample_rate=44100) == 160_000
    assert allowed("libmp3lame", 400_000, channels=2, sample_rate=44100) == 320_000
    assert allowed("mp2", 100_000, channels=2, sample_rate=22050) == 112_000
    assert allowed("ac3", 70_000, channels=1, sample_rate=32000) == 80_000
    assert allowed("libopus", 900_000, channels=2, sample_rate=48000) == 512_000


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("ts", "mp2"), ("avi", "libmp3lame")])
def test_bit_rate_is_no_less_than_the_source_s(clip, tmp_path, suffix, codec):
    source, output = clip(suffix, codec, flags=("-b:a", "160k")), tmp_path / f"out.{suffix}"
    moved(source, output, 10)
    with open_container(output) as container:
        size = sum(packet.size for packet in container.demux(audio=0))
    assert size * 8 / SECONDS >= 160_000 * 0.98


def test_profile_that_cannot_be_encoded(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(tracks, "NOT_WRITTEN", ("LC",))  # no program here writes HE-AAC
    found = moved(clip(flags=("-b:a", "48k")), tmp_path / "out.mp4", 30)
    assert found == Moved(("aac",), ("stream 1: sound becomes aac (LC): aac (LC) cannot be encoded",))
    with open_container(tmp_path / "out.mp4") as container:
        assert sum(packet.size for packet in container.demux(audio=0)) * 8 / SECONDS >= 192_000 * 0.95


def test_another_codec(clip, tmp_path):
    found = moved(clip("mp4", "aac"), tmp_path / "out.mkv", 30, audio_codec="mp3")
    assert found == Moved(("mp3",), ())
    assert max(abs(ms - 30) for ms in heard_ms(tmp_path / "out.mkv")) <= LIMIT_MS


@pytest.mark.parametrize("layout", ["mono", "5.1"])
def test_channels_are_kept(clip, tmp_path, layout):
    source = clip("mp4", "aac", flags=("-ac", "1" if layout == "mono" else "6", "-ar", "44100"))
    moved(source, tmp_path / "out.mp4", 30)
    with open_container(tmp_path / "out.mp4") as container:
        found = container.streams.audio[0]
        assert (found.layout.name, found.sample_rate) == (layout, 44100)


@pytest.mark.parametrize(
    ("codec", "layout", "notes"),
    [
        ("opus", "5.1", ()),  # AC-3 has 5.1(side), which Opus does not take
        ("mp3", "stereo", ("stream 1: sound becomes stereo: libmp3lame cannot encode 5.1(side)",)),
    ],
)
def test_channels_that_the_encoder_does_not_take(clip, tmp_path, codec, layout, notes):
    source = clip("mp4", "ac3", flags=("-ac", "6"))
    assert moved(source, tmp_path / "out.mkv", 30, audio_codec=codec).notes == notes
    with open_container(tmp_path / "out.mkv") as container:
        assert container.streams.audio[0].layout.name == layout
    assert max(abs(ms - 30) for ms in heard_ms(tmp_path / "out.mkv")) <= LIMIT_MS


def test_bit_rate_is_one_of_the_encoder_s_at_the_rate_that_is_written(clip, tmp_path):
    source = clip("mp4", "aac", flags=("-ac", "1", "-ar", "16000", "-b:a", "70k"))
    moved(source, tmp_path / "out.mp4", 30, audio_codec="ac3")
    with open_container(tmp_path / "out.mp4") as container:
        assert container.streams.audio[0].bit_rate >= 80_000


def test_channels_of_which_the_file_does_not_tell_more(clip, tmp_path):
    source = clip("mkv", "pcm_s16le", flags=("-ac", "4"))
    with open_container(source) as container:
        assert container.streams.audio[0].layout.name == "4 channels"
    moved(source, tmp_path / "out.mp4", 30)  # MP4 wants to know
    with open_container(tmp_path / "out.mp4") as container:
        assert container.streams.audio[0].channels == 4
    assert max(abs(ms - 30) for ms in heard_ms(tmp_path / "out.mp4")) <= LIMIT_MS


@pytest.mark.parametrize(
    ("suffix", "codec", "drift"), [("mp4", "aac", 0.0), ("mkv", "flac", 0.0), ("mkv", "pcm_s16le", 6.0)]
)
def test_eight_channels(clip, tmp_path, suffix, codec, drift):
    channels = "|".join(f"c{index}={0.1 * (index + 1)}*c0" for index in range(8))
    source = clip("mkv", "flac", flags=("-filter:a", f"pan=7.1|{channels}"))
    output = tmp_path / f"out.{suffix}"
    move_sound(source, output, shift=Shift(30, drift_ms_per_min=drift), audio_codec=codec)
    assert max(abs(ms - 30) for ms in heard_ms(output)) <= LIMIT_MS
    levels = [np.abs(sound.read(0, 32000).astype(float)).mean() for sound in single_channels(output, stream=None)]
    assert len(levels) == 8
    if codec != "aac":  # which cuts the treble of one of them
        assert np.round(np.array(levels) / levels[7] * 8).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_more_channels_than_can_be_encoded(clip, tmp_path):
    source = clip("avi", "pcm_s16le", flags=("-filter:a", "pan=10C|c0=c0|c9=c1"))
    with pytest.raises(UsageError, match="10 channels"):
        moved(source, tmp_path / "out.mkv", 30)
    moved(source, tmp_path / "out.mkv", 30, audio_codec=COPY)
    with open_container(tmp_path / "out.mkv") as container:
        assert container.streams.audio[0].channels == 10
