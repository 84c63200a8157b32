"""How who speaks when gets from the model into the results, with a model whose answer is known."""

import json
import shutil

import clips
import numpy as np
import pytest
import torch
from scipy.io import wavfile

from syncnet import api, reasons
from syncnet.media.sound import SoundInMemory
from syncnet.results.layout import Layout
from syncnet.results.scores_json import SPEAKING_KEYS
from syncnet.steps import speaking
from syncnet.sync import scoring, speakers, speech
from syncnet.sync.speakers import Span, Turns
from syncnet.sync.stream import LEVELS_BLOCK, AudioFeatures, Levels, levels_of

FRAMES = 90
SPOKEN = range(10, 60)  # frames of the track, in which the model says that it speaks
UNSEEN = (70, 79)
ALIKE = 0.9  # direct mode's frames have the sound of 16 ms later, so those in which it begins or ends can differ
FLAGS = {"facedet_scale": 0.5, "min_track": 10}


@pytest.fixture
def model(monkeypatch):
    """Replace the model and what it measures; return a list of its arguments."""
    calls = []

    def find(candidates, *, levels, cuts, min_speaking):
        calls.append({"candidates": candidates, "levels": levels, "cuts": cuts, "min_speaking": min_speaking})
        spans, speaks = [], []
        for index, candidate in enumerate(candidates):
            frames = np.arange(candidate.frames)
            speaks.append((frames >= SPOKEN.start) & (frames < SPOKEN.stop) & (index == 0) & (len(candidate.dists) > 0))
            if speaks[-1].any():
                spans = [Span(candidate.first + SPOKEN.start, candidate.first + SPOKEN.stop - 1, 0, 0.87654)]
        return Turns(spans, [UNSEEN], speaks)

    def measure(samples):
        return np.abs(samples.reshape(-1, 640).astype(np.float32)).mean(axis=1, keepdims=True)

    monkeypatch.setattr(speakers, "find", find)
    monkeypatch.setattr(speech, "measure", measure)
    return calls


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Return a clip whose face flashes with its sound, the folder of its frames, and the frames that are loud."""
    folder, light = tmp_path_factory.mktemp("speaking"), clips.flashes(FRAMES)
    frames = clips.write_frames(folder / "frames", clips.flashing_face([light]))
    return clips.encode(folder / "a.mkv", frames, clips.write_audio(folder / "a.wav", light)), frames, light


@pytest.fixture
def options(weights):
    return {"initial_model": weights["--initial_model"], "s3fd_weights": weights["--s3fd_weights"], "device": "cpu"}


def loud(levels):
    return levels[:, 0] > 1000


def check(report, *, frames):
    """Check the answer of ``model`` in a report of one track."""
    assert report["speakers"] == [{"start": 0.4, "end": 2.4, "track": 0, "confidence": 0.877}]
    assert report["speech_without_face"] == [{"start": 2.8, "end": 3.2}]
    [track] = report["tracks"]
    assert track["speaking_s"] == 2.0
    assert track["speaking_offset"] is not None and track["speaking_min_dist"] is not None
    assert list(track).index("speaking_s") > list(track).index("windows")
    json.dumps(report)


def test_direct_mode(material, options, model):
    score = api.score_video(material[0], min_speaking=0.7, **FLAGS, **options)
    check(score.to_dict(), frames=FRAMES)
    [call] = model
    assert call["min_speaking"] == 0.7 == score.recipe["syncnet"]["min_speaking"]
    [candidate] = call["candidates"]
    assert (candidate.first, candidate.frames, len(call["levels"])) == (0, FRAMES, FRAMES)
    np.testing.assert_array_equal(candidate.dists, score.tracks[0].dists)
    assert np.mean(loud(call["levels"]) == material[2]) > ALIKE
    windows = score.tracks[0].dists[SPOKEN.start - 2 : SPOKEN.stop - 2]
    assert score.tracks[0].speaking_min_dist == pytest.approx(windows.mean(axis=0).min())
    smallest, of_track = windows.mean(axis=0).argmin(), score.tracks[0].dists.mean(axis=0).argmin()
    assert score.tracks[0].speaking_offset - score.tracks[0].offset == of_track - smallest
    assert (score.speakers[0].confidence, score.speech_without_face[0].end) == (0.877, 3.2)


def test_published_mode(material, options, model):
    score = api.score_video(material[0], mode="published", min_speaking=0.7, **FLAGS, **options)
    check(score.to_dict(), frames=FRAMES)
    [call] = model
    assert call["min_speaking"] == 0.7 == score.recipe["syncnet"]["min_speaking"]
    assert np.mean(loud(call["levels"])[:FRAMES] == material[2]) > 0.8  # the MP3 of video.avi delays the sound


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_face_crops(mode, material, options, model):
    score = api.score_video(material[0], mode=mode, face_crops=True, **options)
    check(score.to_dict(), frames=FRAMES)
    assert np.mean(loud(model[0]["levels"]) == material[2]) > ALIKE


def test_score_frames(material, options, model):
    images, samples = clips.decode(material[0]), wavfile.read(material[0].with_name("a.wav"))[1]
    boxes = np.tile([100, 60, 100, 100], (len(images), 1))
    rates = {"frame_rate": 25, "sample_rate": 16000}
    score = api.score_frames(images, samples, boxes=boxes, min_speaking=0.2, **rates, **options)
    check(score.to_dict(), frames=FRAMES)
    assert model[0]["min_speaking"] == 0.2 and np.mean(loud(model[0]["levels"]) == material[2]) > ALIKE


def test_times_of_a_video_that_starts_late(material, options, model, tmp_path):
    """Times are those of a player; frames and levels count from the first picture."""
    late = tmp_path / "late.mkv"
    inputs = ("-itsoffset", "0.4", "-i", material[0], "-i", material[0])
    clips.Ffmpeg([*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", late], source=late).finish()
    report = api.score_video(late, **FLAGS, **options).to_dict()
    assert (report["speakers"][0]["start"], report["speakers"][0]["end"]) == (0.8, 2.8)
    assert report["speech_without_face"] == [{"start": 3.2, "end": 3.6}]
    assert np.mean(loud(model[0]["levels"])[:80] == material[2][10:]) > ALIKE


def test_run_syncnet(material, pipeline, run, model):
    _, layout = pipeline(material[0], "--min_face_size", 50)
    places = ("--data_dir", layout.data_dir, "--reference", "me")
    ran = run("run_syncnet", *places, "--min_speaking", "0.9")
    assert ran.err[0].split() == ["speaking:", "start", "end", "track", "confidence"]
    assert [line.split() for line in ran.err[1:3]] == [["0.40", "2.40", "0", "0.88"], ["2.80", "3.20", "no", "face"]]
    check(json.loads(layout.scores.read_text()), frames=FRAMES)
    layout.audio.unlink()  # the clips have the sound as well
    assert run("run_syncnet", *places).code == 0
    with_file, without = (call["levels"] for call in model)
    assert model[0]["min_speaking"] == 0.9 and model[1]["min_speaking"] == 0.4
    assert with_file.shape == without.shape and np.mean(loud(with_file) == loud(without)) > 0.97


def test_clips_of_another_program_are_videos_of_their_own(material, pipeline, run, model):
    _, layout = pipeline(material[0], "--min_face_size", 50)
    layout.pipeline.unlink()
    shutil.copy(layout.crop_files()[0], layout.crops / "00001.avi")
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me").code == 0
    assert [len(call["candidates"]) for call in model] == [1, 1]
    report = json.loads(layout.scores.read_text())
    assert [span["track"] for span in report["speakers"]] == [0, 1]
    assert report["speech_without_face"] == []


def test_scenes_and_tracks_reach_the_model(pipeline, run, model, tmp_path):
    """Two scenes: the second one begins where the model is told."""
    light = clips.flashes(60)
    images = np.concatenate([clips.flashing_face([light]), 255 - clips.flashing_face([light])])
    images[60:, 60:160, 100:200] = images[:60, 60:160, 100:200]
    frames = clips.write_frames(tmp_path / "frames", images)
    clip = clips.encode(tmp_path / "a.avi", frames, clips.write_audio(tmp_path / "a.wav", np.tile(light, 2)))
    _, layout = pipeline(clip, "--min_face_size", 50)
    run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    found = json.loads(layout.pipeline.read_text())
    [_, second], [before, after] = found["scenes"], found["tracks"]
    assert model[0]["cuts"] == [second["start"]] == [pytest.approx(60, abs=2)]  # the conversion may add two frames
    assert [(each.first, each.frames) for each in model[0]["candidates"]] == [
        (track["first_frame"], track["last_frame"] + 1 - track["first_frame"]) for track in (before, after)
    ]
    assert after["first_frame"] == second["start"]
    assert len(model[0]["levels"]) == found["faces"]["frames"]


def test_track_without_a_score_never_speaks():
    reason = reasons.no_audio()
    assert speaking.numbers(reason, np.zeros(9, bool)) == dict.fromkeys(SPEAKING_KEYS)
    score = scoring.score(np.ones((5, 31), np.float32), video_frames=10, audio_frames=10)
    silent = speaking.numbers(score, np.zeros(10, bool))
    assert silent == {**dict.fromkeys(SPEAKING_KEYS), "speaking_s": 0.0}
    ends = np.arange(10) < 2  # no window is centred on the first two frames
    assert speaking.numbers(score, ends) == {**dict.fromkeys(SPEAKING_KEYS), "speaking_s": 0.08}
    whole = speaking.numbers(score, np.ones(10, bool))
    assert whole["speaking_min_dist"] == 1.0
    corrected = speaking.numbers(score, np.ones(10, bool), corrected=-1)
    assert corrected == {**whole, "speaking_offset": whole["speaking_offset"] - 1}


def test_levels_are_measured_in_any_pieces(monkeypatch):
    """In pieces or at once, as far as the sound lasts and beyond, and every sample once."""
    samples = np.random.default_rng(0).integers(-9000, 9000, 640 * 700 + 99).astype(np.int16)
    sound = SoundInMemory(samples)
    whole = speech.measure(np.pad(samples, (0, 640 * 801 - len(samples)))[: 640 * 800])
    np.testing.assert_allclose(levels_of(sound, 800), whole, rtol=1e-5)
    levels, seen = Levels(sound), []
    monkeypatch.setattr(sound, "read", lambda a, b: seen.append((a, b)) or SoundInMemory.read(sound, a, b))
    for end in (-3, 0, 7, 7, 3, LEVELS_BLOCK + 9):
        levels.measure(end)
    np.testing.assert_allclose(levels.of(800), whole, rtol=1e-5)
    assert [b for _, b in seen[:-1]] == [a for a, _ in seen[1:]]
    assert levels.of(0).shape == (0, whole.shape[1])


def test_sound_is_measured_before_it_is_forgotten(model):
    class Forgetful(SoundInMemory):
        forgotten = -(10**9)

        def read(self, first, last):
            assert first >= self.forgotten
            return super().read(first, last)

        def forget(self, before):
            self.forgotten = max(self.forgotten, before)

    samples = np.random.default_rng(0).integers(-9000, 9000, 640 * 200).astype(np.int16)
    features = AudioFeatures(Forgetful(samples), lambda windows: torch.zeros(len(windows), 4))
    features.span(0, 70)
    for before in (-15, 3, 60, 130):
        features.forget(before)
    np.testing.assert_array_equal(features.levels(200), speech.measure(samples))


def test_sound_that_is_empty_or_missing(tmp_path):
    wavfile.write(tmp_path / "a.wav", 16000, np.zeros(0, np.int16))
    silent = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=0.4))
    for path in (tmp_path / "a.wav", silent):
        levels = speaking.levels_of_file(path, frames=9)
        assert len(levels) == 9 and not speech.present(levels).any()


def test_report_of_an_unknown_video_has_no_turns(options, tmp_path):
    path = clips.make(tmp_path / "a.mp4", clips.canvas(seconds=1.4))
    score = api.score_video(path, **options)
    assert (score.speakers, score.speech_without_face) == ((), ())
    assert Layout(tmp_path, "me").scores.exists() is False
