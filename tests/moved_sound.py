"""Clips whose sound is moved noise, and where readers of a file find it."""

import hashlib
import itertools

import av
import clips
import numpy as np
import pytest
from scipy.io import wavfile

from syncnet.media.containers import main_video, open_container
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.packets import time_of
from syncnet.media.resync import Shift, move_sound

RATE = 48000
SECONDS = 3
LIMIT_MS = 1.0
H264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-pix_fmt", "yuv420p")
MPEG4 = ("-c:v", "mpeg4")
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "200k")
KINDS = {  # suffix and encoders
    ("mp4", "aac"): H264,
    ("mp4", "ac3"): H264,
    ("mov", "pcm_s24le"): H264,
    ("mov", "alac"): H264,
    ("mkv", "flac"): H264,
    ("mkv", "libopus"): H264,
    ("mkv", "aac"): H264,
    ("webm", "libopus"): VP8,
    ("ts", "aac"): H264,
    ("ts", "mp2"): H264,
    ("avi", "libmp3lame"): MPEG4,
    ("avi", "pcm_s16le"): MPEG4,
}


def noise(seconds=SECONDS):
    """Return noise of varying loudness, the same every time."""
    rng = np.random.default_rng(7)
    loud = np.repeat(rng.uniform(0.1, 1, 100 * seconds), RATE // 100)
    return (rng.uniform(-9000, 9000, RATE * seconds) * loud).astype(np.int16)


def picture_start(path):
    with open_container(path) as container:
        return min(float(time_of(p, container)) for p in container.demux(main_video(container)) if p.size)


def sound(path, stream=0):
    """Return decoded mono samples one after the other, and the time stamp of the first after the first picture's."""
    parts, stamp = [], None
    with open_container(path) as container:
        converter = av.AudioResampler("fltp", "mono", RATE)
        for frame in container.decode(container.streams.audio[stream]):
            stamp = frame.time if stamp is None else stamp
            frame.pts = None
            parts += [found.to_ndarray()[0] for found in converter.resample(frame)]
        parts += [found.to_ndarray()[0] for found in converter.resample(None)]
    return np.concatenate(parts), stamp - picture_start(path)


def late_ms(samples, like=None):
    """Return by how many milliseconds the noise in samples is late."""
    like = noise() if like is None else like
    size = 1 << (len(samples) + len(like)).bit_length()
    found = np.fft.irfft(np.fft.rfft(samples, size) * np.conj(np.fft.rfft(like / 32768, size)), size)
    best = int(np.argmax(found))
    return (best if best < size // 2 else best - size) / RATE * 1000


def heard_ms(path, stream=0):
    """Return by how much the noise is late against the picture, with and without time stamps."""
    samples, stamp = sound(path, stream)
    plain = late_ms(samples)
    return plain + stamp * 1000, plain


def packets(path, kind, index=0):
    with open_container(path) as container:
        stream = getattr(container.streams, kind)[index]
        return [hashlib.md5(bytes(packet)).hexdigest() for packet in container.demux(stream) if packet.size]


def moved(source, output, delay, **options):
    found = move_sound(source, output, shift=Shift(delay), **options)
    assert [path for path in output.parent.iterdir() if ".part" in path.name or path.name[0] == "."] == []
    return found


def stamp_of(packet):
    return packet.pts * packet.time_base


@pytest.fixture(scope="module")
def wav(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    wavfile.write(path, RATE, np.stack([noise(), noise()], axis=1))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory, wav):
    """Return a function that makes a clip whose sound is ``noise``."""
    folder = tmp_path_factory.mktemp("clips")
    numbers = itertools.count()

    def make(suffix="mp4", codec="aac", *, before_video=(), before_sound=(), flags=()):
        path = folder / f"{next(numbers)}.{suffix}"
        picture = (*before_video, "-f", "lavfi", "-i", f"testsrc=s=96x64:r=25:d={SECONDS}")
        encoders = (*KINDS.get((suffix, codec), H264), "-c:a", codec)
        Ffmpeg([*picture, *before_sound, "-i", wav, *encoders, *flags, path], source=path).finish()
        return path

    return make


@pytest.fixture(scope="module")
def rich(tmp_path_factory, wav):
    """Return a function that makes a file with everything that a container can hold."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "s.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nHello\n\n2\n00:00:02,000 --> 00:00:02,500\nYou\n")
    chapters = "".join(f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={n}000\nEND={n + 1}000\ntitle=No {n}\n" for n in range(3))
    (folder / "m.txt").write_text(f";FFMETADATA1\ntitle=Title\nartist=Artist\n{chapters}")
    (folder / "font.ttf").write_bytes(b"not a font" * 20)
    cover = clips.make(folder / "cover.jpg", "testsrc=s=32x32:d=1", flags=("-frames:v", "1"))

    def make(suffix):
        path, plain = folder / f"rich.{suffix}", folder / f"plain.{suffix}"
        text, codec = {"mkv": ("ass", "flac"), "mov": ("mov_text", "alac"), "mp4": ("mov_text", "aac")}[suffix]
        inputs = ["-f", "lavfi", "-i", f"testsrc=s=96x64:r=25:d={SECONDS}", "-i", wav, "-i", folder / "s.srt"]
        maps = ["-map", "0:v", "-map", "1:a", "-map", "1:a", "-map", "2:s", "-map_metadata", "3", "-map_chapters", "3"]
        tags = ["-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "language=eng", "-metadata:s:s", "language=jpn"]
        colour = ["-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"]
        marks = ["-disposition:a:0", "0", "-disposition:a:1", "default"]
        encoders = [*H264, "-c:a", codec, "-c:s", text]
        extra = {
            "mkv": ["-attach", folder / "font.ttf", "-metadata:s:t", "mimetype=font/ttf"],
            "mov": ["-timecode", "01:00:00:00"],
            "mp4": ["-map", "4:v", "-c:v:1", "copy", "-disposition:v:1", "attached_pic"],
        }[suffix]
        sources = [*inputs, "-i", folder / "m.txt", *(["-i", cover] if suffix == "mp4" else [])]
        Ffmpeg([*sources, *maps, *encoders, *tags, *colour, *marks, *extra, plain], source=plain).finish()
        if suffix == "mkv":
            return plain
        turned = ["-i", plain, "-map", "0", "-dn", "-c", "copy", "-metadata:s:v:0", "rotate=90", path]
        Ffmpeg(turned, source=path).finish()
        return path

    return make
