"""Files that are odd but legal: tags, codecs, and streams that start late or change on the way."""

import os

import clips
import numpy as np
import pytest
from checks import one_error

from syncnet.errors import MediaError
from syncnet.media import conversions, fingerprint
from syncnet.media.containers import check_streams, probe
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.media.fingerprint import behaviour

pytestmark = pytest.mark.usefixtures("nothing_left_running")


def patched(path, old, new):
    """Replace bytes of a file."""
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_tags_that_are_not_unicode(pipeline, tmp_path, suffix):
    flags = ("-c:v", "mpeg4", "-metadata", "title=caXXe")
    clip = patched(clips.face_clip(tmp_path / f"a{suffix}", flags=flags), b"caXXe", b"caf\xe9e")
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 1


def two_audio_streams(path):
    source = clips.canvas(seconds=1.4) + clips.square(100, 60)
    maps = ("-map", "0", "-map", "1", "-map", "2", "-c:a:0", "pcm_s16le", "-c:a:1", "flac")
    return clips.make(path, source, clips.tone(seconds=1.4), clips.tone(seconds=1.4), flags=maps)


def test_a_second_stream_of_an_unknown_codec(pipeline, tmp_path):
    """Phones add spatial audio that no decoder here knows."""
    ran, layout = pipeline(patched(two_audio_streams(tmp_path / "a.mkv"), b"A_FLAC", b"A_XXXX"))
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 1


def test_the_only_stream_of_an_unknown_codec(pipeline, run, tmp_path):
    clip = clips.face_clip(tmp_path / "a.mkv", flags=("-c:v", "mpeg4"))
    patched(clip, b"V_MPEG4/ISO/ASP", b"V_XXXXX/ISO/ASP")
    one_error(pipeline(clip)[0], clip, "no video stream that can be decoded")
    one_error(run("demo_syncnet", "--videofile", clip, "--tmp_dir", tmp_path / "tmp"), clip, "no video stream")


def test_frames_that_come_late(tmp_path):
    """ffmpeg 4 ends with an error after 128 packets of audio without a frame, unless told otherwise."""
    sparse = f"{clips.canvas(seconds=20, rate='1')},select='eq(n,0)+eq(n,9)+eq(n,19)'"
    source = clips.make(
        tmp_path / "a.mkv", sparse, clips.tone(seconds=20), flags=("-c:v", "mpeg4", "-enc_time_base:v", "1:1")
    )
    options = {"script": tmp_path / "rate.txt", "streams": check_streams(source), "behaviour": behaviour()}
    conversions.start_conversion(source, tmp_path / "a.avi", **options).finish()
    assert conversions.frame_count(tmp_path / "a.avi") > 450


@pytest.mark.skipif(not behaviour().has_async, reason="ffmpeg from 6 on pads such audio twice: docs/ffmpeg.md")
def test_audio_that_changes_on_the_way(tmp_path):
    """A broadcast that goes from mono to stereo: what follows the change stays in its place."""
    parts = []
    for index, (rate, channels) in enumerate([(44100, "mono"), (48000, "stereo")]):
        tone = f"{clips.tone(seconds=1.2, rate=rate)},aformat=channel_layouts={channels}"
        flags = ("-output_ts_offset", str(1.2 * index), "-c:v", "mpeg2video", "-c:a", "mp2")
        parts.append(clips.make(tmp_path / f"{index}.ts", clips.canvas(seconds=1.2), tone, flags=flags))
    source = tmp_path / "both.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    options = {"script": tmp_path / "rate.txt", "streams": check_streams(source), "behaviour": behaviour()}
    conversions.start_conversion(source, tmp_path / "a.avi", **options).finish()
    conversions.start_audio(tmp_path / "a.avi", tmp_path / "a.wav").finish()
    samples = conversions.read_wav(tmp_path / "a.wav")
    assert len(samples) / 16000 == pytest.approx(2.4, abs=0.3)
    assert (np.abs(samples[20000:30000]) > 500).mean() > 0.8


def test_rates_that_the_fps_flag_alone_would_break(tmp_path):
    """Frames whose size changes on the way rebuild ffmpeg's filters."""
    if not behaviour().keeps_gaps:
        pytest.skip("from ffmpeg 7 on frames after such a change can be placed otherwise: docs/ffmpeg.md")
    parts = []
    for index, size in enumerate(["160x120", "320x240"]):
        flags = ("-output_ts_offset", str(index), "-c:v", "mpeg2video", "-c:a", "mp2", "-bf", "0")
        source = clips.canvas(seconds=1, rate="30", size=size)
        parts.append(clips.make(tmp_path / f"{index}.ts", source, clips.tone(seconds=1), flags=flags))
    joined = tmp_path / "both.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    options = {"script": tmp_path / "rate.txt", "streams": check_streams(joined), "behaviour": behaviour()}
    conversions.start_conversion(joined, tmp_path / "ours.avi", **options).finish()
    flags = ["-i", joined, "-qscale:v", "2", "-async", "1", "-r", "25", tmp_path / "theirs.avi"]
    Ffmpeg(flags, source=joined).finish()
    assert conversions.frame_count(tmp_path / "ours.avi") == conversions.frame_count(tmp_path / "theirs.avi")


def test_a_user_without_a_home_folder(monkeypatch):
    def no_home(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(fingerprint.platformdirs, "user_cache_dir", no_home)
    behaviour.cache_clear()
    assert len(behaviour().fingerprint) == 16
    behaviour.cache_clear()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"version": 1, "fingerprint": null, "keeps_gaps": 0, "has_async": 1}']
)
def test_a_cache_of_another_form(tmp_path, content):
    path = tmp_path / "cache.json"
    path.write_text(content)
    with pytest.raises((ValueError, TypeError, RecursionError)):
        fingerprint.read_cache(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_unicode(tmp_path):
    clip = clips.face_clip(tmp_path / "a.mp4")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    clip.rename(odd)
    assert probe(odd).video and probe(odd).audio
    with pytest.raises(MediaError):
        probe(os.fsdecode(os.fsencode(tmp_path) + b"/none\xe9.mp4"))
