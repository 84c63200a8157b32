# ruff: noqa: F811, fixtures are imported
"""Samples of sound that is encoded anew."""

import av
import numpy as np
import pytest
from moved_sound import RATE, clip, moved, wav  # noqa: F401

from syncnet.media import tracks
from syncnet.media.containers import open_container
from syncnet.media.resync import Shift


@pytest.mark.parametrize("codec", ["pcm_s24le", "alac"])
def test_lossless_sound_keeps_all_its_bits(clip, tmp_path, codec):
    deep = ("-af", "volume=0.123", "-sample_fmt", "s32" if codec == "pcm_s24le" else "s32p")
    source = clip("mov", codec, flags=deep)
    moved(source, tmp_path / "out.mov", 100)
    one, other = (raw(path) for path in (source, tmp_path / "out.mov"))
    assert one.dtype == other.dtype == np.int32 and np.any(one & 0xFF00)
    assert np.array_equal(one.reshape(-1)[: -4800 * 2], other.reshape(-1)[4800 * 2 :])


def raw(path):
    with open_container(path) as container:
        converter = av.AudioResampler("s32", "stereo", RATE)
        frames = [found for frame in container.decode(audio=0) for found in converter.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])


@pytest.mark.parametrize("drift", [60.0, -7.3, 0.013])
def test_drift_is_exact_over_an_hour(drift):
    seconds, rate = 600, 8000
    track = tracks.Track(0, "flac", rate, rate, "mono", "s16", 0)
    stretch = Shift(0, drift_ms_per_min=drift).stretch
    blocks = [np.zeros((1, rate), np.int16)] * seconds
    count = sum(block.shape[1] for block in tracks.resampled(blocks, ratio=stretch, track=track))
    assert abs(count - float(seconds * rate * stretch)) < 2  # a sixth of a millisecond per hour is 1.3 samples


def test_stretched_tone_is_clean(tmp_path):
    rate = 48000
    track = tracks.Track(0, "flac", rate, rate, "mono", "flt", 0)
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)[None] * 0.5
    ratio = Shift(0, drift_ms_per_min=60).stretch
    found = np.concatenate(list(tracks.resampled([tone], ratio=ratio, track=track)), axis=1)[0]
    wanted = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(found)) / rate / float(ratio))
    inner = slice(1000, -1000)
    assert np.abs(found - wanted)[inner].max() < 1e-4  # -74 dB
