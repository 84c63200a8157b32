"""ffmpeg missing or killed, weights that cannot be used, steps out of order, clips that are no face crops, Ctrl-C."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time

import clips
import pytest
import torch
from checks import nothing_half_finished, one_error

from syncnet import media, scenes
from syncnet.layout import Layout, frame_files, part_folder
from syncnet.records import save_json, save_pickle
from syncnet.weights import ROOT

pytestmark = pytest.mark.usefixtures("nothing_left_running")


@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "run_visualise", "demo_syncnet"])
def test_ffmpeg_missing(run, results, face_clip, tmp_path, monkeypatch, forget_ffmpeg, script):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    clip = face_clip if script == "run_pipeline" else results.crop_files()[0]
    place = ("--tmp_dir", tmp_path / "tmp") if script == "demo_syncnet" else ("--data_dir", results.data_dir)
    ran = run(script, *place, "--reference", "me", "--videofile", clip)
    one_error(ran, "ffmpeg: not found", "apt install ffmpeg", "imageio-ffmpeg")
    nothing_half_finished(results)
    if script == "run_pipeline":
        assert results.scores.exists(), "nothing was replaced, because nothing was made"


def test_packaged_ffmpeg_is_used_without_another(tmp_path, monkeypatch, forget_ffmpeg):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert media.find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()


def test_ffmpeg_that_does_not_start(pipeline, face_clip, tmp_path, monkeypatch, forget_ffmpeg):
    broken = tmp_path / "bin" / "ffmpeg"
    broken.parent.mkdir()
    broken.write_text("no program")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent))
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
    """Put an ffmpeg on PATH that is killed in the run that has a given argument."""

    def make(argument, delay=0.05):
        wrapper = tmp_path / "bin" / "ffmpeg"
        wrapper.parent.mkdir()
        wrapper.write_text(KILLED.format(argument=argument, delay=delay, ffmpeg=media.find_ffmpeg()))
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
        media.find_ffmpeg.cache_clear()

    return make


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """A clip that ffmpeg has some work with."""
    return clips.face_clip(tmp_path_factory.mktemp("long") / "long.mp4", seconds=4, size="1280x720")


# an argument that only one step's command has: the conversion, the pictures, the sound, the clips
@pytest.mark.parametrize("argument", ["-r", "image2", "-vn", "pipe:1"])
def test_ffmpeg_killed_in_run_pipeline(pipeline, long_clip, dying_ffmpeg, argument):
    dying_ffmpeg(argument)
    ran, layout = pipeline(long_clip)
    one_error(ran, "killed (signal 9)", "run the command again")
    nothing_half_finished(layout)
    assert not layout.crops.exists()
    assert not layout.scores.exists()
    if argument == "image2":
        assert not layout.frames.exists()
        assert not layout.audio.exists()


@pytest.mark.parametrize("argument", ["image2", "-ac"])
def test_ffmpeg_killed_in_run_syncnet(run, results, dying_ffmpeg, argument):
    dying_ffmpeg(argument, delay=0)
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, "killed (signal 9)")
    nothing_half_finished(results)
    assert not results.scores.exists()
    assert not results.offsets.exists()


def test_ffmpeg_killed_in_run_visualise(run, results, dying_ffmpeg):
    dying_ffmpeg("pipe:1", delay=0)
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

    monkeypatch.setattr("syncnet.networks.FastSyncNet.video_features", fail)
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, "memory", "--batch_size")
    nothing_half_finished(results)


def test_run_syncnet_first(run, tmp_path):
    ran = run("run_syncnet", "--data_dir", tmp_path / "data", "--reference", "me")
    one_error(ran, tmp_path / "data" / "pycrop" / "me", "run_pipeline.py")
    assert not (tmp_path / "data").exists()


def test_run_visualise_first(run, tmp_path):
    ran = run("run_visualise", "--data_dir", tmp_path / "data", "--reference", "me")
    one_error(ran, tmp_path / "data" / "pywork" / "me" / "tracks.pckl", "run_pipeline.py")
    assert not (tmp_path / "data").exists()


def test_run_visualise_before_run_syncnet(run, results):
    results.distances.unlink()
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.distances, "run_syncnet.py")
    assert not results.video_out.exists()


def test_run_visualise_after_scores_of_other_tracks(run, results):
    results.distances.write_bytes(pickle.dumps([]))
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.distances, "run_syncnet.py")


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(5)[:3]])
def test_damaged_results(run, results, content):
    results.tracks.write_bytes(content)
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.tracks, "run_pipeline.py")


@pytest.mark.parametrize(
    "content",
    [
        5,
        [5],
        [{"track": {"frame": [0, 1]}, "proc_track": {"s": [1], "x": [1], "y": [1]}}],
        [{"track": {"frame": []}, "proc_track": {"s": [], "x": [], "y": []}}],
    ],
)
def test_results_of_another_form(run, results, content):
    """A pickle or JSON that can be read and holds something else."""
    flags = ("--data_dir", results.data_dir, "--reference", "me")
    save_pickle(content, results.tracks)
    one_error(run("run_visualise", *flags), results.tracks, "run_pipeline.py")


@pytest.mark.parametrize("content", [5, [5], [[1.0, 2.0]]])
def test_distances_of_another_form(run, results, content):
    save_pickle(content, results.distances)
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.distances, "run_syncnet.py")


@pytest.mark.parametrize("content", [{"a": 1}, [1], 3, {"tracks": [5]}])
def test_pipeline_record_of_another_form(run, results, content):
    save_json(content, results.pipeline)
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.pipeline, "run_pipeline.py")


@pytest.mark.parametrize("size", ["320x240", "226x224", "112x112"])
def test_clips_that_are_no_face_crops(run, results, tmp_path, size):
    clip = results.crops / "00000.avi"
    clips.make(clip, clips.canvas(seconds=1, size=size), clips.tone(seconds=1))
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, str(clip), size, "224x224", "run_pipeline.py")
    nothing_half_finished(results)
    assert not results.scores.exists()
    one_error(run("demo_syncnet", "--videofile", clip, "--tmp_dir", tmp_path / "tmp"), str(clip), size, "224x224")


def test_damaged_face_crop(run, results):
    clip = results.crops / "00000.avi"
    clip.write_bytes(clip.read_bytes()[:3000])
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me")
    if ran.code:
        one_error(ran, str(clip))
    assert results.offsets.exists() == (ran.code == 0)


@pytest.mark.parametrize("clip", ["missing", "text", "silent", "sound only", "short"])
def test_demo_on_clips_that_cannot_be_scored(run, tmp_path, clip):
    path = tmp_path / "clip.avi"
    words = {"missing": "no such file", "text": "not a media file", "silent": "no audio stream"}
    words |= {"sound only": "no video stream", "short": "too short"}
    size = "224x224"
    if clip == "text":
        path.write_text("text" * 1000)
    elif clip == "silent":
        clips.make(path, clips.canvas(seconds=1, size=size))
    elif clip == "sound only":
        clips.make(path, clips.tone(seconds=1))
    elif clip == "short":
        clips.make(path, clips.canvas(seconds=0.12, size=size), clips.tone(seconds=0.12))
    argv = ("--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "out.json")
    one_error(run("demo_syncnet", "--videofile", path, *argv), path, words[clip])
    assert not (tmp_path / "out.json").exists()


def test_demo_json_into_a_folder_that_is_not_there(run, results, tmp_path):
    argv = ("--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "no" / "out.json")
    ran = run("demo_syncnet", "--videofile", results.crop_files()[0], *argv)
    assert ran.code == 1
    [line] = [line for line in ran.err if ": error: " in line]
    assert str(tmp_path / "no" / "out.json") in line


@pytest.mark.parametrize("fails", ["detect_faces", "detect_scenes", "read_frame"])
def test_failure_in_any_thread_is_one_line(pipeline, long_clip, monkeypatch, fails):
    """Whichever part fails, nobody waits for the others, and nothing is left."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device", "/some/file")

    module = "syncnet.faces" if fails == "read_frame" else "syncnet.pipeline"
    monkeypatch.setattr(f"{module}.{fails}", fail)
    ran, layout = pipeline(long_clip)
    one_error(ran, "No space left on device")
    nothing_half_finished(layout)
    assert not layout.frames.exists()


def test_failure_does_not_wait_for_the_cuts(pipeline, long_clip, monkeypatch):
    ended = threading.Event()

    def slow(video, manager):
        while not manager._stop.is_set():
            time.sleep(0.01)
        ended.set()

    def fail(*_, **__):
        raise OSError(5, "Input/output error", "/some/file")

    monkeypatch.setattr("syncnet.pipeline.detect_scenes", slow)
    monkeypatch.setattr("syncnet.pipeline.detect_faces", fail)
    one_error(pipeline(long_clip)[0], "/some/file")
    assert ended.is_set()


def test_scene_detection_can_be_stopped(face_clip):
    manager = scenes.new_manager()
    counted = []
    detector = manager._detector_list[0]
    original = detector.process_frame

    def process(*args, **kwargs):
        counted.append(1)
        manager.stop()
        return original(*args, **kwargs)

    detector.process_frame = process
    scenes.detect_scenes(face_clip, manager)
    assert len(counted) < 30


@pytest.mark.parametrize("moment", ["load_s3fd", "detect_faces", "write_crops"])
def test_interrupted(pipeline, face_clip, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    module = "syncnet.weights" if moment == "load_s3fd" else "syncnet.pipeline"
    monkeypatch.setattr(f"{module}.{moment}", interrupt)
    ran, layout = pipeline(face_clip)
    assert ran.code == 130
    assert len(ran.err) == 1
    assert ran.err[0].endswith("interrupted")
    nothing_half_finished(layout)
    assert not layout.crops.exists()


@pytest.mark.parametrize("seconds", [0.4, 2.0, 3.5, 5.0])
def test_ctrl_c_on_the_command(long_clip, weights, tmp_path, seconds):
    """A real SIGINT at some moment: one line at most, soon."""
    command = [sys.executable, ROOT / "run_pipeline.py", "--videofile", long_clip, "--data_dir", tmp_path / "data"]
    command += ["--reference", "me", "--device", "cpu", "--s3fd_weights", weights["--s3fd_weights"]]
    command += ["--facedet_scale", "1", "--min_track", "10"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode in (130, 0, -signal.SIGINT)
    layout = Layout(tmp_path / "data", "me")
    if process.returncode == 130:
        assert stderr.splitlines() == ["run_pipeline.py: interrupted"]
        nothing_half_finished(layout)
        assert not layout.crops.exists()
    elif process.returncode:
        complete = layout.pipeline.exists() and layout.crop_files()
        assert complete or not layout.data_dir.exists(), "interrupted outside of the script's own lines"


def test_end_of_a_batch_job(long_clip, weights, tmp_path):
    """SIGTERM while ffmpeg and the detector are at work: as Ctrl-C, and ffmpeg ends, too."""
    layout = Layout(tmp_path / "data", "me")
    command = [sys.executable, ROOT / "run_pipeline.py", "--videofile", long_clip, "--data_dir", layout.data_dir]
    command += ["--reference", "me", "--device", "cpu", "--s3fd_weights", weights["--s3fd_weights"]]
    process = subprocess.Popen(
        [*command, "--facedet_scale", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not frame_files(part_folder(layout.frames)) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    _, stderr = process.communicate(timeout=300)  # an ffmpeg left behind would hold its end of the pipe
    assert (process.returncode, stderr.splitlines()) == (130, ["run_pipeline.py: interrupted"])
    nothing_half_finished(layout)


def test_reader_of_stdout_that_goes_away(results, weights):
    command = [sys.executable, "-u", ROOT / "run_syncnet.py", "--data_dir", results.data_dir, "--reference", "me"]
    command += ["--device", "cpu", "--initial_model", weights["--initial_model"]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(timeout=300) == 1
    assert stderr == ""


def test_folder_of_frames_that_was_emptied(run, results):
    shutil.rmtree(results.frames)
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.frames, "run_pipeline.py")


def test_folder_of_crops_that_is_empty(run, tmp_path):
    layout = Layout(tmp_path, "me")
    layout.crops.mkdir(parents=True)
    one_error(run("run_syncnet", "--data_dir", tmp_path, "--reference", "me"), layout.crops, "run_pipeline.py")


def test_weights_that_give_no_numbers(run, results, weights, tmp_path):
    state = torch.load(weights["--initial_model"], weights_only=True)
    state["netfclip.3.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    clip = results.crop_files()[0]
    flags = ("--initial_model", tmp_path / "nan.pt")
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me", *flags)
    one_error(ran, tmp_path / "nan.pt", "gives no numbers", "--initial_model")
    assert not results.scores.exists()
    argv = ("--videofile", clip, "--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "out.json")
    one_error(run("demo_syncnet", *argv, *flags), tmp_path / "nan.pt", "gives no numbers")
    assert not (tmp_path / "out.json").exists()


def test_an_earlier_result_does_not_pass_for_this_ones(run, results, tmp_path):
    argv = ("--tmp_dir", tmp_path / "tmp", "--json", tmp_path / "out.json")
    assert run("demo_syncnet", "--videofile", results.crop_files()[0], *argv).code == 0
    assert (tmp_path / "out.json").exists()
    mute = clips.make(tmp_path / "mute.avi", "testsrc2=s=224x224:r=25:d=1")
    one_error(run("demo_syncnet", "--videofile", mute, *argv), "no audio stream")
    assert not (tmp_path / "out.json").exists()


def test_json_in_the_inputs_place(run, results, tmp_path):
    clip = results.crop_files()[0]
    before = clip.read_bytes()
    ran = run("demo_syncnet", "--videofile", clip, "--tmp_dir", tmp_path / "tmp", "--json", clip)
    one_error(ran, clip, "--json", code=2)
    assert clip.read_bytes() == before
