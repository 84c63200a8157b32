"""A clip that is a face crop of any size: the step, and the demo with --face_crops."""

import json

import clips
import numpy as np
import pytest

from syncnet import reasons
from syncnet.errors import MediaError, UsageError
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.layout import Layout
from syncnet.steps import single
from SyncNetInstance import SyncNetInstance

pytestmark = pytest.mark.usefixtures("nothing_left_running")

FRAMES = 40


@pytest.fixture(scope="module")
def net(weights):
    net = SyncNetInstance("cpu")
    net.loadParameters(weights["--initial_model"])
    return net


@pytest.fixture(scope="module")
def crop(tmp_path_factory):
    """Frames of 100x100 that flash with the audio."""
    folder, light = tmp_path_factory.mktemp("crop"), clips.flashes(FRAMES)
    images = clips.flashing_face([light], corners=[(0, 0)], size=(clips.FACE, clips.FACE))
    clips.write_frames(folder / "frames", images)
    clips.write_audio(folder / "audio.wav", light)
    return clips.encode(folder / "crop.avi", folder / "frames", folder / "audio.wav")


def score(clip, net, folder, **options):
    return single.run(clip, Layout(folder, "me"), net, print_line=lambda line: None, **options)


def test_report(crop, net, tmp_path):
    report = score(crop, net, tmp_path / "scratch", min_speaking=0.2, vshift=10)
    assert report["videofile"] == str(crop) and report["mode"] == "published"
    [track] = report["tracks"]
    assert (track["first_frame"], track["last_frame"], track["box"]) == (0, FRAMES - 1, None)
    assert track["offset"] in (0, 1) and track["confidence"] > 0.2 and track["lse_c"] is None
    assert track["speaking_s"] is not None
    recipe = report["recipe"]["syncnet"]
    assert recipe["min_speaking"] == 0.2
    assert (recipe["face_crops"], recipe["audio"], recipe["audio_stream"], recipe["vshift"]) == (True, None, None, 10)
    assert not (tmp_path / "scratch" / "pytmp" / "me").exists()


def test_same_as_the_demo(crop, net, run, tmp_path):
    """The demo writes the same numbers, and without the flag names it as a way out."""
    flags = ("--videofile", crop, "--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "demo.json")
    ran = run("demo_syncnet", *flags)
    assert ran.code == 1 and "100x100" in ran.err[-1] and "--face_crops" in ran.err[-1]
    assert run("demo_syncnet", *flags, "--face_crops").code == 0
    report = json.loads((tmp_path / "demo.json").read_text())
    assert report["tracks"] == score(crop, net, tmp_path)["tracks"]
    assert report["recipe"]["syncnet"]["face_crops"] is True


def test_another_frame_rate(crop, net, tmp_path, caplog):
    fast = tmp_path / "fast.avi"
    Ffmpeg(["-i", crop, "-r", "30", "-q:v", "2", "-c:a", "copy", fast], source=crop).finish()
    score(crop, net, tmp_path)
    assert not caplog.records
    score(fast, net, tmp_path)
    assert "fast.avi: has 30 frames per second" in caplog.text


def test_another_sound(crop, net, tmp_path):
    """The sound of a file that was 4 frames early."""
    wav = clips.write_audio(tmp_path / "early.wav", np.roll(clips.flashes(FRAMES), -4))
    report = score(crop, net, tmp_path, audio=wav)
    assert report["tracks"][0]["offset"] - score(crop, net, tmp_path)["tracks"][0]["offset"] == 4
    assert report["recipe"]["syncnet"]["audio"] == str(wav)
    assert json.dumps(report)


@pytest.mark.parametrize(
    ("flags", "code"), [(("-an",), reasons.NO_AUDIO), (("-frames:v", "4", "-t", "0.16"), reasons.TOO_SHORT)]
)
def test_nothing_to_score(crop, net, tmp_path, flags, code):
    clip = tmp_path / "clip.avi"
    Ffmpeg(["-i", crop, *flags, "-c", "copy", clip], source=crop).finish()
    report = score(clip, net, tmp_path)
    assert report["tracks"] == []
    assert [reason["code"] for reason in report["reasons"]] == [code]
    assert str(clip) not in report["reasons"][0]["text"]


def test_input_that_cannot_be_used(crop, net, tmp_path):
    (tmp_path / "text.avi").write_text("no clip")
    with pytest.raises(MediaError, match=r"text\.avi: not a media file"):
        score(tmp_path / "text.avi", net, tmp_path)
    with pytest.raises(MediaError, match="1 audio stream, so --audio_stream 3"):
        score(crop, net, tmp_path, audio_stream=3)
    inside = tmp_path / "pytmp" / "me" / "crop.avi"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(crop.read_bytes())
    with pytest.raises(UsageError, match=r"crop\.avi"):
        score(inside, net, tmp_path)
    assert inside.exists()
