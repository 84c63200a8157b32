"""The sound on the container's clock, against samples that the tests place themselves."""

from fractions import Fraction

import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from syncnet.errors import MediaError
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.sound import Sound, SoundInMemory, resample

RATE = 16000


def noise(seconds=2.0, *, rate=RATE, seed=0):
    """Return smooth noise, which survives every sample rate and encoder, as int16."""
    low = np.random.default_rng(seed).normal(0, 1, int(seconds * 2000))
    found = resample_poly(low, rate // 1000, 2)
    return (found / np.abs(found).max() * 12000).astype(np.int16)[: int(seconds * rate)]


def write(path, pieces, *, rate=RATE, layout="mono", codec="pcm_s16le", default=0):
    """Write audio streams of pieces, each at a sample number.

    Args:
        path: file to write.
        pieces: per stream a list of sample number and samples (N, or N x channels).
        rate, layout, codec: of all streams.
        default: index of the stream that is marked as default.
    """
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=rate, layout=layout) for _ in pieces]
        for index, stream in enumerate(streams):
            stream.disposition = av.stream.Disposition.default if index == default else av.stream.Disposition(0)
        container.start_encoding()
        packets = []
        for stream, places in zip(streams, pieces):
            for at, samples in places:
                for start in range(0, len(samples), 800):
                    part = np.ascontiguousarray(samples[start : start + 800]).reshape(1, -1)
                    frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
                    frame.sample_rate, frame.pts, frame.time_base = rate, at + start, Fraction(1, rate)
                    packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.pts * packet.time_base):
            container.mux(packet)
    return path


def read(path, *, first=0, last=2 * RATE, zero=0.0, **options):
    sound = Sound(path, zero=zero, **options)
    try:
        return sound.read(first, last)
    finally:
        sound.close()


def delay(reference, found):
    """Return by how many samples ``found`` is late, to a part of a sample, and the correlation there."""
    spectrum = np.fft.rfft(found, 2 * len(found)) * np.conj(np.fft.rfft(reference, 2 * len(found)))
    alike = np.fft.irfft(spectrum)
    best = int(alike.argmax())
    before, peak, after = alike[best - 1], alike[best], alike[(best + 1) % len(alike)]
    shift = best if best < len(found) else best - len(alike)
    norm = np.linalg.norm(found.astype(float)) * np.linalg.norm(reference.astype(float))
    return shift + (before - after) / (2 * (before - 2 * peak + after)), peak / norm


@pytest.mark.parametrize("late", [0, 3200, 4801])
@pytest.mark.parametrize("zero", [0.0, 0.25, 0.1])
def test_late_and_early_sound(late, zero, tmp_path):
    """Sample 0 is at ``zero``; before and after the sound there is silence."""
    samples, start = noise(1), round(zero * RATE)
    path = write(tmp_path / "a.nut", [[(late, samples)]])
    expected = np.concatenate([np.zeros(late, np.int16), samples, np.zeros(2 * RATE, np.int16)])
    np.testing.assert_array_equal(read(path, zero=zero, last=RATE + 500), expected[start : start + RATE + 500])
    sound = Sound(path, zero=zero, before=4000)
    assert sound.first == max(late - start, -4000)
    assert sound.length(10**6) == late + RATE - start == sound.end
    np.testing.assert_array_equal(sound.read(-start, 100), expected[: start + 100])
    sound.close()


@pytest.mark.parametrize("gap", [4000, -400])
def test_hole_and_overlap(gap, tmp_path):
    """A hole is silence; of sound that comes twice, the first counts."""
    one, two = noise(0.75), noise(0.75, seed=1)
    path = write(tmp_path / "a.nut", [[(0, one), (len(one) + gap, two)]])
    expected = np.concatenate([one, np.zeros(max(0, gap), np.int16), two[max(0, -gap) :]])
    np.testing.assert_array_equal(read(path, last=len(expected)), expected)


def test_in_pieces_as_at_once(tmp_path):
    one, two = noise(1.3), noise(1.1, seed=1)
    path = write(tmp_path / "a.mkv", [[(1600, one), (1600 + len(one) + 8000, two)]], rate=RATE)
    whole = read(path, first=-1000, last=4 * RATE)
    sound, pieces, at = Sound(path, zero=0.0), [], -1000
    for length in np.random.default_rng(0).integers(1, 5000, 100):
        pieces.append(sound.read(at, at + length))
        at += length
        sound.forget(at)
        assert sum(map(len, sound.parts)) < 20000
    np.testing.assert_array_equal(np.concatenate(pieces)[: len(whole)], whole)
    sound.close()


@pytest.mark.parametrize(
    ("rate", "layout"),
    [(8000, "mono"), (11025, "stereo"), (22050, "mono"), (44100, "stereo"), (48000, "5.1"), (96000, "stereo")],
)
def test_rates_and_channels(rate, layout, tmp_path):
    """Resampling and mixing delay nothing."""
    original = noise(rate=96000)
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    samples = resample(original, sample_rate=96000)
    ratio = Fraction(rate, 96000)
    source = resample_poly(original.astype(float), ratio.numerator, ratio.denominator)
    spread = np.repeat(source.astype(np.int16)[:, None], channels, axis=1).ravel()
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(spread.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    found = read(path, last=len(samples))
    shift, alike = delay(samples, found)
    assert abs(shift) < 0.1 and alike > 0.999
    assert np.abs(found).max() > 5000


ENCODERS = [
    (".mp4", ("-c:a", "aac")),
    (".m4a", ("-c:a", "aac", "-ar", "44100")),
    (".webm", ("-c:a", "libopus")),
    (".mp4", ("-c:a", "libmp3lame", "-ar", "44100")),
    (".mkv", ("-c:a", "flac")),
]


@pytest.mark.parametrize(("suffix", "flags"), ENCODERS)
def test_declared_encoder_delays(suffix, flags, tmp_path):
    original = noise()
    source = write(tmp_path / "a.wav", [[(0, original)]])
    path = tmp_path / f"b{suffix}"
    Ffmpeg(["-i", source, "-b:a", "128k", *flags, path], source=path).finish()
    with av.open(str(path)) as container:
        zero = (container.start_time or 0) / 1e6
    shift, alike = delay(original, read(path, zero=max(0.0, zero)))
    assert abs(shift) < (16 if suffix in (".webm", ".mkv") else 1.1)  # Matroska rounds to 1 ms
    assert alike > 0.95


def test_parameters_that_change_within_a_stream(tmp_path):
    """Broadcasts change from mono to stereo, in the same stream."""
    parts = []
    for index, layout in enumerate(("mono", "stereo")):
        samples = np.repeat(noise(1, rate=48000, seed=index), index + 1)
        path = tmp_path / f"{layout}.ts"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mp2", rate=48000, layout=layout)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 48000, (index + 1) * 48000, Fraction(1, 48000)
            container.mux([*stream.encode(frame), *stream.encode(None)])
        parts.append(path.read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    with av.open(str(tmp_path / "both.ts")) as container:
        zero = container.start_time / 1e6
    found = read(tmp_path / "both.ts", zero=zero)
    shift, alike = delay(noise(1), found[:RATE])
    later, alike_later = delay(noise(1, seed=1), found[RATE:])
    assert abs(later - shift) < 1  # samples; the packets are of 384
    assert alike > 0.9 and alike_later > 0.9


def test_the_stream_that_a_player_takes(tmp_path):
    one, two = noise(), noise(seed=1)
    second = write(tmp_path / "second.mkv", [[(0, one)], [(0, two)]], default=1)
    np.testing.assert_array_equal(read(second), two)
    np.testing.assert_array_equal(read(second, stream=0), one)
    unmarked = write(tmp_path / "unmarked.nut", [[(0, one)], [(0, two)]], default=None)
    np.testing.assert_array_equal(read(unmarked), one)
    np.testing.assert_array_equal(read(unmarked, stream=1), two)
    with pytest.raises(MediaError, match=r"second\.mkv: has 2 audio streams, so --audio_stream 2 is not one"):
        Sound(second, stream=2)


def test_another_file_starts_with_the_video(tmp_path):
    """Sample 0 is so long after the file's own start."""
    path = write(tmp_path / "a.nut", [[(1600, noise())]])
    sound = Sound(path, after=0.05)
    np.testing.assert_array_equal(sound.read(0, 1000), noise()[800:1800])
    sound.close()


def test_sound_that_nobody_asks_for_is_not_kept(tmp_path):
    """A video without faces needs the length of its sound alone."""
    sound = Sound(write(tmp_path / "a.nut", [[(0, noise())]]), zero=0.0)
    sound.forget(RATE)
    assert sound.length(10**6) == 2 * RATE
    assert sum(map(len, sound.parts)) <= RATE + 800
    np.testing.assert_array_equal(sound.read(RATE, 3 * RATE), [*noise()[RATE:], *np.zeros(RATE, np.int16)])
    sound.close()


def test_a_wild_time_stamp_ends_the_sound(tmp_path):
    """It does not fill the memory with silence."""
    path = write(tmp_path / "a.nut", [[(0, noise(1)), (10**6 * RATE, noise(1))]])
    sound = Sound(path, zero=0.0)
    assert sound.length(10**6) == RATE
    sound.close()


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("kind", ["int16", "float32", "stereo"])
def test_sound_in_memory(rate, kind):
    samples = noise(rate=96000)
    ratio = Fraction(rate, 96000)
    source = resample_poly(samples.astype(float), ratio.numerator, ratio.denominator)
    given = source.round().astype(np.int16) if kind == "int16" else (source / 32768).astype(np.float32)
    if kind == "stereo":
        given = np.stack([given * 1.5, given * 0.5])
    found = resample(given, sample_rate=rate)
    assert found.dtype == np.int16 and abs(len(found) - 2 * RATE) <= 1
    shift, alike = delay(resample(samples, sample_rate=96000)[: len(found)], found)
    assert abs(shift) < 0.02 and alike > 0.999


def test_silence_around_sound_in_memory():
    sound = SoundInMemory(np.arange(1, 6, dtype=np.int16))
    assert sound.read(-2, 7).tolist() == [0, 0, 1, 2, 3, 4, 5, 0, 0]
    assert sound.read(-5, -2).tolist() == [0, 0, 0] == sound.read(9, 12).tolist()
    assert (sound.first, sound.length(100)) == (0, 5)


def test_loud_float_sound_is_limited():
    assert resample(np.array([2.0, -2.0, 0.5]), sample_rate=RATE).tolist() == [32767, -32768, 16384]
