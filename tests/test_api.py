"""The functions that programs call: `from syncnet import score_video, score_frames`."""

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from scipy.signal import resample_poly

from syncnet import Score, TrackScore, api, score_frames, score_video
from syncnet.errors import UsageError
from syncnet.media.grid import nearest_indices
from syncnet.results.layout import Layout

ROOT = Path(__file__).resolve().parent.parent
FRAMES, RATE = 90, 16000
ZOOM = 2  # so that the detector finds the face at the default scale
X, Y, FACE = 100 * ZOOM, 60 * ZOOM, clips.FACE * ZOOM
IMPORT_SECONDS = 0.2


@pytest.fixture(scope="module")
def options(weights):
    """Return the arguments that both functions need with the tests' weights."""
    return {"initial_model": weights["--initial_model"], "s3fd_weights": weights["--s3fd_weights"], "device": "cpu"}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Return frames, N x H x W x 3, RGB, samples that match them, and the file of both."""
    folder, light = tmp_path_factory.mktemp("material"), clips.flashes(FRAMES)
    images = clips.flashing_face([light]).repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)
    clips.write_frames(folder / "frames", images)
    wav = clips.write_audio(folder / "a.wav", light)
    lossless = ("-c:v", "ffv1", "-pix_fmt", "bgr0", "-c:a", "pcm_s16le")
    path = clips.encode(folder / "a.mkv", folder / "frames", wav, flags=lossless)
    return images[..., ::-1].copy(), wavfile.read(wav)[1], path


def boxes(count=FRAMES):
    return np.tile([X, Y, FACE, FACE], (count, 1))


def crops(frames):
    return frames[:, Y : Y + FACE, X : X + FACE]


def test_import_is_fast_and_loads_no_torch():
    """The least of three: other programs may be running."""

    def seconds(line):
        code = f"import time; start = time.perf_counter(); {line}; print(time.perf_counter() - start)"
        code += "; import sys; print('torch' in sys.modules, 'cv2' in sys.modules, 'av' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        elapsed, loaded = done.stdout.splitlines()
        assert loaded == "False False False"
        return float(elapsed)

    for line in ("import syncnet", "from syncnet import score_video, score_frames, Score"):
        assert min(seconds(line) for _ in range(3)) < IMPORT_SECONDS


def test_unknown_names():
    import syncnet

    with pytest.raises(AttributeError, match="score_image"):
        _ = syncnet.score_image
    assert set(syncnet.__all__) == {"Score", "TrackScore", "correct_offset", "score_frames", "score_video"}


def test_networks_are_loaded_once(material, options, monkeypatch):
    import SyncNetInstance

    api.load_net.cache_clear()
    loaded, original = [], SyncNetInstance.SyncNetInstance.loadParameters

    def load(self, path):
        loaded.append(path)
        original(self, path)

    monkeypatch.setattr(SyncNetInstance.SyncNetInstance, "loadParameters", load)
    frames, samples, _ = material
    for _ in range(2):
        score_frames(crops(frames), samples, frame_rate=25, sample_rate=RATE, face_crops=True, **options)
    assert len(loaded) == 1


def test_to_dict_is_scores_json(material, options, tmp_path):
    layout = Layout(tmp_path, "me")
    score = score_video(material[2], layout=layout, **options)
    report = score.to_dict()
    assert {**report, "reference": "me"} == json.loads(layout.scores.read_text())
    assert report == json.loads(json.dumps(report))
    report["tracks"][0]["offset"] = 99  # a copy
    assert score.to_dict()["tracks"][0]["offset"] != 99
    assert isinstance(score, Score) and isinstance(score.tracks[0], TrackScore)
    [record] = score.to_dict()["tracks"]
    assert {item.name for item in fields(TrackScore)} - {"dists", "path"} == set(record)
    for name in set(record) - {"reasons", "box"}:
        assert getattr(score.tracks[0], name) == record[name], name
    assert list(score.tracks[0].box) == record["box"]
    assert score.tracks[0].dists.shape == (record["windows"], 31)
    assert [reason.code for reason in score.reasons] == [reason["code"] for reason in score.to_dict()["reasons"]]


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_video_leaves_nothing_behind(mode, material, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    score = score_video(str(material[2]), mode=mode, **options)
    assert score.mode == mode and len(score.tracks) == 1
    assert (score.tracks[0].lag_ms is None) == (mode == "published")
    assert score.tracks[0].dists is not None
    assert list(tmp_path.iterdir()) == []


def test_frames_as_the_video(material, options):
    """The same frames and sound give the same score in memory, as arrays or tensors, of any kind of sound."""
    frames, samples, path = material
    expected = score_video(path, **options).tracks
    rates = {"frame_rate": 25, "sample_rate": RATE}
    given = [
        (frames, samples, rates),
        (torch.from_numpy(frames), torch.from_numpy(samples), rates),
        (frames, (samples / 32768).astype(np.float32), rates),
        (frames, np.stack([samples, samples]), rates),
        (frames, resample_poly(samples / 32768, 3, 1), {**rates, "sample_rate": 48000}),
    ]
    for images, sound, rate in given:
        found = score_frames(images, sound, **rate, **options)
        assert len(found.tracks) == len(expected)
        assert found.videofile is None
        for ours, theirs in zip(found.tracks, expected):
            for name in ("first_frame", "last_frame", "offset"):
                assert getattr(ours, name) == getattr(theirs, name)
            assert ours.confidence == pytest.approx(theirs.confidence, abs=0.02)
            assert ours.lag_ms == pytest.approx(theirs.lag_ms, abs=2)
    assert json.dumps(found.to_dict())


def test_boxes_and_crops_need_no_detector(material, options, monkeypatch):
    monkeypatch.setattr(api, "load_detector", None)
    frames, samples, _ = material
    rates = {"frame_rate": 25, "sample_rate": RATE}
    boxed = score_frames(frames, samples, boxes=boxes(), **rates, **options)
    cropped = score_frames(crops(frames), samples, face_crops=True, **rates, **options)
    assert list(boxed.tracks[0].box) == [X, Y, FACE, FACE]
    assert abs(boxed.tracks[0].lag_ms - cropped.tracks[0].lag_ms) < 20
    assert boxed.tracks[0].windows == cropped.tracks[0].windows == FRAMES - 5
    assert boxed.faces is None and cropped.faces is None


@pytest.mark.parametrize("moved", [-5, 3])
def test_sign(moved, material, options):
    """Positive: the sound is early."""
    frames, samples, _ = material
    rates = {"frame_rate": 25, "sample_rate": RATE, "face_crops": True}
    zero, found = (
        score_frames(crops(frames), sound, **rates, **options).tracks[0]
        for sound in (samples, np.roll(samples, -moved * 640))
    )
    assert abs(found.offset - zero.offset - moved) <= 1  # its distances are the same at two offsets
    assert found.lag_ms - zero.lag_ms == pytest.approx(40 * moved, abs=6)


@pytest.mark.parametrize("rate", [30, 24000 / 1001, 50])
def test_other_frame_rates(rate, material, options):
    """The same film at another rate: what is shown at a time is the same, and so is the lag."""
    frames, samples, _ = material
    times = np.arange(int(FRAMES / 25 * rate)) / rate
    index = np.minimum((times * 25 + 1e-6).astype(int), FRAMES - 1)
    base = score_frames(crops(frames), samples, frame_rate=25, sample_rate=RATE, face_crops=True, **options)
    found = score_frames(crops(frames)[index], samples, frame_rate=rate, sample_rate=RATE, face_crops=True, **options)
    chosen = [at for at, _ in nearest_indices(len(times), frame_rate=rate)]
    late = 1000 * float(np.mean(times[chosen] - index[chosen] / 25))
    assert found.tracks[0].lag_ms - base.tracks[0].lag_ms == pytest.approx(late, abs=7)
    assert abs(found.tracks[0].last_frame - (FRAMES - 1)) <= 1


GOOD = {"frame_rate": 25, "sample_rate": RATE}
IMAGES, SOUND = np.zeros((8, 20, 20, 3), np.uint8), np.zeros(5120, np.int16)


@pytest.mark.parametrize(
    ("frames", "audio", "changes", "word"),
    [
        (IMAGES[0], SOUND, {}, "frames"),
        (IMAGES.astype(np.float32), SOUND, {}, "frames"),
        (IMAGES.transpose(0, 3, 1, 2), SOUND, {}, "frames"),
        (IMAGES[:0], SOUND, {}, "frames"),
        ([], SOUND, {}, "frames"),
        (IMAGES, SOUND.astype(np.int32), {}, "audio"),
        (IMAGES, SOUND[None, None], {}, "audio"),
        (IMAGES, np.stack([SOUND, SOUND], 1), {}, "audio"),
        (IMAGES, np.full(5120, np.nan), {}, "audio"),
        (IMAGES, np.full(5120, 8000.0), {}, "audio"),
        (IMAGES, SOUND, {"frame_rate": 0}, "frame_rate"),
        (IMAGES, SOUND, {"frame_rate": float("nan")}, "frame_rate"),
        (IMAGES, SOUND, {"sample_rate": 0}, "sample_rate"),
        (IMAGES, SOUND, {"sample_rate": float("nan")}, "sample_rate"),
        (IMAGES, SOUND, {"sample_rate": 16000.5}, "sample_rate"),
        (IMAGES, SOUND, {"boxes": np.zeros((7, 4))}, "boxes"),
        (IMAGES, SOUND, {"boxes": np.zeros((8, 4))}, "boxes"),
        (IMAGES, SOUND, {"boxes": np.full((8, 4), np.nan)}, "boxes"),
        (IMAGES, SOUND, {"boxes": np.full((8, 4), 1e6)}, "boxes"),
        (IMAGES, SOUND, {"vshift": 0}, "vshift"),
        (IMAGES, SOUND, {"batch_size": 0}, "batch_size"),
        (IMAGES, SOUND, {"boxes": np.ones((8, 4)), "face_crops": True}, "boxes"),
        (IMAGES, SOUND, {"precision": "float16"}, "--precision"),
    ],
)
def test_what_cannot_be_scored(frames, audio, changes, word, options):
    with pytest.raises(UsageError, match=f"^{word}") as error:
        score_frames(frames, audio, **{**GOOD, **changes}, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [{"mode": "fast"}, {"mode": "published", "precision": "bfloat16"}])
def test_modes_that_do_not_exist(changes, material, options):
    with pytest.raises(UsageError, match="--"):
        score_video(material[2], **changes, **options)


@pytest.mark.parametrize(
    "changes", [{"detect_every": 0}, {"vshift": 0}, {"batch_size": 1.5}, {"min_track": -1}, {"facedet_scale": 0}]
)
def test_settings_that_cannot_work(changes, material, options):
    with pytest.raises(UsageError, match=f"^{next(iter(changes))}"):
        score_video(material[2], **{**options, **changes})


@pytest.mark.parametrize("audio", [SOUND[:0], np.zeros((2, 0), np.float32), SOUND[:640]])
def test_too_little_sound(audio, options):
    """Not an error: a reason says so."""
    for rate in (RATE, 44100):
        score = score_frames(IMAGES, audio, frame_rate=25, sample_rate=rate, face_crops=True, **options)
        assert all(track.confidence is None for track in score.tracks)
        assert score.reasons or all(track.reasons for track in score.tracks)
