"""Scores of whole clips against a plain implementation: one window at a time, plain MFCC, distances in loops."""

from types import SimpleNamespace

import clips
import cv2
import numpy as np
import pytest
import python_speech_features
import standins
import torch
from scipy.io import wavfile

from syncnet import reasons
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.models.weights import load_syncnet
from SyncNetInstance import SyncNetInstance
from SyncNetModel import S

TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """``SyncNetInstance`` with random weights, and the plain network with the same weights."""
    path = tmp_path_factory.mktemp("noise") / "syncnet.pt"
    state = standins.noise(S(32, width=1 / 12), seed=2)
    state["netcnnlip.1.running_var"] *= 1e4
    state["netcnnaud.1.running_var"] *= 1e2
    torch.save(state, path)
    net = SyncNetInstance("cpu")
    net.loadParameters(path)
    return net, load_syncnet(path)[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """31 frames of coloured blocks, 30 frames of audio."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(7)
    frames = [np.kron(rng.integers(0, 256, (14, 14, 3), np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in range(31)]
    clips.write_frames(folder / "frames", frames)
    clips.write_audio(folder / "audio.wav", rng.random(30) > 0.3)
    return clips.encode(folder / "clip.avi", folder / "frames", folder / "audio.wav")


def lip_window(frames, first):
    """1 x 3 x 5 x 224 x 224 pixels of the frames from ``first`` on."""
    window = np.stack(frames[first : first + 5], axis=3).transpose(2, 3, 0, 1)[None]
    return torch.from_numpy(window.astype(np.float32))


@torch.no_grad()
def plain_distances(net, frames, samples, *, vshift):
    """Windows x shifts."""
    coefficients = python_speech_features.mfcc(samples, 16000).T.astype(np.float32)
    count = min(len(frames), len(samples) // 640) - 5
    silence = [torch.zeros(1, net.netfcaud[3].out_features)] * vshift
    video = [net.forward_lip(lip_window(frames, i)) for i in range(count)]
    windows = [torch.from_numpy(coefficients[None, None, :, 4 * i : 4 * i + 20]) for i in range(count)]
    audio = [*silence, *(net.forward_aud(window) for window in windows), *silence]
    distance = torch.nn.functional.pairwise_distance
    return np.array([[distance(video[i], audio[i + k]).item() for k in range(2 * vshift + 1)] for i in range(count)])


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_score(noisy, clip, tmp_path, batch_size):
    net, plain = noisy
    lines = []
    score = net.score(clip, folder=tmp_path / "clip", batch_size=batch_size, vshift=6, print_line=lines.append)
    frames = [cv2.imread(str(file)) for file in sorted((tmp_path / "clip").glob("*.jpg"))]
    rate, samples = wavfile.read(tmp_path / "clip" / "audio.wav")
    assert rate == 16000
    expected = plain_distances(plain, frames, samples, vshift=6)
    assert score.dists.shape == expected.shape == (25, 13)
    np.testing.assert_allclose(score.dists, expected, rtol=0, atol=TOLERANCE * expected.max())
    mean = expected.mean(axis=0)
    assert expected.std(axis=0).min() > 0.05 and np.diff(np.sort(mean)[:2]) > 0.01  # the distances differ clearly
    assert score.offset == 6 - mean.argmin()
    assert score.min_dist == pytest.approx(mean.min(), rel=TOLERANCE)
    assert score.confidence == pytest.approx(np.median(mean) - mean.min(), abs=TOLERANCE * mean.max())
    assert (score.video_frames, score.audio_frames) == (31, 30)
    assert "31 frames of video and 30 of audio" in lines[0]


@pytest.mark.parametrize("batch_size", [1, 6, 20])
def test_extract_feature(noisy, clip, batch_size):
    net, plain = noisy
    features = net.extract_feature(SimpleNamespace(batch_size=batch_size), str(clip))
    frames = clips.decode(clip)
    with torch.no_grad():
        expected = torch.cat([plain.forward_lipfeat(lip_window(frames, i)) for i in range(len(frames) - 4)])
    assert len(features) == 27 and expected.std(dim=0).max() > 0.1
    torch.testing.assert_close(features, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())


@pytest.mark.parametrize(("frames", "windows"), [(6, 1), (7, 2)])
def test_shortest_clips(noisy, clip, tmp_path, frames, windows):
    """The shortest clip with a score has one frame more than a window."""
    clips.write_frames(tmp_path / "frames", clips.decode(clip)[:frames])
    clips.write_audio(tmp_path / "audio.wav", np.ones(frames))
    short = clips.encode(tmp_path / "short.avi", tmp_path / "frames", tmp_path / "audio.wav")
    score = noisy[0].score(short, folder=tmp_path / "clip", print_line=lambda line: None)
    assert len(score.dists) == windows


@pytest.mark.usefixtures("nothing_left_running")
def test_clips_one_after_the_other(noisy, clip, tmp_path):
    """Clips score as if each were alone; one that is missing or cannot be scored does not stop the others."""
    net, _ = noisy
    missing, empty = tmp_path / "missing.avi", tmp_path / "empty.avi"
    empty.touch()
    silent, text = tmp_path / "silent.avi", tmp_path / "text.avi"
    Ffmpeg(["-i", clip, "-an", "-c", "copy", silent], source=clip).finish()
    text.write_text("no clip")
    lines = []
    all_of_them = [clip, silent, text, missing, empty, clip]
    found = list(net.score_all(all_of_them, folder=tmp_path / "all", print_line=lines.append))
    alone = net.score(clip, folder=tmp_path / "alone", print_line=lambda line: None)
    for score in (found[0], found[5]):
        np.testing.assert_array_equal(score.dists, alone.dists)
        assert (score.offset, score.video_frames, score.audio_frames) == (alone.offset, 31, 30)
    assert [error.code for error in found[1:5]] == [reasons.NO_AUDIO, reasons.NOT_MEDIA, None, reasons.NOT_MEDIA]
    assert str(found[3]).startswith(f"{missing}: no such file")
    assert sum("AV offset" in line for line in lines) == 2


@pytest.mark.usefixtures("nothing_left_running")
def test_scoring_that_is_given_up(noisy, clip, tmp_path):
    scores = noisy[0].score_all([clip] * 3, folder=tmp_path / "clip", print_line=lambda line: None)
    assert next(scores).video_frames == 31
    scores.close()


def quiet(net, clip, folder, **options):
    return net.score(clip, folder=folder, vshift=6, print_line=lambda line: None, **options)


def test_face_crops_of_any_size(noisy, clip, tmp_path):
    """The frames go through JPEG, then they are resized."""
    net, plain = noisy
    small = tmp_path / "small.avi"
    Ffmpeg(["-i", clip, "-vf", "scale=160:120", "-q:v", "2", "-c:a", "copy", small], source=clip).finish()
    score = quiet(net, small, tmp_path / "clip", face_crops=True)
    frames = [cv2.resize(cv2.imread(str(file)), (224, 224)) for file in sorted((tmp_path / "clip").glob("*.jpg"))]
    _, samples = wavfile.read(tmp_path / "clip" / "audio.wav")
    expected = plain_distances(plain, frames, samples, vshift=6)
    np.testing.assert_allclose(score.dists, expected, rtol=0, atol=TOLERANCE * expected.max())
    with pytest.raises(MediaError, match=r"160x120.*--face_crops"):
        quiet(net, small, tmp_path / "clip")


def test_face_crops_of_the_right_size(noisy, clip, tmp_path):
    found = [quiet(noisy[0], clip, tmp_path / "clip", face_crops=crops).dists for crops in (False, True)]
    np.testing.assert_array_equal(*found)


def test_another_sound(noisy, clip, tmp_path):
    """Sound from another file scores as if it were the clip's own, whether the clip has any or not."""
    net, _ = noisy
    wav, both, mute = (
        clips.write_audio(tmp_path / "b.wav", np.arange(30) % 7 > 2),
        tmp_path / "b.avi",
        tmp_path / "m.avi",
    )
    Ffmpeg(["-i", clip, "-i", wav, "-map", "0:v", "-map", "1:a", "-c", "copy", both], source=clip).finish()
    Ffmpeg(["-i", clip, "-an", "-c", "copy", mute], source=clip).finish()
    expected = quiet(net, both, tmp_path / "clip").dists
    assert np.abs(expected - quiet(net, clip, tmp_path / "clip").dists).max() > 0.1
    for source in (clip, mute):
        for sound in (wav, both):
            np.testing.assert_array_equal(quiet(net, source, tmp_path / "clip", audio=sound).dists, expected)
    with pytest.raises(MediaError, match=rf"{mute}.*--audio"):
        quiet(net, clip, tmp_path / "clip", audio=mute)
    with pytest.raises(MediaError, match=r"none\.wav: no such file: check --audio"):
        quiet(net, clip, tmp_path / "clip", audio=tmp_path / "none.wav")


def test_another_audio_stream(noisy, clip, tmp_path):
    net, _ = noisy
    wav, both = clips.write_audio(tmp_path / "b.wav", np.arange(30) % 7 > 2), tmp_path / "both.avi"
    Ffmpeg(["-i", clip, "-i", wav, "-map", "0", "-map", "1", "-c", "copy", both], source=clip).finish()
    expected = [quiet(net, clip, tmp_path / "clip", audio=sound).dists for sound in (None, wav)]
    for stream in (0, 1):
        np.testing.assert_array_equal(quiet(net, both, tmp_path / "clip", audio_stream=stream).dists, expected[stream])
    np.testing.assert_array_equal(quiet(net, clip, tmp_path / "c", audio=both, audio_stream=1).dists, expected[1])
    for stream in (2, -1):
        with pytest.raises(MediaError, match=f"has 2 audio streams, so --audio_stream {stream} "):
            quiet(net, both, tmp_path / "clip", audio_stream=stream)
