"""The sample with pixels twice as wide as high: what both modes make of it, and what is drawn and cut out of it."""

import json
import re
import shlex

import clips
import numpy as np
import pytest
from conftest import ROOT

from syncnet import api, reasons
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.layout import Layout
from syncnet.steps import visualise

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_left_running")]

SAMPLE = ROOT / "data" / "sample.mp4"
WIDTH, HEIGHT, ASPECT = 640, 360, 2
OPTIONS = {"min_track": 40, "device": "cpu"}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("squeezed") / "a.mp4"
    flags = ("-t", "3", "-vf", f"scale={WIDTH // ASPECT}:{HEIGHT},setsar={ASPECT}", "-crf", "18", "-c:a", "copy")
    Ffmpeg(["-i", SAMPLE, *flags, path], source=path).finish()
    return path


def layout_of(tmp_path_factory):
    return Layout(tmp_path_factory.mktemp("results"), "me")


@pytest.fixture(scope="module")
def published(video, tmp_path_factory):
    """``Score`` and ``Layout`` of published mode."""
    layout = layout_of(tmp_path_factory)
    return api.score_video(video, mode="published", layout=layout, **OPTIONS), layout


@pytest.fixture(scope="module")
def direct(video, tmp_path_factory):
    """``Score`` and ``Layout`` of direct mode."""
    layout = layout_of(tmp_path_factory)
    return api.score_video(video, mode="direct", layout=layout, **OPTIONS), layout


def best(score):
    return max(score.tracks, key=lambda track: track.confidence)


def codes(score):
    return [reason.code for reason in score.reasons]


def test_the_advice_of_published_mode_raises_the_confidence(published, video, tmp_path):
    score, layout = published
    [reason] = [reason for reason in score.reasons if reason.code == reasons.NOT_SQUARE_PIXELS]
    assert json.loads(layout.pipeline.read_text())["pixel_aspect"] == ASPECT
    command = re.search(r"\(ffmpeg (-i IN .* OUT)\)", reason.text)[1]
    arguments = [{"IN": video, "OUT": tmp_path / "b.mp4"}.get(word, word) for word in shlex.split(command)]
    Ffmpeg(arguments, source=video).finish()
    followed = api.score_video(tmp_path / "b.mp4", mode="published", **OPTIONS)
    assert reasons.NOT_SQUARE_PIXELS not in codes(followed)
    assert best(followed).confidence > best(score).confidence + 1


def test_direct_mode_sees_square_pixels(published, direct, tmp_path):
    score, layout = direct
    assert score.reasons == () or reasons.NOT_SQUARE_PIXELS not in codes(score)
    assert best(score).confidence > best(published[0]).confidence + 1
    assert json.loads(layout.pipeline.read_text())["pixel_aspect"] == 1
    Ffmpeg(["-i", SAMPLE, "-t", "3", "-c", "copy", tmp_path / "c.mp4"], source=SAMPLE).finish()
    plain = best(api.score_video(tmp_path / "c.mp4", **OPTIONS))
    assert np.abs(np.subtract(best(score).box, plain.box)).max() <= 5  # in pixels of the picture as shown
    assert abs(best(score).lag_ms - plain.lag_ms) < 5


@pytest.mark.parametrize("mode", ["published", "direct"])
def test_drawn_video(mode, request, monkeypatch):
    """The picture has square pixels, and the squares lie on the faces."""
    score, layout = request.getfixturevalue(mode)
    drawn = {}
    monkeypatch.setattr(visualise, "draw_face", lambda image, face, speaks: drawn.setdefault(face.track, face))
    visualise.run(layout, frame_rate=25)
    assert clips.decode(layout.video_out).shape[1:3] == (HEIGHT, WIDTH)
    x, y, width, height = best(request.getfixturevalue("direct")[0]).box
    face = drawn[best(score).track]
    assert abs(face.x - (x + width / 2)) < 8 and abs(face.y - (y + height / 2)) < 8
    assert face.s == pytest.approx(max(width, height) / 2, rel=0.1)


def test_folders_of_older_versions(published, tmp_path, monkeypatch):
    """Without the shape of its pixels, a picture is drawn as it is kept."""
    layout = Layout(tmp_path / "data", "me")
    layout.data_dir.mkdir()
    for folder in published[1].data_dir.iterdir():
        (tmp_path / "data" / folder.name).symlink_to(folder)
    pipeline = json.loads(layout.pipeline.read_text())
    del pipeline["pixel_aspect"]
    monkeypatch.setattr(visualise, "load_pipeline", lambda path: pipeline)
    visualise.run(layout, frame_rate=25)
    assert clips.decode(layout.video_out).shape[1:3] == (HEIGHT, WIDTH // ASPECT)


def test_clips_of_one_speaker(published, direct, tmp_path):
    """Both modes cut the same square pictures."""
    found = {}
    for name, (score, _) in (("published", published), ("direct", direct)):
        [path] = api.split_speakers(score, tmp_path / name, min_span=2)
        found[name] = clips.decode(path)[5].astype(float)
    assert np.abs(found["published"] - found["direct"]).mean() < 20
