"""Tests of who speaks when, on synthetic distances."""

import time
import tracemalloc

import numpy as np
import pytest

from syncnet.constants import FRAME_RATE, WINDOW_FRAMES
from syncnet.sync import speakers, speech
from syncnet.sync.speakers import NOBODY, Candidate, Span, find, likeliest, posterior

VSHIFT = 15


def sound(spoken: np.ndarray) -> np.ndarray:
    """Return levels of sound with speech in some frames."""
    rng = np.random.default_rng(5)
    shape = (len(spoken), len(speech.BANDS_HZ) - 1)
    syllables = -35 + 15 * np.sin(np.arange(len(spoken)))
    level = np.where(spoken, syllables, -60.0)[:, None] + rng.normal(0, 0.5, shape)
    return level.astype(np.float32)


def dists_of(talking: np.ndarray, *, lag: int = 0, depth: float = 4.0, noise: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return distances of a face in whose windows the lips match the sound at a shift where it talks."""
    count = len(talking) - WINDOW_FRAMES
    rng = np.random.default_rng(seed)
    dists = rng.normal(12.0, noise, (count, 2 * VSHIFT + 1))
    dists[:, VSHIFT - lag] -= depth * talking[2 : 2 + count]
    return dists.astype(np.float32)


def dialogue(
    *turns: tuple[int, int], faces: int = 2, lag: int = 0, scale: float = 1.0, start: int = 0, **options: float
) -> tuple[list[Candidate], np.ndarray]:
    """Return the tracks of faces that are in the picture all the time, and the levels of the sound.

    Args:
        turns: face that talks, ``NOBODY`` for a voice off screen, -2 for silence, and number of frames.
        faces: number of faces.
        lag: frames by which the sound is early.
        scale: factor on the distances.
        start: first frame of the tracks.
        options: of ``dists_of``.
    """
    talker = np.concatenate([np.full(frames, who) for who, frames in turns])
    heard = np.roll(talker > -2, -lag)
    found = [
        Candidate(start, len(talker) - start, scale * dists_of(talker[start:] == who, lag=lag, seed=who + 1, **options))
        for who in range(faces)
    ]
    return found, sound(heard)


def spans_of(turns: speakers.Turns) -> list[tuple[int, int, int]]:
    return [(span.track, span.first, span.last) for span in turns.spans]


def check(turns: speakers.Turns, *expected: tuple[int, int, int], within: int = 5) -> None:
    found = spans_of(turns)
    assert [track for track, *_ in found] == [track for track, *_ in expected], found
    for (_, first, last), (_, true_first, true_last) in zip(found, expected):
        assert abs(first - true_first) <= within and abs(last - true_last) <= within, found


def test_turns_of_two_faces() -> None:
    faces, levels = dialogue((0, 60), (1, 50), (0, 40))
    turns = find(faces, levels=levels, cuts=[])
    check(turns, (0, 0, 59), (1, 60, 109), (0, 110, 149))
    assert turns.without_face == []
    assert all(span.confidence > 0.9 for span in turns.spans)


@pytest.mark.parametrize("lag", [-5, 4])
def test_speech_is_looked_for_at_the_lag_of_the_video(lag: int) -> None:
    faces, levels = dialogue((-2, 20), (0, 60), (-2, 25), (1, 50), (-2, 20), lag=lag)
    check(find(faces, levels=levels, cuts=[]), (0, 20, 79), (1, 105, 154), within=4)


def test_distances_may_have_any_scale() -> None:
    faces, levels = dialogue((0, 60), (1, 50), (NOBODY, 40), (0, 40))
    larger, _ = dialogue((0, 60), (1, 50), (NOBODY, 40), (0, 40), scale=1.5)
    assert spans_of(find(faces, levels=levels, cuts=[])) == spans_of(find(larger, levels=levels, cuts=[]))


def test_a_voice_off_screen_belongs_to_nobody() -> None:
    faces, levels = dialogue((0, 60), (NOBODY, 60), (1, 60))
    turns = find(faces, levels=levels, cuts=[])
    check(turns, (0, 0, 59), (1, 120, 179))
    [(first, last)] = turns.without_face
    assert abs(first - 60) <= 5 and abs(last - 119) <= 5


def test_silence_belongs_to_nobody() -> None:
    faces, levels = dialogue((0, 60), (-2, 30), (0, 60))
    turns = find(faces, levels=levels, cuts=[])
    check(turns, (0, 0, 59), (0, 90, 149), within=3)
    assert turns.without_face == []


def test_a_short_pause_does_not_end_a_turn() -> None:
    faces, levels = dialogue((0, 60), (-2, 8), (0, 60))
    check(find(faces, levels=levels, cuts=[]), (0, 0, 127))


def test_tracks_that_begin_and_end_in_a_shot() -> None:
    talker = np.repeat([0, 1], 80)
    faces = [Candidate(0, 80, dists_of(talker[:80] == 0)), Candidate(75, 85, dists_of(talker[75:] == 1, seed=2))]
    turns = find(faces, levels=sound(talker > -2), cuts=[])
    check(turns, (0, 0, 79), (1, 80, 159))
    assert [len(speaking) for speaking in turns.speaking] == [80, 85]
    assert turns.speaking[1].sum() == turns.spans[1].last - turns.spans[1].first + 1


def test_shots_are_judged_one_by_one() -> None:
    talking = np.ones(60, bool)
    faces = [Candidate(0, 60, dists_of(talking)), Candidate(60, 60, dists_of(talking, seed=1))]
    check(find(faces, levels=sound(np.ones(120, bool)), cuts=[60]), (0, 0, 59), (1, 60, 119), within=2)


def test_a_track_without_a_score_never_speaks() -> None:
    faces, levels = dialogue((0, 100), faces=1)
    turns = find([Candidate(0, 4, np.zeros((0, 31), np.float32)), *faces], levels=levels, cuts=[])
    check(turns, (1, 0, 99))
    assert not turns.speaking[0].any() and len(turns.speaking[0]) == 4


def test_without_tracks_all_speech_is_without_face() -> None:
    turns = find([], levels=sound(np.repeat([False, True, False], 50)), cuts=[70])
    assert turns.spans == [] and turns.speaking == []
    assert turns.without_face[0][0] == pytest.approx(50, abs=2)
    assert turns.without_face[-1][1] == pytest.approx(99, abs=2)


def test_without_sound_nobody_speaks() -> None:
    faces, _ = dialogue((0, 100))
    turns = find(faces, levels=np.zeros((0, len(speech.BANDS_HZ) - 1), np.float32), cuts=[])
    assert turns.spans == [] and turns.without_face == []


def test_short_spans_go_to_the_likelier_neighbour() -> None:
    faces, levels = dialogue((0, 60), (1, 20), (0, 60), depth=8.0)
    check(find(faces, levels=levels, cuts=[]), (0, 0, 59), (1, 60, 79), (0, 80, 139))
    check(find(faces, levels=levels, cuts=[], min_speaking=2.0), (0, 0, 139))


def test_padding_of_a_track_of_its_own_is_not_compared_with() -> None:
    """In the published mode a track's sound ends with it, and what is beyond has the distance to nothing."""
    faces, levels = dialogue((0, 60), (1, 60))
    padded = []
    for face in faces:
        dists = face.dists.copy()
        window = np.arange(len(dists))[:, None] + np.arange(-VSHIFT, VSHIFT + 1)
        dists[(window < 0) | (window >= len(dists) + 1)] = 2.0
        padded.append(Candidate(face.first, face.frames, dists))
    turns = find(padded, levels=np.concatenate([levels, levels]), cuts=[120])
    check(turns, (0, 0, 59), (1, 60, 119))


@pytest.mark.parametrize("vshift", [0, 1, 3, 4])
def test_any_search_range_has_a_result(vshift: int) -> None:
    faces, levels = dialogue((0, 60), (1, 60))
    narrow = [
        Candidate(face.first, face.frames, face.dists[:, VSHIFT - vshift : VSHIFT + vshift + 1]) for face in faces
    ]
    turns = find(narrow, levels=levels, cuts=[])
    if vshift > 3:
        check(turns, (0, 0, 59), (1, 60, 119))


def test_a_track_may_span_shots() -> None:
    faces, levels = dialogue((0, 60), (1, 60))
    check(find(faces, levels=levels, cuts=[30, 90]), (0, 0, 59), (1, 60, 119))


def sequences(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest sequence of states and the posterior, from all sequences."""
    import itertools

    frames, states = ratios.shape
    best, best_value, total = None, -np.inf, np.zeros((frames, states))
    for sequence in itertools.product(range(states), repeat=frames):
        value = ratios[np.arange(frames), sequence].sum()
        for frame, (before, after) in enumerate(itertools.pairwise(sequence)):
            if before != after and np.isfinite(ratios[frame, after]) and np.isfinite(ratios[frame + 1, before]):
                value -= speakers.CHANGE
        if value > best_value:
            best, best_value = sequence, value
        total[np.arange(frames), sequence] += np.exp(value)
    return np.array(best), total / total.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_sequence_and_its_probability_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratios = rng.normal(0, 4, (7, 3))
    ratios[:, 0] = 0
    ratios[: seed % 4, 1] = -np.inf
    ratios[5:, 2] = -np.inf
    best, probability = sequences(ratios)
    assert likeliest(ratios).tolist() == best.tolist()
    assert posterior(ratios) == pytest.approx(probability)


def test_confidence_is_the_mean_probability() -> None:
    assert Span(0, 1, 0).confidence == 1.0
    clear, levels = dialogue((0, 60), (1, 60), depth=6.0)
    faint, _ = dialogue((0, 60), (1, 60), depth=2.0)
    sure = [find(faces, levels=levels, cuts=[]).spans[0].confidence for faces in (clear, faint)]
    assert 0 <= sure[1] < sure[0] <= 1


def test_a_long_video_takes_little_time_and_memory() -> None:
    """A tenth of two hours with four faces: 0.5 s and, beyond the distances, 40 MB."""
    frames = 12 * 60 * FRAME_RATE
    talker = np.arange(frames) // 60 % 4
    faces = [Candidate(0, frames, dists_of(talker == who, seed=who)) for who in range(4)]
    levels = sound(np.ones(frames, bool))
    started = time.process_time()
    turns = find(faces, levels=levels, cuts=[])
    assert time.process_time() - started < 1.5  # three times what it takes, for busy machines
    assert len(turns.spans) == pytest.approx(frames / 60, abs=3)
    tracemalloc.start()
    find(faces, levels=levels, cuts=[])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
