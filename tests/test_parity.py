"""The reference's own numbers, with its stand-in weights: scripts from end to end."""

import json
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import demo_syncnet
import run_pipeline
import run_syncnet
from syncnet import weights as weights_module
from syncnet.layout import Layout
from syncnet.records import load_pickle
from SyncNetInstance import SyncNetInstance

PIXELS = 0.05
DISTANCE = 0.003
OTHER_LAME = 0.3  # of ffmpegs that encode MP3 differently
GREY = 0.05


def golden(shared, name):
    return json.loads((shared / "reference/golden" / name).read_text())


@pytest.fixture(scope="module")
def seeded(shared, tmp_path_factory):
    """Folder with the stand-in weights."""
    folder = tmp_path_factory.mktemp("seeded")
    subprocess.run([sys.executable, shared / "reference/seeded_weights.py", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def doctor(shared, seeded, tmp_path_factory):
    """``Layout`` after run_pipeline and run_syncnet on doctor.mp4."""
    data_dir = tmp_path_factory.mktemp("doctor")
    flags = ["--videofile", str(shared / "media/doctor.mp4"), "--reference", "doctor", "--data_dir", str(data_dir)]
    flags += ["--device", "cpu", "--quiet"]
    detector, model = seeded / "sfd_face.pth", seeded / "syncnet_v2.model"
    assert run_pipeline.main([*flags, "--min_track", "50", "--s3fd_weights", str(detector)]) == 0
    assert run_syncnet.main([*flags, "--initial_model", str(model)]) == 0
    return Layout(data_dir, "doctor")


@pytest.mark.shared
@pytest.mark.slow
def test_demo(shared, seeded, tmp_path, capsys):
    expected = golden(shared, "demo_example.json")
    clip, model, report = shared / "media/example.avi", seeded / "syncnet_v2.model", tmp_path / "demo.json"
    flags = ["--videofile", clip, "--initial_model", model, "--tmp_dir", tmp_path, "--json", report, "--device", "cpu"]
    assert demo_syncnet.main(list(map(str, flags))) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == expected["printed"]
    track = json.loads(report.read_text())["tracks"][0]
    assert (track["offset"], track["windows"]) == (expected["offset"], expected["windows"])

    net = SyncNetInstance("cpu")
    net.loadParameters(model)
    opt = SimpleNamespace(tmp_dir=str(tmp_path), reference="again", batch_size=7, vshift=15)
    offset, confidence, dists = net.evaluate(opt, str(clip))
    assert offset == expected["offset"]
    assert confidence == pytest.approx(expected["confidence"], abs=DISTANCE)
    assert dists.mean(axis=0) == pytest.approx(expected["mean_dist_by_shift"], abs=DISTANCE)
    assert dists[0] == pytest.approx(expected["first_window_dists"], abs=DISTANCE)
    assert dists[-1] == pytest.approx(expected["last_window_dists"], abs=DISTANCE)
    features = net.extract_feature(opt, str(clip))
    assert list(features.shape) == expected["extract_feature"]["shape"]
    assert features[0, :8].numpy() == pytest.approx(expected["extract_feature"]["row_0_first_8"], abs=DISTANCE)
    assert features.mean().item() == pytest.approx(expected["extract_feature"]["mean"], abs=DISTANCE)


@pytest.mark.shared
@pytest.mark.slow
def test_pipeline(shared, doctor):
    expected = golden(shared, "pipeline_doctor.json")
    faces = load_pickle(doctor.faces, made_by="run_pipeline.py")
    assert len(faces) == expected["frames"]
    assert [len(of_frame) for of_frame in faces] == expected["dets_per_frame"]
    for face, other in zip(faces[0], expected["faces_frame_0"]):
        assert face["bbox"] == pytest.approx(other["bbox"], abs=PIXELS)
        assert face["conf"] == pytest.approx(other["conf"], abs=DISTANCE)
    scenes = load_pickle(doctor.scenes, made_by="run_pipeline.py")
    assert [[start.frame_num, end.frame_num] for start, end in scenes] == expected["scenes"]
    tracks = load_pickle(doctor.tracks, made_by="run_pipeline.py")
    assert len(tracks) == len(expected["tracks"])
    for track, other in zip(tracks, expected["tracks"]):
        frame = track["track"]["frame"]
        assert (frame[0], frame[-1], len(frame)) == (other["first"], other["last"], other["last"] - other["first"] + 1)
        assert track["track"]["bbox"].mean(axis=0) == pytest.approx(other["bbox_mean"], abs=PIXELS)
        for name in "xys":
            assert track["proc_track"][name].mean() == pytest.approx(other[name], abs=PIXELS)
    assert len(doctor.crop_files()) == len(expected["crops"])
    for file, other in zip(doctor.crop_files(), expected["crops"]):
        pictures = list(decoded(file))
        assert (file.name, len(pictures)) == (other["file"], other["frames"])
        assert np.mean(pictures) == pytest.approx(other["mean_pixel"], abs=GREY)


def decoded(file):
    """Mean pixel of every frame."""
    capture = cv2.VideoCapture(str(file))
    while True:
        there, image = capture.read()
        if not there:
            return
        yield image.mean()


@pytest.mark.shared
@pytest.mark.slow
def test_scores(shared, doctor):
    expected = golden(shared, "pipeline_doctor.json")
    dists = load_pickle(doctor.distances, made_by="run_syncnet.py")
    report = json.loads(doctor.scores.read_text())
    assert len(dists) == len(report["tracks"]) == len(expected["scores"])
    for track, record, other in zip(dists, report["tracks"], expected["scores"]):
        assert len(track) == record["windows"] == other["windows"]
        assert track.mean(axis=0) == pytest.approx(other["mean_dist_by_shift"], abs=DISTANCE)
        assert record["offset"] == other["offset"]
        for name in ("min_dist", "confidence"):
            assert record[name] == pytest.approx(other[name], abs=DISTANCE)
    assert doctor.offsets.read_text().splitlines() == expected["offsets_txt"]


@pytest.mark.published
def test_published_weights(tmp_path):
    """What the published files give on the published clip."""
    clip, model = (weights_module.ROOT / name for name in ("data/example.avi", weights_module.SYNCNET.published))
    if not (clip.exists() and model.exists()):
        pytest.skip("the published weights and clip are not there: sh download_model.sh")
    flags = ["--videofile", clip, "--initial_model", model, "--tmp_dir", tmp_path, "--json", tmp_path / "demo.json"]
    assert demo_syncnet.main(list(map(str, flags))) == 0
    track = json.loads((tmp_path / "demo.json").read_text())["tracks"][0]
    assert track["offset"] == 3
    assert track["min_dist"] == pytest.approx(5.353, abs=0.01)
    assert track["confidence"] == pytest.approx(10.021, abs=0.01)
