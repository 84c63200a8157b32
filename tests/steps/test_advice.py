"""What is said of a video without a track: the code, and advice that gives a score if it is followed."""

import json

import clips
import numpy as np
import pytest

from benchmarks import inputs
from benchmarks.inputs import CONVERT, Situation, examine
from syncnet.defaults import DIRECT, MODES, PUBLISHED
from syncnet.faces.detect import summarise
from syncnet.faces.scenes import Scene, whole_scenes
from syncnet.faces.tracks import Face, track_faces
from syncnet.steps import advice
from syncnet.steps.advice import Evidence
from syncnet.steps.pipeline import PipelineSettings, explain

TONE = 1.0  # seconds by which the sound is longer than the pictures
SETTINGS = PipelineSettings(min_track=50, min_face_size=50)


class FakeDetector:
    """Detector that finds boxes by scale, and counts its calls."""

    device, weights = "cpu", None

    def __init__(self, boxes):
        self.boxes, self.calls = boxes, 0

    def detect_batch(self, images, conf_th, scales):
        self.calls += len(images)
        found = self.boxes.get(scales[0], [])
        return [np.array([(*box, 0.99) for box in found], np.float32).reshape(-1, 5) for _ in images]


def face(frame, *, left=100.0, size=100.0):
    return Face(frame=frame, bbox=(left, 100.0, left + size, 100.0 + size), conf=0.99)


def gather(faces, *, boxes=None, size=(360, 640), scenes=lambda threshold: [], images=None):
    """Return the evidence of a video with the given faces per frame."""

    def track(of_scenes, settings):
        names = ("min_track", "num_failed_det", "min_face_size")
        return track_faces(faces, of_scenes, **{name: getattr(settings, name) for name in names})

    shown = images or (lambda numbers: [np.zeros((*size, 3), np.uint8) for _ in numbers])
    return Evidence(FakeDetector(boxes or {}), track, faces.__getitem__, shown, scenes)


def said(faces, *, cuts=None, settings=SETTINGS, audio_frames=None, **options):
    """Return the reasons of a video without a track, and its evidence."""
    scenes, evidence = cuts or [Scene(0, len(faces))], gather(faces, **options)
    found = explain(
        evidence.track(scenes, settings),
        summarise(faces),
        scenes=scenes,
        audio_frames=len(faces) if audio_frames is None else audio_frames,
        settings=settings,
        evidence=evidence,
    )
    return found, evidence


def shown(*runs, **options):
    """Return faces per frame: runs of (number of frames, whether the face is there)."""
    there = [present for length, present in runs for _ in range(length)]
    return [[face(frame, **options)] if present else [] for frame, present in enumerate(there)]


@pytest.mark.parametrize(
    ("faces", "settings", "code", "flags"),
    [
        (shown((40, 1), (60, 0)), {}, "tracks_too_short", {"min_track": 35}),
        (shown((9, 1), (20, 0)), {}, "tracks_too_short", {"min_track": 8}),
        (shown((5, 1), (10, 0)), {}, "tracks_too_short", {}),  # too short for a score
        (shown((60, 1), size=40.0), {}, "faces_too_small", {"min_face_size": 36}),
        (shown((30, 1), size=40.0), {}, "tracks_too_short", {"min_track": 25, "min_face_size": 36}),
        (shown((40, 1), (30, 0), (40, 1)), {}, "tracks_too_short", {"num_failed_det": 50}),
        (shown((40, 1), (3, 0), (40, 1)), {"num_failed_det": 2}, "tracks_too_short", {"num_failed_det": 25}),
        (
            shown((40, 1), (30, 0), (40, 1), size=40.0),
            {},
            "tracks_too_short",
            {"num_failed_det": 50, "min_face_size": 36},
        ),
    ],
)
def test_the_flag_that_would_have_given_a_track(faces, settings, code, flags):
    settings = PipelineSettings(**{"min_track": 50, "min_face_size": 50, **settings})
    reasons, evidence = said(faces, settings=settings)
    assert reasons[-1].code == code
    assert inputs.advised([reason.text for reason in reasons]) == flags
    if flags:
        changed = PipelineSettings(**{**vars(settings), **flags})
        assert evidence.track([Scene(0, len(faces))], changed).tracks


def test_a_track_without_audio_is_no_help():
    [reason, short] = said(shown((20, 0), (40, 1)), audio_frames=24)[0]
    assert (reason.code, short.code) == ("tracks_too_short", "audio_short")
    assert not inputs.advised([reason.text])


@pytest.mark.parametrize("scale", [0.05, 0.1, 0.5, 1.0])
def test_the_scale_that_sees_a_face(scale):
    [reason], evidence = said(shown((80, 0)), boxes={scale: [(100, 100, 500, 500)]})
    assert reason.code == "no_face" and "5 of 5 frames" in reason.text
    assert inputs.advised([reason.text]) == {"facedet_scale": scale}
    assert evidence.detector.calls <= 20


def test_a_scale_is_better_than_a_track_of_few_frames():
    faces = shown((30, 0), (12, 1), (78, 0))
    assert inputs.advised([said(faces)[0][0].text]) == {"min_track": 10}
    assert inputs.advised([said(faces, boxes={0.1: [(0, 0, 300, 300)]})[0][0].text]) == {"facedet_scale": 0.1}


def test_what_else_a_small_face_of_few_frames_needs():
    [reason] = said(shown((40, 0)), boxes={1.0: [(300, 100, 330, 130)]})[0]
    assert inputs.advised([reason.text]) == {"facedet_scale": 1, "min_track": 35, "min_face_size": 27}


@pytest.mark.parametrize("boxes", [[(300, 100, 315, 115)], [(-200, 100, 100, 400)]])
def test_chance_detections_at_other_scales_are_no_faces(boxes):
    """Tiny ones, and those with their centre outside the frame."""
    [reason], evidence = said(shown((40, 0)), boxes={1.0: boxes})
    assert reason.text == "no face found: a face in none of 5 frames at any --facedet_scale from 0.05 to 1"
    assert evidence.detector.calls == 20


def test_faces_that_move_about_are_no_faces(monkeypatch):
    places = iter(range(10_000))
    found = lambda *_: [face(0, left=50.0 * next(places))]  # noqa: E731
    monkeypatch.setattr(advice, "faces_inside", found)
    [reason] = said(shown((40, 0)))[0]
    assert not inputs.advised([reason.text])


@pytest.mark.parametrize(
    ("size", "boxes", "options", "found"),
    [
        ((2160, 3840), [(0, 0, 900, 900)], {}, True),
        ((360, 640), [(0, 0, 900, 900)], {}, False),  # not large: not looked at
        ((2160, 3840), [(0, 0, 150, 150)], {}, False),  # hardly larger
        ((2160, 3840), [(900, 0, 1800, 900)], {}, False),  # elsewhere
        ((2160, 3840), [(0, 0, 900, 900)], {"confident": True}, False),
    ],
)
def test_tracks_that_show_parts_of_a_face(size, boxes, options, found):
    """As the eyes of a face that fills a frame of 4K."""
    faces, scenes = shown((60, 1)), [Scene(0, 60)]
    evidence = gather(faces, boxes={0.1: boxes}, size=size)
    tracking = evidence.track(scenes, SETTINGS)
    reasons = explain(
        tracking,
        summarise(faces),
        scenes=scenes,
        audio_frames=60,
        settings=SETTINGS,
        evidence=evidence,
        **options,
    )
    assert tracking.tracks
    assert [reason.code for reason in reasons] == ["no_face"] * found
    assert inputs.advised([reason.text for reason in reasons]) == ({"facedet_scale": 0.1} if found else {})
    assert evidence.detector.calls <= 4


def test_large_frames_are_not_tried_whole():
    evidence = said(shown((40, 0)), size=(2160, 3840))[1]
    assert evidence.detector.calls == 15


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([20], "(1 single detection in 126 frames)"),
        ([20, 60, 110], "(3 single detections in 126 frames)"),
        ([20, 23, 60], "(3 detections in 126 frames, at most 2 of them at one place)"),
    ],
)
def test_chance_detections(frames, text):
    faces = [[face(frame, size=45.0)] if frame in frames else [] for frame in range(126)]
    [reason] = said(faces)[0]
    assert reason.code == "no_face" and text in reason.text
    assert "--min_face_size" not in reason.text and "--min_track" not in reason.text


def test_a_scene_that_ends_before_its_start():
    """Published mode counts cuts in time and the end in frames; the length is never negative, the cause is named."""
    scenes, faces = [Scene(0, 40), Scene(40, 25)], shown((40, 0), (60, 1))
    assert whole_scenes(scenes, frames=100) == [Scene(0, 40), Scene(40, 100)]
    [short, cut] = said(faces, cuts=scenes)[0]
    assert short.code == "scene_too_short" and "the longest has 0" in short.text
    assert CONVERT in short.text and "--mode direct" in short.text and "try" not in short.text
    assert cut.code == "scene_cut_short" and "the last 60 of the 60 frames" in cut.text


def test_conversion_is_better_than_a_track_of_few_frames():
    """A track of 10 frames has few windows; the whole scene has enough."""
    [short, _] = said(shown((40, 0), (50, 1)), cuts=[Scene(0, 40), Scene(40, 50)])[0]
    assert short.code == "scene_too_short" and "the longest has 10" in short.text
    assert CONVERT in short.text and inputs.advised([short.text]) == {"min_track": 40}
    [few, _] = said(shown((40, 0), (20, 1)), cuts=[Scene(0, 40), Scene(40, 50)])[0]
    assert CONVERT not in few.text and inputs.advised([few.text]) == {"min_track": 9}


def test_a_short_scene():
    [reason] = said(shown((30, 1), (30, 0)), cuts=[Scene(0, 30), Scene(30, 60)])[0]
    assert reason.code == "scene_too_short" and "the longest has 30" in reason.text
    assert inputs.advised([reason.text]) == {"min_track": 25}


@pytest.mark.parametrize(("same", "flags"), [(True, {"scene_threshold": 50}), (False, {"min_track": 25})])
def test_a_cut_inside_a_track(same, flags):
    """Only if the face looks the same before and after it."""
    random = np.random.default_rng(0)
    before, other = random.integers(0, 255, (2, 360, 640, 3), dtype=np.uint8)
    pictures = {True: before, False: before if same else other}
    cut = [Scene(0, 30), Scene(30, 60)]
    [reason] = said(
        shown((60, 1)),
        cuts=cut,
        scenes=lambda threshold: [Scene(0, 60)] if threshold >= 50 else cut,
        images=lambda numbers: [pictures[number < 30] for number in numbers],
    )[0]
    assert reason.code == "scene_too_short"
    assert inputs.advised([reason.text]) == flags


def followed(tmp_path, mode, make, **flags):
    """Examine a video with the tests' weights, and return the record."""
    made = make(tmp_path)
    situation = Situation("test", "video", lambda path: made, None, {**flags, "device": "cpu"})
    return examine(situation, mode, tmp_path)


def red(*, seconds, rate=25, enable="", extra="", size="320x240", side=clips.FACE, colour=clips.GREY):
    """Return a function that writes a video of a red square with a white stripe, which the detector takes for a face.

    Args:
        seconds, rate, size, colour: as in ``clips.canvas``.
        enable: when the square is there, as in ``clips.square``.
        extra: filters before the square.
        side: of the square, in pixels.
    """
    draws = clips.square(100, 60, side=side, enable=enable)
    stripe = f",drawbox=x=100:y={60 + side // 2}:w={side}:h={side // 5}:color=white:t=fill"
    draws += stripe + (f":enable='{enable}'" if enable else "")
    source = clips.canvas(seconds=seconds, rate=str(rate), size=size, colour=colour) + extra + draws
    return lambda folder: clips.make(folder / "red.mp4", source, clips.tone(seconds=seconds + TONE))


@pytest.fixture
def standin(weights):
    """Return the arguments of ``score_video`` for red squares."""
    return {
        "initial_model": weights["--initial_model"],
        "s3fd_weights": weights["--s3fd_weights"],
        "facedet_scale": 0.5,
        "min_track": 50,
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("make", "flags", "code", "advised"),
    [
        (red(seconds=1.4), {}, "tracks_too_short", {"min_track"}),
        (red(seconds=2.4), {"min_face_size": 200}, "faces_too_small", {"min_face_size"}),
        (red(seconds=3.6, enable="lt(t,1.2)+gte(t,2.4)"), {}, "tracks_too_short", {"num_failed_det"}),
        (red(seconds=2.4), {"facedet_scale": 0.1}, "no_face", {"facedet_scale"}),
        (red(seconds=1.4), {"facedet_scale": 0.1}, "no_face", {"facedet_scale", "min_track"}),
        (
            red(seconds=3.2, extra=",drawbox=c=white:t=fill:enable='gte(t,1.6)'"),
            {"min_track": 60},
            "scene_too_short",
            {"scene_threshold"},
        ),
        (
            red(seconds=3.2, enable="gte(t,2)", extra=",drawbox=c=white:t=fill:enable='lt(t,2)'"),
            {},
            "scene_too_short",
            {"min_track"},
        ),
    ],
)
def test_following_the_advice_gives_a_score(tmp_path, standin, mode, make, flags, code, advised):
    record = followed(tmp_path, mode, make, **{**standin, **flags})
    assert record["codes"][0] == code, record["texts"]
    assert {*record["flags"]} == advised, record["texts"]
    assert record["followed"], record["texts"]


@pytest.mark.parametrize("rate", [8, 15])
def test_a_scene_that_published_mode_cuts_short(tmp_path, standin, rate):
    """It is scored if the video is converted, or in direct mode; scene.pckl stays as published."""
    make = red(seconds=5, rate=rate, enable="gte(t,2)", extra=",drawbox=c=white:t=fill:enable='lt(t,2)'")
    record = followed(tmp_path, PUBLISHED, make, **standin)
    assert record["codes"][:2] == ["scene_too_short", "scene_cut_short"], record["texts"]
    assert record["convert"] and record["followed"], record["texts"]
    assert "--mode direct" in record["texts"][0]
    longest = int(record["texts"][0].partition("the longest has ")[2].partition(":")[0])
    assert 0 <= longest < standin["min_track"]
    assert followed(tmp_path, DIRECT, make, **standin)["scored"]


def test_frames_in_memory(standin):
    from syncnet import score_frames

    frames = clips.flashing_face([np.zeros(40, bool)])[..., ::-1]
    sound = np.zeros(40 * 640, np.int16)
    weights = {name: standin[name] for name in ("initial_model", "s3fd_weights")}
    [reason] = score_frames(frames, sound, frame_rate=25, sample_rate=16000, device="cpu", **weights).reasons
    assert reason.code == "tracks_too_short"
    assert inputs.advised([reason.text]) == {"min_track": 35}


def test_run_pipeline_says_the_same(pipeline, tmp_path):
    ran, layout = pipeline(red(seconds=1.4)(tmp_path), "--facedet_scale", "0.1")
    [reason] = json.loads(layout.scores.read_text())["reasons"]
    assert "try --facedet_scale 0.5" in reason["text"] and reason["text"] in ran.err[-1]


@pytest.mark.parametrize("mode", MODES)
def test_a_fractal(tmp_path, mode):
    """The starter detector takes a few details of it for faces."""
    make = inputs.lavfi("mandelbrot=size=640x480:rate=25", seconds=1.4)
    record = followed(tmp_path, mode, lambda folder: make(folder / "video"))
    assert record["codes"] == ["no_face"] and not record["flags"], record["texts"]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "scale"), [(0.03, 1), (1.5, 0.05)])
def test_a_rendered_face_in_a_large_frame(tmp_path, share, scale):
    """Too small, or too large, for the starter detector at the usual scale."""
    make = inputs.speaker(inputs.SIZES["1080p"], share)
    record = followed(tmp_path, DIRECT, lambda folder: make(folder / "video"))
    assert record["flags"]["facedet_scale"] == scale and record["followed"], record["texts"]
