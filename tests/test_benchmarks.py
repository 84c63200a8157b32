"""What the benchmarks are made of: padded weights, videos whose lag is known, and pictures of distances."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from benchmarks import correction, heat_map, padding, truth
from benchmarks.moved import Case, distinct, make, measure, regular
from detectors.s3fd.nets import S3FDNet
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from syncnet.models.weights import ROOT, S3FD, SYNCNET, load_s3fd, load_syncnet
from SyncNetModel import AUDIO_WINDOW, LIP_WINDOW, S
from training.face.talking_face import render_scene
from training.face.voice import Voice, speak

SECONDS, SEED = 3.0, 3
SHOTS = [(SEED, SECONDS, (SEED,), 0, Voice(), 150)]
EXACT = {"rtol": 1e-4, "atol": 1e-4}  # longer sums, of zeros, in another order


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return padding.write_padded(tmp_path_factory.mktemp("padded"))


def starter(spec):
    return ROOT / spec.starter


@torch.no_grad()
def test_a_padded_detector_predicts_the_same(files):
    wide, plain = load_s3fd(files[0])[0], load_s3fd(starter(S3FD))[0]
    assert [p.shape for p in wide.parameters()] == [p.shape for p in S3FDNet().parameters()]
    image = torch.randint(-120, 130, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0)).float()
    for found, expected in zip(wide(image), plain(image)):
        torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_a_padded_syncnet_gives_the_same_features(files):
    wide, plain = load_syncnet(files[1])[0], load_syncnet(starter(SYNCNET))[0]
    assert [p.shape for p in wide.parameters()] == [p.shape for p in S().parameters()]
    draw = torch.Generator().manual_seed(0)
    lips = torch.randint(0, 256, (1, *LIP_WINDOW), generator=draw).float()
    sound = torch.randn((1, *AUDIO_WINDOW), generator=draw) * 10
    torch.testing.assert_close(wide.forward_lip(lips), plain.forward_lip(lips), **EXACT)
    torch.testing.assert_close(wide.forward_aud(sound), plain.forward_aud(sound), **EXACT)


def test_mouths_at_the_frames_own_times_are_those_of_speech_at_that_rate():
    times = np.arange(50) / 25
    found, expected = truth.speak_at(times, SECONDS, seed=SEED), speak(SECONDS, seed=SEED)
    assert np.array_equal(found.audio, expected.audio)
    np.testing.assert_allclose(found.articulation, expected.articulation[: len(times)], atol=1e-5)


def test_a_render_at_twice_the_rate_shows_the_same_at_the_same_times():
    times = np.arange(int(50 * SECONDS)) / 50
    twice = truth.render(SHOTS, times)
    once = truth.render(SHOTS, times[::2])
    assert np.array_equal(twice.sound, once.sound)
    small, expected = distinct(twice)[0], distinct(once)[0]
    grain, movement = (np.abs(part - expected).max(axis=1).mean() for part in (small[::2], small[1::2]))
    assert grain < 0.3 * movement


def test_a_scene_has_its_frames_at_the_usual_times_unless_told():
    usual = render_scene(SEED, 1.0, speech=speak(1.0, seed=SEED))
    told = render_scene(SEED, 1.0, speech=speak(1.0, seed=SEED), times=np.arange(25) / 25)
    assert all(np.array_equal(a, b) for a, b in zip(usual, told))


@pytest.mark.parametrize("move", [-115, 75])
def test_the_measured_truth_is_the_move_where_nothing_else_is_off(move, tmp_path):
    source = truth.render(SHOTS, regular(Fraction(25), SECONDS))
    found = measure(make(Case("", "mp4", "aac", 44100, move), source, tmp_path), source)
    assert abs(found.lag_ms - move) < 0.2 and found.spread_ms < 0.2


def test_the_measured_truth_has_the_delay_of_a_late_picture(tmp_path):
    source = truth.render(SHOTS, regular(Fraction(25), SECONDS))
    found = measure(make(Case("", "ts", late_picture=0.3), source, tmp_path), source)
    assert abs(found.lag_ms - 300) < 0.2


def test_pictures_of_another_video_are_refused(tmp_path):
    source = truth.render(SHOTS, regular(Fraction(25), SECONDS))
    path = make(Case(""), source, tmp_path)
    shuffled = replace(source, content=np.random.default_rng(0).permutation(source.content))
    with pytest.raises(ValueError, match="pictures"):
        measure(path, shuffled)


def test_a_reader_that_counts_does_not_see_time_stamps(tmp_path):
    source = truth.render(SHOTS, regular(Fraction(25), SECONDS))
    late = make(Case("", "mkv", "flac", late_sound=-0.09), source, tmp_path)
    assert abs(measure(late, source).lag_ms - 90) < 1
    assert abs(measure(late, source, count=True).lag_ms) < 1
    early = make(Case("", "mkv", "flac", move_ms=90), source, tmp_path)
    assert abs(measure(early, source, count=True).lag_ms - 90) < 1


def test_what_a_correction_changes_is_found(tmp_path):
    source = truth.render(SHOTS, regular(Fraction(25), SECONDS))
    case = correction.new_case("mkv, FLAC", 90, correction.SAMPLES, Fraction(25), tmp_path)
    path = make(case, source, tmp_path)
    known = correction.contents(path)
    assert len(known.packets) == len(source.frames) and known.subtitles and known.chapters and known.title
    copies = {
        "same": ["-map", "0", "-c", "copy"],
        "packets": ["-map", "0", "-c", "copy", "-c:v", "libx264"],
        "subtitles": ["-map", "0", "-map", "-0:s", "-c", "copy"],
        "chapters": ["-map", "0", "-map_chapters", "-1", "-c", "copy"],
        "title": ["-map", "0", "-c", "copy", "-metadata", "title="],
    }
    for name, flags in copies.items():
        copy = tmp_path / f"{name}.mkv"
        Ffmpeg(["-i", path, *flags, *ERRORS_ONLY, copy], source=path).finish()
        assert known.differs(correction.contents(copy)) == [name] * (name != "same")


def test_the_lag_at_both_ends_is_measured(tmp_path):
    seconds = 2 * correction.END_S
    source = truth.render([(SEED, seconds, (SEED,), 0, Voice(), 150)], regular(Fraction(25), seconds))
    drifting = replace(source, sound=resample_poly(source.sound, 500, 501))  # 2 ms/s
    first, last = correction.ends(make(Case("", "mkv", "flac"), drifting, tmp_path), source)
    assert abs(first - 5) < 2 and abs(last - 15) < 2


def test_a_heat_map_shows_early_sound_at_the_top():
    vshift, offset, frames = 15, 6, 50
    dists = np.ones((frames - 5, 2 * vshift + 1))
    dists[:, vshift - offset] = 0.0
    track = SimpleNamespace(confidence=5.0, dists=dists, first_frame=0)
    values = heat_map.distances([track], seconds=frames / 25)
    assert values.shape == (2 * vshift + 1, frames) and np.isnan(values[:, -5:]).all()
    image = heat_map.draw(values, title="", farthest=1.0, zero_ms=0.0)
    column = image[heat_map.TOP : -heat_map.BOTTOM, heat_map.LEFT + 5].astype(int)
    bright = np.flatnonzero(column.sum(1) == column.sum(1).max())
    assert abs(bright.mean() / heat_map.CELL_HEIGHT - (vshift - offset + 0.5)) < 0.1
