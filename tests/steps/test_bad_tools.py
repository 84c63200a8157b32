"""ffmpeg missing or killed, devices that do not exist, too little memory, weights that produce NaN."""

import json
import sys
from dataclasses import asdict

import pytest
import torch
from checks import nothing_half_finished, one_error

from syncnet.media.ffmpeg import find_ffmpeg
from syncnet.media.fingerprint import behaviour, cache_file

pytestmark = pytest.mark.usefixtures("nothing_left_running")


@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "run_visualise", "demo_syncnet"])
def test_ffmpeg_missing(run, results, face_clip, tmp_path, monkeypatch, forget_ffmpeg, script):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SYNCNET_FFMPEG", raising=False)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    clip = face_clip if script == "run_pipeline" else results.crop_files()[0]
    place = ("--tmp_dir", tmp_path / "tmp") if script == "demo_syncnet" else ("--data_dir", results.data_dir)
    ran = run(script, *place, "--reference", "me", "--videofile", clip)
    one_error(ran, "ffmpeg: not found", "apt install ffmpeg", "imageio-ffmpeg")
    nothing_half_finished(results)
    if script == "run_pipeline":
        assert results.scores.exists(), "nothing was replaced, because nothing was made"


def test_ffmpeg_that_does_not_start(pipeline, face_clip, tmp_path, monkeypatch, forget_ffmpeg):
    broken = tmp_path / "bin" / "ffmpeg"
    broken.parent.mkdir()
    broken.write_text("no program")
    broken.chmod(0o755)
    monkeypatch.setenv("SYNCNET_FFMPEG", str(broken))
    one_error(pipeline(face_clip)[0], broken, "cannot be started")


KILLED = """#!/bin/sh
# the real ffmpeg, which dies of signal 9 shortly after the start of the run that has this argument
for argument do
    if [ "$argument" = "{argument}" ]; then
        "{ffmpeg}" "$@" &
        sleep {delay}
        kill -9 $! 2>/dev/null
        wait $! 2>/dev/null
        kill -9 $$
    fi
done
exec "{ffmpeg}" "$@"
"""


@pytest.fixture
def dying_ffmpeg(tmp_path, monkeypatch, forget_ffmpeg):
    """Replace ffmpeg by one that is killed in the call that has a given argument."""

    def make(argument, delay=0.05):
        found = behaviour()
        wrapper = tmp_path / "killed"
        wrapper.write_text(KILLED.format(argument=argument, delay=delay, ffmpeg=find_ffmpeg().path))
        wrapper.chmod(0o755)
        monkeypatch.setenv("SYNCNET_FFMPEG", str(wrapper))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        find_ffmpeg.cache_clear()
        cache_file().parent.mkdir(parents=True)
        cache_file().write_text(json.dumps(asdict(found)), encoding="utf-8")

    return make


# an argument that only one step's command has
CONVERSION, FRAMES, AUDIO, MUXING = "conversion", "image2", "-vn", "-c:v"


@pytest.mark.parametrize("argument", [CONVERSION, FRAMES, AUDIO, MUXING])
def test_ffmpeg_killed_in_run_pipeline(pipeline, long_clip, dying_ffmpeg, argument):
    dying_ffmpeg(("-r" if behaviour().keeps_gaps else "-enc_time_base:v") if argument == CONVERSION else argument)
    ran, layout = pipeline(long_clip)
    one_error(ran, "killed (signal 9)", "run the command again")
    nothing_half_finished(layout)
    assert not layout.crops.exists()
    assert not layout.scores.exists()
    if argument == FRAMES:
        assert not layout.frames.exists()
        assert not layout.audio.exists()


@pytest.mark.parametrize("argument", [FRAMES, AUDIO])
def test_ffmpeg_killed_in_run_syncnet(run, results, dying_ffmpeg, argument):
    dying_ffmpeg(argument, delay=0)
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, "killed (signal 9)")
    nothing_half_finished(results)
    assert not results.scores.exists()
    assert not results.offsets.exists()


def test_ffmpeg_killed_in_run_visualise(run, results, dying_ffmpeg):
    dying_ffmpeg(MUXING, delay=0)
    one_error(run("run_visualise", "--data_dir", results.data_dir, "--reference", "me"), "killed (signal 9)")
    nothing_half_finished(results)
    assert not results.video_out.exists()


@pytest.mark.parametrize("name", ["vulkan?", "meta", "xpu", "cuda:99"])
def test_device_that_is_not_there(run, results, name):
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me", "--device", name)
    one_error(ran, "--device", name, code=2)


def test_too_little_memory(run, results, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("syncnet.models.fast.FastSyncNet.video_features", fail)
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, "memory", "--batch_size")
    nothing_half_finished(results)


def test_weights_that_produce_nan(run, results, weights, tmp_path):
    state = torch.load(weights["--initial_model"], weights_only=True)
    state["netfclip.3.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    clip = results.crop_files()[0]
    flags = ("--initial_model", tmp_path / "nan.pt")
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me", *flags)
    one_error(ran, tmp_path / "nan.pt", "produces NaN or infinite values", "--initial_model")
    assert not results.scores.exists()
    argv = ("--videofile", clip, "--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "out.json")
    one_error(run("demo_syncnet", *argv, *flags), tmp_path / "nan.pt", "produces NaN or infinite values")
    assert not (tmp_path / "out.json").exists()
