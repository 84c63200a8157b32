"""Tracks without sound, in all ways of scoring, and advice that helps."""

import re
import shlex
import subprocess

import clips
import numpy as np
import pytest
from scipy.io import wavfile

from syncnet import api, reasons
from syncnet.media.ffmpeg import find_ffmpeg
from syncnet.media.sound import Sound, single_channels
from syncnet.sync.stream import levels_of

FRAMES = 150
MODES = ["direct", "published"]
LOUD = 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a face crop that flashes with its sound: crop.mkv, and sound.wav of the sound alone."""
    folder = tmp_path_factory.mktemp("doubts")
    light = clips.flashes(FRAMES)
    images = clips.flashing_face([light], corners=[(0, 0)], size=(clips.FACE, clips.FACE))
    clips.write_frames(folder / "frames", images)
    clips.write_audio(folder / "sound.wav", light)
    clips.encode(folder / "crop.mkv", folder / "frames", folder / "sound.wav")
    return folder


@pytest.fixture
def options(weights):
    return {"initial_model": weights["--initial_model"], "s3fd_weights": weights["--s3fd_weights"], "device": "cpu"}


def with_sound(folder, samples, name, *, codec="pcm_s16le"):
    """Return the path of the face crop with another sound, samples x channels."""
    path = folder / name
    wavfile.write(folder / "other.wav", 16000, samples.astype(np.int16))
    inputs = ("-i", folder / "crop.mkv", "-i", folder / "other.wav")
    clips.Ffmpeg([*inputs, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", codec, path], source=path).finish()
    return path


def sound_of(folder):
    return wavfile.read(folder / "sound.wav")[1].astype(float)


def codes(score):
    [track] = score.tracks
    return [reason.code for reason in track.reasons]


def half_silent(samples, *, first):
    keep = np.arange(len(samples)) < len(samples) // 2
    return samples * (keep if first else ~keep)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0, 30])
def test_a_silent_track(mode, level, folder, options):
    """Neither silence nor a noise floor has an offset beyond the edge of the search."""
    noise = np.random.default_rng(0).normal(0, level, len(sound_of(folder)))
    score = api.score_video(with_sound(folder, noise, "silent.mkv"), mode=mode, face_crops=True, **options)
    assert reasons.SILENT in codes(score) and reasons.EDGE_OFFSET not in codes(score)
    assert reasons.CHANNELS_CANCEL not in codes(score)
    assert not any("--vshift" in reason.text for reason in score.tracks[0].reasons)


@pytest.mark.parametrize("mode", MODES)
def test_a_loud_steady_sound_is_no_speech_beyond_the_edge(mode, folder, options):
    """It is not silent, but a larger --vshift does not help."""
    tone = LOUD * np.sin(np.arange(len(sound_of(folder))) * 0.3)
    path = with_sound(folder, tone, "tone.mkv")
    for vshift in (1, 2, 3):
        score = api.score_video(path, mode=mode, face_crops=True, vshift=vshift, **options)
        assert not {reasons.SILENT, reasons.EDGE_OFFSET} & set(codes(score))
        assert not any("--vshift" in reason.text for reason in score.tracks[0].reasons)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["whole", "first half", "second half", "one channel"])
def test_sound_in_a_part_of_the_track(kind, mode, folder, options):
    samples = sound_of(folder)
    if kind == "one channel":
        samples = np.stack([samples, 0 * samples], axis=1)
    elif kind != "whole":
        samples = half_silent(samples, first=kind == "first half")
    score = api.score_video(with_sound(folder, samples, "part.mkv"), mode=mode, face_crops=True, **options)
    new = {reasons.SILENT, reasons.CHANNELS_CANCEL, reasons.FEW_WINDOWS, reasons.OFFSET_CHANGES}
    assert not new & set(codes(score))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_channels_that_cancel(mode, codec, folder, options, tmp_path):
    """The command of the advice gives a score."""
    samples = sound_of(folder)
    path = with_sound(folder, np.stack([samples, -samples], axis=1), "cancel.mkv", codec=codec)
    score = api.score_video(path, mode=mode, face_crops=True, **options)
    assert {reasons.SILENT, reasons.CHANNELS_CANCEL} <= set(codes(score))
    assert not any("--audio" in reason.text for reason in score.tracks[0].reasons)
    [text] = [reason.text for reason in score.tracks[0].reasons if reason.code == reasons.CHANNELS_CANCEL]
    command = re.search(r"ffmpeg (.*)\)", text)[1]
    fixed = tmp_path / "fixed.mkv"
    words = [{"IN": str(path), "OUT": str(fixed)}.get(word, word) for word in shlex.split(command)]
    subprocess.run([find_ffmpeg().path, "-v", "error", *words], check=True)
    better = api.score_video(fixed, mode=mode, face_crops=True, **options)
    assert reasons.SILENT not in codes(better) and better.tracks[0].confidence > score.tracks[0].confidence


def test_channels_that_cancel_in_memory(folder, options):
    samples = sound_of(folder).astype(np.int16)
    images = clips.decode(folder / "crop.mkv")
    rates = {"frame_rate": 25, "sample_rate": 16000, "face_crops": True}
    score = api.score_frames(images, np.stack([samples, -samples]), **rates, **options)
    assert {reasons.SILENT, reasons.CHANNELS_CANCEL} <= set(codes(score))
    assert "audio[0]" in score.tracks[0].reasons[1].text
    assert reasons.SILENT not in codes(api.score_frames(images, samples, **rates, **options))


def test_the_steps_say_so_too(folder, run, tmp_path):
    """run_syncnet finds the channels in the file that run_pipeline read."""
    light = clips.flashes(FRAMES)
    images = clips.flashing_face([light])
    clips.write_frames(tmp_path / "frames", images)
    samples = sound_of(folder)
    wavfile.write(tmp_path / "sound.wav", 16000, np.stack([samples, -samples], axis=1).astype(np.int16))
    video = clips.encode(tmp_path / "face.avi", tmp_path / "frames", tmp_path / "sound.wav")
    flags = ("--reference", "me", "--data_dir", tmp_path / "out")
    assert run("run_pipeline", "--videofile", video, *flags, "--facedet_scale", "0.5", "--min_track", "10").code == 0
    ran = run("run_syncnet", *flags)
    assert ran.code == 0
    told = "\n".join(ran.err)
    assert "silent" in told and "cancel" in told and "--vshift" not in told
    assert not any("silent" in line or "cancel" in line for line in ran.out)


def test_single_channels(folder):
    samples = sound_of(folder)
    path = with_sound(folder, np.stack([samples, 0 * samples], axis=1), "left.mkv")
    left, right = [sound.read(0, len(samples)) for sound in single_channels(path, stream=None)]
    np.testing.assert_array_equal(left, samples)
    assert not right.any()
    assert list(single_channels(folder / "crop.mkv", stream=None)) == []
    assert levels_of(Sound(path), 10).max() > -60
