"""Tests of the dialogues whose speakers are known, and of how they are judged."""

import numpy as np
import pytest

from benchmarks import dialogues
from benchmarks.dialogues import NOBODY, OFF_SCREEN, Talker
from benchmarks.speakers import Result
from syncnet.constants import FRAME_RATE, SAMPLES_PER_FRAME
from training.face.talking_face import render_scene
from training.face.voice import Speech, Voice, speak


def test_the_script_says_who_is_heard_and_moves_their_lips() -> None:
    voices = [Voice(), Voice(pitch=210)]
    script = dialogues.write_script(9001, voices, ["pauses", "off screen"], np.random.default_rng(4))
    loud = dialogues.rms(script.audio)
    assert {0, 1, OFF_SCREEN, NOBODY} <= set(script.speaker.tolist())
    assert np.median(loud[script.speaker != NOBODY]) > 5 * np.median(loud[script.speaker == NOBODY])
    for who in (0, 1):
        moving = np.abs(np.diff(script.mouths[:, who], axis=0)).sum(axis=1)
        assert moving[script.speaker[1:] == who].mean() > 0.05
        assert moving[(script.speaker[1:] != who) & (script.speaker[:-1] != who)].mean() < 0.03


def test_shots_cover_all_frames() -> None:
    shots = list(dialogues.shots_of(225, 2, ["cuts"], np.random.default_rng(0)))
    assert [frame for frames, _ in shots for frame in frames] == list(range(225))
    assert len(shots) > 1 and all(len(frames) >= 1.5 * FRAME_RATE for frames, _ in shots)
    assert {len(cast) for _, cast in shots} == {1, 2}


@pytest.mark.parametrize("lag_ms", [-120, 40])
def test_moved_sound_is_early_by_the_lag(lag_ms: int) -> None:
    audio = np.zeros(16000, np.int16)
    audio[8000] = 1
    assert np.flatnonzero(dialogues.moved(audio, lag_ms)) == 8000 - lag_ms * 16


def test_clips_that_say_the_same_are_known() -> None:
    one, other = (speak(4.0, seed=seed).audio for seed in (1, 2))
    assert dialogues.same_sentence(one, (np.roll(one, 3000) * 0.5).astype(np.int16))
    assert not dialogues.same_sentence(one, other)


def test_side_by_side_the_sound_is_that_of_the_speaker() -> None:
    left, right, stranger = (
        Talker(f"{seed}", f"{seed}", np.zeros((100, 8, 8, 3), np.uint8), speak(4.0, seed=seed, pause=(0.1, 0.2)).audio)
        for seed in (1, 2, 3)
    )
    dialogue = dialogues.beside(left, right, stranger.audio, "off screen", name="", seed=0)
    order = [int(who) for who in dict.fromkeys(dialogue.speaker.tolist()) if who != NOBODY]
    assert order == [1, OFF_SCREEN, 0]
    for who, clip in ((0, left), (1, right), (OFF_SCREEN, stranger)):
        samples = np.repeat(dialogue.speaker == who, SAMPLES_PER_FRAME)
        assert np.array_equal(dialogue.audio[samples], clip.audio[samples])


def test_frames_near_a_change_do_not_count() -> None:
    truth = np.repeat([0, NOBODY, 1, OFF_SCREEN], 20)
    late = np.roll(truth, 5)
    late[:5] = 0
    assert Result.of(np.maximum(late, NOBODY), truth).wrong == 0
    result = Result.of(np.zeros(80, int), truth)
    assert (result.frames, result.right, result.covered) == (80 - 3 * 10, 15, 15)
    assert (result.wrong, result.spans, result.true_spans) == (35, 1, 2)


def test_everybody_in_a_scene_may_have_a_mouth_of_his_own() -> None:
    mouths = np.zeros((3, 2, 4), np.float32)
    mouths[2, 1, 0] = 1
    silence = Speech(np.zeros(3 * SAMPLES_PER_FRAME, np.int16), np.zeros((3, 4), np.float32))
    options = {"width": 320, "height": 180, "face_height": 100, "grain": 0.0, "speech": silence}
    shut, open_ = (
        render_scene(5, 0.12, people=2, mouths=moving, **options).frames.astype(int)
        for moving in (np.zeros_like(mouths), mouths)
    )
    changed = np.abs(open_ - shut).sum(axis=3) > 0
    assert not changed[:2].any()
    assert changed[2, :, 160:].any() and not changed[2, :, :160].any()
