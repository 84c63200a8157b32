"""Clips whose sound is moved."""

import itertools

import clips
import numpy as np
import pytest
from moved_sound import H264, KINDS, RATE, SECONDS, noise
from scipy.io import wavfile

from syncnet.media.ffmpeg import Ffmpeg


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
