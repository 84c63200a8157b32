"""The sample video: its decoded streams are in place, and its cut is detected."""

from pathlib import Path

import numpy as np
import pytest
from scenedetect import ContentDetector, detect

from syncnet.constants import SAMPLE_RATE, SAMPLES_PER_FRAME
from syncnet.defaults import MIN_FACE_SIZE, MIN_TRACK, SCENE_THRESHOLD
from syncnet.media.ffmpeg import Ffmpeg
from training.face import make_sample
from training.face.make_sample import GUEST, HOST, delay, main, render_sample, write_video
from training.face.talking_face import Person, render_scene


def decode_audio(path: Path, folder: Path) -> np.ndarray:
    """Return the audio of a video as 16 kHz mono samples, float."""
    raw = folder / "audio.raw"
    Ffmpeg(["-i", path, "-vn", "-ac", "1", "-ar", SAMPLE_RATE, "-f", "s16le", raw], source=path).finish()
    return np.fromfile(raw, "<i2").astype(float)


def lag_in_samples(later: np.ndarray, earlier: np.ndarray) -> int:
    """Return by how many samples ``later`` lags behind ``earlier``."""
    size = 2 ** int(np.ceil(np.log2(len(later) + len(earlier))))
    match = np.fft.irfft(np.fft.rfft(later, size) * np.conj(np.fft.rfft(earlier, size)))
    lag = int(np.argmax(match))
    return lag - size if lag > size // 2 else lag


@pytest.fixture(scope="module")
def shots():
    """Return frames and audio of a short version: two shots with other rooms and sizes."""
    casts = [[Person.random(who) for who in people] for people in ((GUEST, HOST), (HOST,))]
    clips = [render_scene(11, 1.2, width=320, height=180, persons=cast, face_height=80) for cast in casts]
    return np.concatenate([clip.frames for clip in clips]), np.concatenate([clip.audio for clip in clips])


def test_audio_stays_in_place_when_encoded(shots, tmp_path):
    frames, audio = shots
    write_video(tmp_path / "a.mp4", frames, audio)
    decoded = decode_audio(tmp_path / "a.mp4", tmp_path)
    assert abs(lag_in_samples(decoded, audio.astype(float))) < SAMPLE_RATE * 0.005
    assert abs(len(decoded) - len(audio)) <= SAMPLES_PER_FRAME


def test_cut_is_found(shots, tmp_path):
    frames, audio = shots
    write_video(tmp_path / "a.mp4", frames, audio)
    scenes = detect(str(tmp_path / "a.mp4"), ContentDetector(threshold=SCENE_THRESHOLD, min_scene_len=5))
    assert [(start.frame_num, end.frame_num) for start, end in scenes] == [(0, 30), (30, 60)]


def test_failed_encoding_leaves_no_file(shots, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(make_sample, "render_sample", lambda: (*shots, []))
    assert main(["--output", str(tmp_path / "no" / "folder.mp4")]) == 1
    assert "folder.mp4" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frames", [-4, 0, 7])
def test_delay_shifts_the_audio_and_keeps_its_length(frames):
    audio = np.random.default_rng(0).integers(-9000, 9000, 20 * SAMPLES_PER_FRAME).astype(np.int16)
    moved = delay(audio, frames)
    assert len(moved) == len(audio)
    assert lag_in_samples(moved.astype(float), audio.astype(float)) == frames * SAMPLES_PER_FRAME


@pytest.mark.slow
def test_sample_suits_the_default_flags():
    frames, audio, boxes = render_sample()
    assert len(audio) == len(frames) * SAMPLES_PER_FRAME
    assert [shot.shape[1] for shot in boxes] == [2, 1]
    for shot in boxes:
        assert len(shot) > MIN_TRACK
        sizes = (shot[..., 2:] - shot[..., :2]).mean(axis=0).max(axis=1)
        assert (sizes > 1.3 * MIN_FACE_SIZE).all()
        assert (
            (shot[..., :2] > 0).all()
            and (shot[..., 2] < frames.shape[2]).all()
            and (shot[..., 3] < frames.shape[1]).all()
        )
