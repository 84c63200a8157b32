"""Runs that end early: a failure in any thread, Ctrl-C, SIGTERM, a reader of stdout that ends."""

import signal
import subprocess
import sys
import threading
import time

import pytest
from checks import nothing_half_finished, one_error

from syncnet.faces import scenes
from syncnet.models.weights import ROOT
from syncnet.results.layout import Layout, frame_files, part_folder

pytestmark = pytest.mark.usefixtures("nothing_left_running")


@pytest.mark.parametrize("fails", ["detect_faces", "detect_scenes", "read_frame"])
def test_failure_in_any_thread_is_one_line(pipeline, long_clip, monkeypatch, fails):
    """If one part fails, the others are not waited for, and no file is left."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device", "/some/file")

    module = "syncnet.faces.detect" if fails == "read_frame" else "syncnet.steps.pipeline"
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

    monkeypatch.setattr("syncnet.steps.pipeline.detect_scenes", slow)
    monkeypatch.setattr("syncnet.steps.pipeline.detect_faces", fail)
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

    module = "syncnet.models.weights" if moment == "load_s3fd" else "syncnet.steps.pipeline"
    monkeypatch.setattr(f"{module}.{moment}", interrupt)
    ran, layout = pipeline(face_clip)
    assert ran.code == 130
    assert len(ran.err) == 1
    assert ran.err[0].endswith("interrupted")
    nothing_half_finished(layout)
    assert not layout.crops.exists()


@pytest.mark.parametrize("seconds", [0.4, 2.0, 3.5, 5.0])
def test_ctrl_c_on_the_command(long_clip, weights, tmp_path, seconds):
    """A real SIGINT at some time: the script ends soon, with at most one line."""
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
    """SIGTERM while ffmpeg and the detector are running has the effect of Ctrl-C, and ffmpeg ends too."""
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
