"""The scripts on data/sample.mp4 with the starter weights: the right offset and the right speaker."""

import numpy as np
import pytest
import torch
from conftest import ROOT

import run_pipeline
import run_syncnet
from syncnet import defaults
from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.media import conversions
from syncnet.media.frames import read_frame
from syncnet.results.layout import Layout, frame_files
from syncnet.results.step_files import load_json, load_pickle
from syncnet.sync import scoring
from SyncNetInstance import SyncNetInstance
from training.face.make_sample import SHOTS, delay
from training.face.talking_face import Voice, speak

SAMPLE = ROOT / "data" / "sample.mp4"
STARTER = ROOT / "data" / "starter"
CUT = round(SHOTS[0][1] * FRAME_RATE)
MOST_FRAMES = 12
GUEST, LISTENER, HOST = range(3)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """``Layout`` after run_pipeline and run_syncnet on the sample."""
    folder = tmp_path_factory.mktemp("sample")
    flags = ["--videofile", str(SAMPLE), "--reference", "sample", "--data_dir", str(folder), "--device", "cpu"]
    assert run_pipeline.main([*flags, "--s3fd_weights", str(STARTER / "s3fd.pt")]) == 0
    assert run_syncnet.main([*flags, "--initial_model", str(STARTER / "syncnet.pt")]) == 0
    return Layout(folder, "sample")


@pytest.fixture(scope="module")
def tracks(results):
    """The three tracks of scores.json: the guest, the listener beside her, the host."""
    places = load_pickle(results.tracks, made_by="run_pipeline.py")
    scored = load_json(results.scores, made_by="run_syncnet.py")["tracks"]
    return sorted(scored, key=lambda t: (t["first_frame"] >= CUT, places[t["track"]]["proc_track"]["x"].mean()))


@pytest.fixture(scope="module")
def guest(results, tracks, tmp_path_factory):
    """SyncNet, the video features of the guest, and her audio."""
    crop = results.crop_files()[tracks[GUEST]["track"]]
    folder = tmp_path_factory.mktemp("guest")
    net = SyncNetInstance("cpu")
    net.loadParameters(str(STARTER / "syncnet.pt"))
    conversions.start_frames(crop, folder).finish()
    conversions.start_audio(crop, folder / "audio.wav").finish()
    frames = map(read_frame, frame_files(folder))
    batches = net._frame_batches(frames, batch_size=defaults.BATCH_SIZE)
    video = torch.cat([net.net.video_features(batch) for batch in batches])
    return net, video, conversions.read_wav(folder / "audio.wav")


def score(guest, samples):
    net, video, _ = guest
    audio = net._audio_features(samples, count=len(video), batch_size=defaults.BATCH_SIZE)
    dists = scoring.distances(video[: len(audio)], audio, vshift=defaults.VSHIFT)
    return scoring.score(dists, video_frames=len(video), audio_frames=len(samples) // SAMPLES_PER_FRAME)


def test_both_who_talk_are_in_sync(tracks):
    assert len(tracks) == 3
    assert [tracks[who]["offset"] for who in (GUEST, HOST)] == [0, 0]
    assert min(tracks[who]["confidence"] for who in (GUEST, HOST)) > 3


def test_the_right_one_is_named_as_the_speaker(results, tracks):
    spans = load_json(results.scores, made_by="run_syncnet.py")["speakers"]
    assert [span["track"] for span in spans] == [tracks[GUEST]["track"], tracks[HOST]["track"]]
    assert abs(spans[1]["start"] - CUT / FRAME_RATE) < 0.1


def test_the_listener_has_a_lower_confidence_than_the_speaker(tracks):
    assert tracks[LISTENER]["confidence"] < 0.3 * tracks[GUEST]["confidence"]


@pytest.mark.parametrize("frames", range(-MOST_FRAMES, MOST_FRAMES + 1))
def test_the_offset_follows_the_audio(guest, frames):
    moved = score(guest, delay(guest[2], frames))
    assert moved.offset == -frames
    assert moved.confidence > 3


def test_other_audio_has_low_confidence(guest):
    own = score(guest, guest[2])
    seconds = len(guest[2]) / SAMPLE_RATE
    for seed in range(3):
        foreign = score(guest, speak(seconds, seed=seed, voice=Voice(pitch=205.0)).audio[: len(guest[2])])
        assert foreign.confidence < 0.4 * own.confidence
    assert score(guest, np.zeros_like(guest[2])).confidence < 0.1 * own.confidence
