"""The zero of the lag: measured on videos in step, kept with the weights, found there."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import wavfile

from syncnet.constants import SAMPLE_RATE
from syncnet.errors import WeightsError
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.models import weights
from syncnet.models.weights import SYNCNET, Weights, identify, lag_zero
from training.face.talking_face import render_clip
from training.syncnet import lag_zero as measuring
from training.syncnet.clips import write_crop

STARTER = weights.ROOT / SYNCNET.starter


@pytest.fixture
def copied(tmp_path) -> Weights:
    """Weights that the suite does not know."""
    path = tmp_path / "other.pt"
    path.write_bytes(STARTER.read_bytes())
    return replace(identify(path, SYNCNET), sha256="0" * 64)


def test_starter_has_a_zero():
    zero = lag_zero(identify(STARTER, SYNCNET))
    assert zero is not None
    assert abs(zero) < 5


def test_a_copy_of_known_weights_has_their_zero(tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(STARTER.read_bytes())
    assert lag_zero(identify(copy, SYNCNET)) == lag_zero(identify(STARTER, SYNCNET))


def test_other_weights_are_unmeasured(copied):
    assert lag_zero(copied) is None


def test_zero_is_written_and_found(copied):
    path = measuring.default_file(copied)
    assert path.name == "other.pt.lag_zero.json"
    measuring.write_zero(path, copied, [3.0, 4.0, 8.0])
    assert lag_zero(copied) == 5.0
    assert json.loads(path.read_text())[copied.sha256]["videos"] == 3
    changed = replace(copied, sha256="1" * 64)
    assert lag_zero(changed) is None
    measuring.write_zero(path, changed, [1.0, 2.0])
    assert (lag_zero(copied), lag_zero(changed)) == (5.0, 1.5)


def test_zero_of_the_starter_is_beside_it():
    assert measuring.default_file(identify(STARTER, SYNCNET)) == STARTER.with_name("lag_zero.json")


@pytest.mark.parametrize("content", ["", "[1]", '{"x": {}}', '{"x": {"zero_ms": "1"}}'])
def test_a_damaged_file_is_named(copied, content):
    path = measuring.default_file(copied)
    path.write_text(content)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        lag_zero(copied)


@pytest.mark.slow
def test_videos_in_step_give_a_zero(tmp_path, capsys):
    videos, output = tmp_path / "videos", tmp_path / "zero.json"
    videos.mkdir()
    for seed in (9700, 9701):
        clip = render_clip(seed, 3.0)
        silent, audio = tmp_path / "silent.avi", tmp_path / "audio.wav"
        write_crop(clip.frames, silent)
        wavfile.write(audio, SAMPLE_RATE, clip.audio)
        Ffmpeg(["-i", silent, "-i", audio, "-c", "copy", videos / f"{seed}.avi"], source=silent).finish()
    call = ["--videos", str(videos), "--initial_model", str(STARTER), "--output", str(output)]
    assert measuring.main(call) == 0
    [zero] = json.loads(output.read_text()).values()
    assert zero["videos"] == 2
    assert abs(zero["zero_ms"]) < 10
    assert zero["spread_ms"] < 10
    assert capsys.readouterr().out.count("confidence") == 2


def test_too_few_videos(tmp_path, capsys):
    videos = tmp_path / "videos"
    videos.mkdir()
    output = tmp_path / "zero.json"
    assert measuring.main(["--videos", str(videos), "--initial_model", str(STARTER), "--output", str(output)]) == 1
    assert f"{videos}: 0 videos of confidence 3 or more" in capsys.readouterr().err
    assert not output.exists()
    assert measuring.main(["--videos", str(tmp_path / "none"), "--initial_model", str(STARTER)]) == 1
    assert "none: " in capsys.readouterr().err


def test_a_short_crop_is_refused(tmp_path):
    frames = np.zeros((4, 224, 224, 3), np.uint8)
    with pytest.raises(measuring.MediaError, match="too short"):
        measuring.lag_of(None, frames, np.zeros(16000, np.int16))
