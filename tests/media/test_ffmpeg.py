"""Selection of ffmpeg, its fingerprint, and refusal of inputs that refer to other files."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import clips
import numpy as np
import pytest
from checks import one_error

from syncnet.errors import MediaError, ToolError
from syncnet.media import conversions, fingerprint
from syncnet.media.containers import FORMATS, check_streams, main_audio, main_video, open_container, probe
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT, Program, find_ffmpeg, packaged_binary
from syncnet.media.fingerprint import behaviour, cache_file, examine

pytestmark = pytest.mark.usefixtures("forget_ffmpeg", "nothing_left_running")


@pytest.fixture
def packaged(monkeypatch):
    """Return the path of the packaged ffmpeg, with no environment variable selecting another one."""
    monkeypatch.delenv("SYNCNET_FFMPEG", raising=False)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    return packaged_binary() or pytest.skip("the package imageio-ffmpeg has no binary for this platform")


@pytest.fixture
def another(packaged, tmp_path):
    """Return a link to the packaged ffmpeg, as a second ffmpeg in another place."""
    path = tmp_path / "bin" / "ffmpeg"
    path.parent.mkdir()
    path.symlink_to(packaged)
    return path


def test_the_package_has_priority_over_path(packaged, another, monkeypatch):
    monkeypatch.setenv("PATH", str(another.parent))
    assert find_ffmpeg() == Program(packaged, "imageio-ffmpeg")
    assert Path(packaged).parent.name == "binaries"


def test_environment_variables_select_ffmpeg(another, monkeypatch):
    monkeypatch.setenv("PATH", str(another.parent))
    monkeypatch.setenv("SYNCNET_FFMPEG", "system")
    assert find_ffmpeg() == Program(str(another), "PATH")
    find_ffmpeg.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SYNCNET_FFMPEG", str(another))
    assert find_ffmpeg() == Program(str(another), "SYNCNET_FFMPEG")
    find_ffmpeg.cache_clear()
    monkeypatch.delenv("SYNCNET_FFMPEG")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(another))
    assert find_ffmpeg() == Program(str(another), "IMAGEIO_FFMPEG_EXE")


def test_the_selected_ffmpeg_is_in_the_recipe(another, run, face_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(another))
    flags = ("--videofile", face_clip, "--reference", "me", "--data_dir", tmp_path / "data")
    assert run("run_pipeline", *flags).code == 0
    report = json.loads((tmp_path / "data/pywork/me/pipeline.json").read_text())
    versions = report["recipe"]["versions"]
    assert versions["ffmpeg_source"] == "IMAGEIO_FFMPEG_EXE"
    assert versions["ffmpeg_fingerprint"] == behaviour().fingerprint
    assert versions["ffmpeg"] == behaviour().version


@pytest.mark.parametrize("value", ["system", "/no/such/ffmpeg"])
def test_a_selected_ffmpeg_that_does_not_exist(pipeline, face_clip, monkeypatch, value):
    monkeypatch.setenv("SYNCNET_FFMPEG", value)
    monkeypatch.setenv("PATH", "")
    one_error(pipeline(face_clip)[0], value, "SYNCNET_FFMPEG")


def test_a_package_without_executable(another, monkeypatch, caplog):
    monkeypatch.setattr("syncnet.media.ffmpeg.packaged_binary", lambda: None)
    monkeypatch.setenv("PATH", str(another.parent))
    with caplog.at_level(logging.WARNING, logger="syncnet"):
        assert find_ffmpeg() == Program(str(another), "PATH")
    assert "scores may differ" in caplog.text
    find_ffmpeg.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolError, match="pip install imageio-ffmpeg"):
        find_ffmpeg()


def test_the_packaged_ffmpeg_has_the_published_fingerprint(packaged):
    assert examine().fingerprint == PUBLISHED_FINGERPRINT


def test_the_fingerprint_is_cached(packaged, tmp_path, monkeypatch):
    """It is computed once per ffmpeg, and again after an update."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = behaviour()
    file = cache_file()
    assert file.is_relative_to(tmp_path) and json.loads(file.read_text())["fingerprint"] == found.fingerprint
    monkeypatch.setattr(fingerprint, "examine", lambda: pytest.fail("computed again"))
    behaviour.cache_clear()
    assert behaviour() == found
    copy = tmp_path / "ffmpeg"
    copy.write_bytes(Path(packaged).read_bytes())
    copy.chmod(0o755)
    monkeypatch.setenv("SYNCNET_FFMPEG", str(copy))
    find_ffmpeg.cache_clear()
    first = cache_file()
    os.utime(copy, (1, 1))
    assert len({file, first, cache_file()}) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": "1"}', "null"])
def test_damaged_cache(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_file().parent.mkdir(parents=True)
    cache_file().write_text(content)
    found = behaviour()
    assert json.loads(cache_file().read_text())["fingerprint"] == found.fingerprint


def test_without_a_writable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(behaviour().fingerprint) == 16


def test_an_ffmpeg_with_unknown_frame_rate_conversion(monkeypatch):
    monkeypatch.setattr(fingerprint, "indexed_frames", lambda video: 7)
    with pytest.raises(ToolError, match="SYNCNET_FFMPEG"):
        examine()


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{video}\n",
    "live HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:5\n",
    "ffconcat": "ffconcat version 1.0\nfile '{video}'\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "DASH": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{video}</BaseURL></Representation></AdaptationSet></Period></MPD>\n',
    "ffmetadata": ";FFMETADATA1\ntitle={video}\n",
}


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.m3u8", "a.mpd", "a.sdp", "a.ffconcat"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_files_that_refer_to_other_files_are_refused(pipeline, run, face_clip, tmp_path, kind, name):
    (tmp_path / "video.mp4").symlink_to(face_clip)
    path = tmp_path / name
    path.write_text(PLAYLISTS[kind].format(video=tmp_path / "video.mp4"))
    started = time.monotonic()
    ran, layout = pipeline(path)
    one_error(ran, path, "not a media file")
    assert not layout.video.exists()
    one_error(run("demo_syncnet", "--videofile", path, "--tmp_dir", tmp_path / "tmp"), path, "not a media file")
    assert time.monotonic() - started < 5


def test_ffmpeg_itself_refuses_playlists(face_clip, tmp_path):
    """Even if the check of the streams accepted them."""
    path = tmp_path / "a.mp4"
    path.write_text(PLAYLISTS["ffconcat"].format(video=face_clip))
    with pytest.raises(MediaError):
        conversions.start_frames(path, tmp_path).finish()
    assert not list(tmp_path.glob("*.jpg"))


def test_image_sequences_are_refused(face_clip, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    conversions.start_frames(face_clip, frames).finish()
    for path in (frames / "000001.jpg", frames / "%06d.jpg", frames / "0*.jpg"):
        with pytest.raises(MediaError):
            probe(path)


@pytest.mark.parametrize("name", ["%03d.mp4", "50%.mp4", "a b'c\"d.mp4", "-i.mp4", "concat:a|b.mp4", "ü\n.mp4"])
def test_special_characters_in_file_names(pipeline, face_clip, tmp_path, name):
    path = tmp_path / name
    path.symlink_to(face_clip)
    ran, layout = pipeline(path)
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 1


def test_pyav_supports_all_formats():
    import av

    assert set(FORMATS) <= set(av.formats_available)


def test_selected_streams(tmp_path):
    """The largest video stream; the default audio stream, else the one with the most channels."""
    inputs = (clips.canvas(seconds=0.4), clips.canvas(seconds=0.4, size="640x480"), clips.tone(seconds=0.4))
    more = (f"{clips.tone(seconds=0.4)},aformat=channel_layouts=stereo",)
    maps = [part for index in range(4) for part in ("-map", str(index))]
    clear = ("-disposition:v", "0", "-disposition:a", "0")
    path = clips.make(tmp_path / "a.mkv", *inputs, *more, flags=(*maps, "-c:a", "pcm_s16le", *clear))
    with open_container(path) as container:
        assert main_video(container).width == 640
        assert main_audio(container).channels == 2
    path = clips.make(
        tmp_path / "b.mkv", *inputs, *more, flags=(*maps, "-c:a", "pcm_s16le", *clear, "-disposition:a:0", "default")
    )
    with open_container(path) as container:
        assert main_audio(container).channels == 1


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=float))))


@pytest.mark.parametrize("channels", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_audio_keeps_its_level_and_length(tmp_path, rate, channels):
    """Audio keeps level and length through MP3 and 16 kHz mono. `make test-ffmpeg` compares all ffmpeg versions."""
    tone = f"{clips.tone(seconds=1.5, rate=rate)},aformat=channel_layouts={channels}"
    source = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=1.5), tone, flags=("-c:a", "pcm_s16le"))
    video, wav = tmp_path / "a.avi", tmp_path / "a.wav"
    options = {"script": tmp_path / "rate.txt", "behaviour": behaviour()}
    conversions.start_conversion(source, video, streams=check_streams(source), **options).finish()
    conversions.start_audio(video, wav).finish()
    samples = conversions.read_wav(wav)
    assert len(samples) / 16000 == pytest.approx(1.5, abs=0.16)
    conversions.start_audio(source, tmp_path / "plain.wav", streams=probe(source)).finish()
    plain = conversions.read_wav(tmp_path / "plain.wav")
    assert rms(samples[4000:20000]) == pytest.approx(rms(plain[4000:20000]), rel=0.06)


def test_a_script_without_any_ffmpeg_on_path(face_clip, tmp_path):
    """Run it as a command, with an empty cache."""
    root = Path(__file__).resolve().parents[2]
    environment = {"PATH": "", "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    if "SYNCNET_FFMPEG" in os.environ:
        environment["SYNCNET_FFMPEG"] = find_ffmpeg().path
    command = [sys.executable, "run_pipeline.py", "--videofile", str(face_clip), "--reference", "me"]
    command += ["--data_dir", str(tmp_path / "data"), "--min_track", "10", "--quiet"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "cache/syncnet").glob("ffmpeg-*.json"))
