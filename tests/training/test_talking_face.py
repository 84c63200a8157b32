"""Rendered talking faces: deterministic by seed, in sync with their voice, silent when they should be."""

import cv2
import numpy as np
import pytest

from syncnet.constants import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from training.face.talking_face import (
    SHUT,
    Articulation,
    Person,
    Pose,
    Voice,
    render_clip,
    render_face,
    render_image,
    render_scene,
    speak,
)

SECONDS = 4
SEEDS = (3, 6, 11, 19)  # no full beards, whose shadows mouth_darkness takes for an open mouth
JAW, WIDTH, CLOSURE, TONGUE = range(4)


@pytest.fixture(scope="module", params=SEEDS)
def clip(request):
    return render_clip(request.param, SECONDS)


def mouth_darkness(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return for every frame the share of the mouth region that is much darker than the cheeks."""
    shares = []
    for frame, (x1, y1, x2, y2) in zip(frames, boxes):
        grey, width, height = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), x2 - x1, y2 - y1

        def part(left, top, right, bottom, grey=grey, x=x1, y=y1, width=width, height=height):
            rows = slice(int(y + top * height), int(y + bottom * height))
            return grey[rows, int(x + left * width) : int(x + right * width)]

        shares.append((part(0.3, 0.70, 0.7, 0.92) < 0.4 * np.median(part(0.15, 0.55, 0.85, 0.65))).mean())
    return np.array(shares)


def loudness(audio: np.ndarray, *, rate: int = FRAME_RATE) -> np.ndarray:
    """Return the root mean square of the audio of every frame."""
    return np.sqrt((audio.astype(float).reshape(-1, SAMPLE_RATE // rate) ** 2).mean(axis=1))


def best_lag(one: np.ndarray, other: np.ndarray, reach: int = 8) -> tuple[int, float]:
    """Return how many steps later ``other`` has to start to correlate best with ``one``, and the correlation."""
    count = len(one)
    scores = [
        np.corrcoef(one[max(0, -lag) : count - max(0, lag)], other[max(0, lag) : count + min(0, lag)])[0, 1]
        for lag in range(-reach, reach + 1)
    ]
    return int(np.argmax(scores)) - reach, max(scores)


def test_clip_has_the_form_that_scoring_needs(clip):
    assert clip.frames.shape == (SECONDS * FRAME_RATE, 224, 224, 3) and clip.frames.dtype == np.uint8
    assert clip.audio.shape == (len(clip.frames) * SAMPLES_PER_FRAME,) and clip.audio.dtype == np.int16
    assert clip.articulation.shape == (len(clip.frames), 4)


def test_mouth_in_the_frames_is_in_sync_with_the_audio(clip):
    lag, correlation = best_lag(mouth_darkness(clip.frames, clip.boxes), loudness(clip.audio))
    assert lag == 0
    assert correlation > 0.7


def test_shifted_audio_is_detected(clip):
    late = np.roll(clip.audio, 3 * SAMPLES_PER_FRAME)
    assert best_lag(mouth_darkness(clip.frames, clip.boxes), loudness(late))[0] == 3


@pytest.mark.parametrize("seed", range(6))
def test_lips_precede_the_audio_by_less_than_half_a_frame(seed):
    rate = 100
    speech = speak(6, seed=seed, frame_rate=rate)
    opening = speech.articulation[:, JAW] * (1 - speech.articulation[:, CLOSURE])
    lag, correlation = best_lag(opening, loudness(speech.audio, rate=rate), reach=20)
    assert 0 <= lag <= 2
    assert correlation > 0.7


def test_closed_lips_are_quiet_and_appear_closed(clip):
    darkness, level = mouth_darkness(clip.frames, clip.boxes), loudness(clip.audio)
    closed = clip.articulation[:, CLOSURE] > 0.8
    wide = clip.articulation[:, JAW] * (1 - clip.articulation[:, CLOSURE]) > 0.5
    assert closed.sum() >= 3 and wide.sum() >= 3
    assert level[closed].mean() < 0.5 * level[wide].mean()
    assert darkness[closed].mean() < 0.2 * darkness[wide].mean()


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_a_listener_keeps_the_mouth_shut_but_moves(clip, seed):
    listener = render_clip(seed, 2, silent=True)
    assert not listener.articulation.any()
    assert mouth_darkness(listener.frames, listener.boxes).max() < 0.03 < mouth_darkness(clip.frames, clip.boxes).max()
    change = np.abs(listener.frames[0].astype(int) - listener.frames[-1]).mean()
    assert change > 2


def test_same_seed_same_clip_and_another_seed_another():
    one, two, other = (render_clip(seed, 0.4) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert not np.array_equal(one.audio, other.audio)
    assert not np.array_equal(one.frames, other.frames)


def test_scene_is_repeatable_and_only_the_speaker_talks():
    one, two = (render_scene(4, 2, people=2, talking=1, face_height=150) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two))
    assert one.boxes.shape == (50, 2, 4)
    still, moving = (mouth_darkness(one.frames, one.boxes[:, who]).std() for who in (0, 1))
    assert moving > 3 * still


def test_nobody_talking_is_silence():
    scene = render_scene(4, 0.4, talking=None)
    assert not scene.audio.any() and not scene.articulation.any()


@pytest.mark.parametrize("seed", range(8))
def test_boxes_lie_in_the_image_and_apart(seed):
    image, boxes = render_image(seed, width=480, height=270, people=1 + seed % 3)
    assert image.shape == (270, 480, 3) and boxes.shape == (1 + seed % 3, 4)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 480).all() and (boxes[:, 3] <= 270).all()
    ratio = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    assert (ratio > 0.55).all() and (ratio < 0.95).all()
    order = boxes[np.argsort(boxes[:, 0])]
    assert (order[1:, 0] > order[:-1, 2]).all()


def test_image_without_people():
    image, boxes = render_image(1, width=96, height=64, people=0)
    assert image.shape == (64, 96, 3) and boxes.shape == (0, 4)


def test_box_follows_the_head():
    person = Person.random(8)
    (_, here), (_, there) = (render_face(person, SHUT, Pose(x, 100, 120), 224) for x in (90, 120))
    assert np.allclose(there - here, [30, 0, 30, 0], atol=1e-3)
    _, bigger = render_face(person, SHUT, Pose(90, 100, 150), 224)
    assert np.allclose((bigger[2:] - bigger[:2]) / (here[2:] - here[:2]), 1.25, atol=1e-3)


def test_an_open_jaw_changes_the_lower_face_alone():
    person, pose = Person.random(19), Pose(112, 104, 150)
    shut, _ = render_face(person, SHUT, pose)
    wide, _ = render_face(person, Articulation(jaw=1.0), pose)
    change = np.abs(shut.astype(int) - wide).max(axis=2)
    assert change[: 104 - 5].max() == 0
    assert (change[104 + 20 :] > 40).sum() > 200


def test_boxes_are_given_in_the_crops_pixels(clip):
    # run_pipeline aligns the top of the box with the crop's; the longer side of the box is 1 / 1.4 of the crop
    x1, y1, x2, y2 = np.median(clip.boxes, axis=0)
    assert abs(y1) < 6 and abs((x1 + x2) / 2 - 112) < 4
    assert max(x2 - x1, y2 - y1) == pytest.approx(224 / 1.4, abs=6)


@pytest.mark.parametrize("size", [112, 224])
def test_crops_of_other_sizes_show_the_same(size):
    clip, usual = render_clip(3, 0.4, size=size), render_clip(3, 0.4)
    assert clip.frames.shape[1:] == (size, size, 3)
    assert np.allclose(clip.boxes, usual.boxes * size / 224)
    assert np.abs(cv2.resize(clip.frames[1], (224, 224)).astype(int) - usual.frames[1]).mean() < 4


@pytest.mark.parametrize("pitch", [100, 210])
def test_voice_has_the_given_pitch(pitch):
    audio = speak(4, seed=2, voice=Voice(pitch=pitch)).audio.astype(float)
    spectrum = np.abs(np.fft.rfft(audio, 2 ** int(np.ceil(np.log2(2 * len(audio)))))) ** 2
    repeats = np.fft.irfft(spectrum)
    # exclude the octaves, which fit as well
    lags = np.arange(int(SAMPLE_RATE / (1.6 * pitch)), int(SAMPLE_RATE / (0.6 * pitch)))
    measured = SAMPLE_RATE / lags[np.argmax(repeats[lags])]
    assert 0.8 * pitch < measured < 1.3 * pitch


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="talking=2: no such person"):
        render_scene(1, 1, people=2, talking=2)
    with pytest.raises(ValueError, match="positive duration"):
        speak(0, seed=1)
