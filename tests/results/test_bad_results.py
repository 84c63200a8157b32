"""Steps in the wrong order, results that are damaged or of another form, clips that are not face crops."""

import pickle
import shutil

import clips
import pytest
from checks import nothing_half_finished, one_error

from syncnet.results.layout import Layout
from syncnet.results.step_files import save_json, save_pickle

pytestmark = pytest.mark.usefixtures("nothing_left_running")


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
    """A valid pickle with unexpected content."""
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
    one_error(ran, str(clip), size, "224x224", "run_pipeline.py", "--face_crops")
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
    assert ran.code == 2 and ran.out == []  # before the clip is scored
    [line] = [line for line in ran.err if ": error: " in line]
    assert str(tmp_path / "no" / "out.json") in line


def test_folder_of_frames_that_was_emptied(run, results):
    shutil.rmtree(results.frames)
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", "me")
    one_error(ran, results.frames, "run_pipeline.py")


def test_folder_of_crops_that_is_empty(run, tmp_path):
    layout = Layout(tmp_path, "me")
    layout.crops.mkdir(parents=True)
    one_error(run("run_syncnet", "--data_dir", tmp_path, "--reference", "me"), layout.crops, "run_pipeline.py")


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
