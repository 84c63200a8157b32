"""Noise whose sound is moved, and where readers of a file find it."""

import hashlib

import av
import numpy as np

from syncnet.media.containers import main_video, open_container
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
