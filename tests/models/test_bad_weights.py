"""Unusable weights and results, including files that contain code."""

import os
import pickle
import zipfile

import pytest
import torch
from checks import one_error

pytestmark = pytest.mark.usefixtures("nothing_left_running")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Code:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_bad_weights(kind, weights, path):
    right = weights.read_bytes()
    if kind == "missing":
        return
    if kind == "code":
        torch.save({"vgg.0.weight": Code(path.with_name("ran"))}, path)
    elif kind == "code, old format":
        path.write_bytes(pickle.dumps(Code(path.with_name("ran"))))
    else:
        data = {"empty": b"", "truncated": right[: len(right) // 2], "text": b"<html>not found</html>" * 50}[kind]
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "text", "code", "code, old format"])
@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "demo_syncnet"])
def test_weights_that_cannot_be_used(run, weights, results, face_clip, tmp_path, script, kind):
    flag = "--s3fd_weights" if script == "run_pipeline" else "--initial_model"
    bad = tmp_path / "bad.pth"
    write_bad_weights(kind, weights[flag], bad)
    before = contents(results.data_dir)
    clip = face_clip if script == "run_pipeline" else results.crop_files()[0]
    place = ("--tmp_dir", tmp_path / "tmp") if script == "demo_syncnet" else ("--data_dir", results.data_dir)
    ran = run(script, *place, "--reference", "me", "--videofile", clip, flag, bad)
    one_error(ran, bad, "sh download_model.sh")
    assert not (tmp_path / "ran").exists()
    assert contents(results.data_dir) == before


def test_weights_of_the_other_network(run, weights, results, face_clip):
    flags = ("--data_dir", results.data_dir, "--reference", "me", "--videofile", face_clip)
    before = contents(results.data_dir)
    swapped = weights["--initial_model"]
    one_error(run("run_pipeline", *flags, "--s3fd_weights", swapped), swapped, "not weights of S3FD", "--s3fd_weights")
    swapped = weights["--s3fd_weights"]
    one_error(
        run("run_syncnet", *flags, "--initial_model", swapped), swapped, "not weights of SyncNet", "--initial_model"
    )
    assert contents(results.data_dir) == before


def test_archive_without_weights(run, results, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    ran = run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me", "--initial_model", tmp_path / "a.pth")
    one_error(ran, tmp_path / "a.pth")


def test_code_in_results_does_not_run(run, results, tmp_path):
    results.tracks.write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    one_error(run("run_visualise", "--data_dir", results.data_dir, "--reference", "me"), results.tracks)
    assert not (tmp_path / "ran").exists()
