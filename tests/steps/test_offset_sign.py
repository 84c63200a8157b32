"""The sign of an offset and the README's correction of a video, with audio and frames whose timing is known."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from moving import measurement
from scipy.io import wavfile

from syncnet import api
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, SAMPLE_RATE
from syncnet.media import conversions
from syncnet.media.containers import check_streams
from syncnet.media.fingerprint import behaviour
from syncnet.steps import correct
from syncnet.sync import scoring
from training.face.make_sample import delay, write_video

README = Path(__file__).resolve().parents[2] / "README.md"
SECONDS = 4
MARK = 32  # pixels, side of a frame
LEVELS, LEVEL_STEP, LOWEST_LEVEL = 8, 25, 40  # of brightness
SAMPLES_PER_MS = SAMPLE_RATE // 1000
TOLERANCE = 3  # ms


def material():
    """Frames whose brightness encodes their number modulo 8, and noise in bursts."""
    count = SECONDS * FRAME_RATE
    levels = LEVEL_STEP * (np.arange(count) % LEVELS) + LOWEST_LEVEL
    frames = np.repeat(levels.astype(np.uint8), MARK * MARK * 3).reshape(count, MARK, MARK, 3)
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.uniform(0, 6000, SECONDS * 10), SAMPLE_RATE // 10)
    return frames, (rng.standard_normal(len(loudness)) * loudness).clip(-30000, 30000).astype(np.int16)


def lag(audio, original):
    """Milliseconds by which ``audio`` is later than ``original``."""
    size = 2 ** int(np.ceil(np.log2(len(audio) + len(original))))
    match = np.fft.irfft(np.fft.rfft(audio, size) * np.conj(np.fft.rfft(original, size)))
    best = int(np.argmax(match))
    return (best - size if best > size // 2 else best) / SAMPLES_PER_MS


def audio_delay(video, audio, folder):
    """Milliseconds by which the audio of a video, converted as in run_pipeline, is later than its frames."""
    converted, wav, frames = folder / "converted.avi", folder / "audio.wav", folder / f"{video.stem} frames"
    frames.mkdir()
    streams = check_streams(video)
    conversions.start_conversion(
        video, converted, script=folder / "rate.txt", streams=streams, behaviour=behaviour()
    ).finish()
    conversions.start_audio(converted, wav).finish()
    conversions.start_frames(converted, frames).finish()
    levels = np.array([cv2.imread(str(path)).mean() for path in sorted(frames.iterdir())])
    numbers = np.round((levels - LOWEST_LEVEL) / LEVEL_STEP).astype(int)
    late = (np.arange(len(levels)) - numbers)[LEVELS:-LEVELS] % LEVELS
    assert np.ptp(late) == 0  # no frame is lost or duplicated
    return lag(wavfile.read(wav)[1].astype(float), audio.astype(float)) - late[0] * MILLISECONDS_PER_FRAME


@pytest.mark.parametrize("offset", [3, -3])
def test_the_readmes_correction_synchronises_the_audio(offset, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    frames, audio = material()
    write_video(Path("in_step.mp4"), frames, audio)
    # the codecs of the conversion delay both a little, so only differences are compared
    in_step = audio_delay(Path("in_step.mp4"), audio, tmp_path)
    write_video(Path("early.mp4"), frames, delay(audio, -offset))
    wrong = audio_delay(Path("early.mp4"), audio, tmp_path) - in_step
    assert wrong == pytest.approx(-offset * MILLISECONDS_PER_FRAME, abs=TOLERANCE)
    # the material has no face: what is measured is known
    found = iter([offset * MILLISECONDS_PER_FRAME, 0])
    monkeypatch.setattr(correct, "measure", lambda path, **settings: measurement(float(next(found))))
    for name in ("load_net", "load_detector"):
        monkeypatch.setattr(api, name, lambda *_: None)
    readme = README.read_text(encoding="utf-8")
    [command] = re.findall(r"^python (correct_offset\.py --videofile early\.mp4 .*)$", readme, re.MULTILINE)
    script, *argv = command.split()
    assert run(script.removesuffix(".py"), *argv).code == 0
    assert audio_delay(Path("right.mp4"), audio, tmp_path) == pytest.approx(in_step, abs=TOLERANCE)


@pytest.mark.parametrize("offset", [-4, 0, 3])
def test_a_positive_offset_is_audio_before_video(offset):
    """Features identify moments; those of the audio are moved to an earlier position."""
    moments = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    audio = torch.roll(moments, -offset, dims=0)  # audio feature i - offset matches video feature i
    dists = scoring.distances(moments, audio, vshift=15)
    assert scoring.score(dists, video_frames=60, audio_frames=60).offset == offset
