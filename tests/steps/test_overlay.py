"""run_visualise --speakers: what it draws, and that nothing changes without it."""

import contextlib
import json

import clips
import numpy as np
import pytest
from checks import one_error

from syncnet.media.frames import read_frame
from syncnet.results.layout import frame_files
from syncnet.results.step_files import SavedTurns, load_distances, load_tracks, load_turns
from syncnet.steps import overlay, visualise
from syncnet.steps.overlay import BACKGROUND, OFF_SCREEN_COLOUR, WHITE, Overlay, colour_of
from syncnet.sync.framewise import frame_confidence, speaking_confidence
from syncnet.sync.speakers import speaking_tracks

TURNS = SavedTurns(100, [(0, 40, 0), (60, 90, 1)], [(40, 50)])
HEIGHT, WIDTH = 300, 400
FACES = [visualise.DrawnFace(track, 4.0, s=40.0, x=100.0 + 200 * track, y=120.0) for track in (0, 1)]


def drawn(index, faces=FACES, turns=TURNS):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    made = Overlay(turns, height=HEIGHT, width=WIDTH)
    made.draw(image, faces, index)
    return image, HEIGHT - made.strip_height


def is_colour(image, colour):
    return (image == colour).all(axis=2)


@pytest.mark.parametrize(("index", "speaker"), [(0, 0), (39, 0), (60, 1), (89, 1), (50, None), (95, None)])
def test_the_box_of_the_speaking_face_is_thick_and_named(index, speaker):
    image, top = drawn(index)
    for track in (0, 1):
        here = is_colour(image[:top, 200 * track : 200 * track + 200], colour_of(track))
        # the left edge at half height, and the field of the name above the box
        assert (here[120].sum() > 2) == (here[:78].any(axis=0).sum() > 40) == (track == speaker)
        assert here[120].any() and here[:80].any()
    assert not is_colour(image[:top], OFF_SCREEN_COLOUR).any()


def test_the_speaking_face_is_on_top_of_others():
    faces = [visualise.DrawnFace(track, 4.0, s=40.0, x=100.0 + 5 * track, y=120.0) for track in (0, 1)]
    alone, both = (drawn(5, faces[:count])[0] for count in (1, 2))
    own = is_colour(alone, colour_of(0))
    assert is_colour(both, colour_of(0))[own].all()


def test_voice_off_screen_is_written():
    image, top = drawn(45)
    written = is_colour(image[:top], OFF_SCREEN_COLOUR)
    assert written[top - 20 : top, :80].sum() > 300 and not written[: top - 40].any()


def test_strip_shows_all_turns_and_the_cursor_moves():
    for index in (0, 37, 99):
        image, top = drawn(index, faces=[])
        strip = image[top + 2]
        at = index * WIDTH // 100
        assert (strip[at] == WHITE).all()
        rest = np.ones(WIDTH, bool)
        rest[max(0, at - 5) : at + 6] = False
        for first, end, colour in (
            (0, 40, colour_of(0)),
            (40, 50, OFF_SCREEN_COLOUR),
            (50, 60, BACKGROUND),
            (60, 90, colour_of(1)),
            (90, 100, BACKGROUND),
        ):
            part = np.zeros(WIDTH, bool)
            part[first * 4 : end * 4] = True
            assert (strip[part & rest] == colour).all()
        assert (image[: top - 1] == 90).all()


def test_frames_after_the_scores_and_many_tracks():
    """The video may have more frames than scores.json says; colours repeat."""
    drawn(250)
    drawn(1, turns=SavedTurns(1, [], []))
    assert colour_of(0) == colour_of(len(overlay.COLOURS))


@pytest.fixture
def turns(results):
    """Let the only track of the results speak in its first half, and somebody else later."""
    report = json.loads(results.scores.read_text())
    report["speakers"] = [{"start": 0.0, "end": 0.6, "track": 0, "confidence": 0.9}]
    report["speech_without_face"] = [{"start": 0.8, "end": 1.2}]
    results.scores.write_text(json.dumps(report))
    return results


def places(layout):
    return ("--data_dir", layout.data_dir, "--reference", layout.reference)


def test_video(turns, run):
    ran = run("run_visualise", *places(turns), "--speakers")
    assert (ran.code, ran.out, ran.err) == (0, [], [str(turns.video_out)])
    plain = [read_frame(path) for path in frame_files(turns.frames)]
    found = clips.decode(turns.video_out)
    assert found.shape == (len(plain), *plain[0].shape)
    [track] = load_tracks(turns.tracks)
    strip = max(10, round(plain[0].shape[0] * 0.04))
    left, middle = int(track.x[0] - track.s[0]), int(track.y[0])

    def edge(index):
        return np.abs(found[index][middle, left - 6 : left + 7].astype(int) - colour_of(0)).sum(axis=1) < 120

    assert edge(8).sum() >= 3 > edge(17).sum()
    assert np.abs(found[25][-strip // 2, 20].astype(int) - colour_of(0)).max() < 60


def test_times_of_a_video_that_starts_late(turns):
    """Times in scores.json are those of a player: they are counted from the first frame again."""
    before = load_turns(turns.scores)
    report = json.loads(turns.scores.read_text())
    for span in [*report["tracks"], *report["speakers"], *report["speech_without_face"]]:
        span["start"], span["end"] = span["start"] + 0.517, span["end"] + 0.517
    turns.scores.write_text(json.dumps(report))
    assert load_turns(turns.scores) == before == SavedTurns(before.frames, [(0, 15, 0)], [(20, 30)])
    assert before.frames == report["faces"]["frames"]


def test_scores_of_an_earlier_version(turns, run):
    report = json.loads(turns.scores.read_text())
    del report["speech_without_face"]
    turns.scores.write_text(json.dumps(report))
    one_error(run("run_visualise", *places(turns), "--speakers"), turns.scores, "run_syncnet.py")
    turns.scores.unlink()
    one_error(run("run_visualise", *places(turns), "--speakers"), turns.scores, "does not exist", "run_syncnet.py")


def test_without_the_flag_nothing_changes(turns, run, monkeypatch):
    """Every frame is what the published drawing makes of it, whoever speaks by scores.json, or without that file."""
    written = []

    class Writer:
        def write(self, image):
            written.append(image.copy())

    @contextlib.contextmanager
    def writer(path, **_):
        path.write_bytes(b"")
        yield Writer()

    [track], [dists] = load_tracks(turns.tracks), load_distances(turns.distances)
    values, starts = frame_confidence(dists), [int(track.frame[0])]
    speaker = speaking_tracks(starts, [speaking_confidence(dists)], threshold=0.1)
    images = [read_frame(path) for path in frame_files(turns.frames)]
    for index, faces in enumerate(visualise.faces_by_frame([track], [values], count=len(images))):
        for face in faces:
            visualise.draw_face(images[index], face, speaks=index < len(speaker) and speaker[index] == face.track)
    videos = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(visualise, "video_writer", writer)
            patch.setattr(visualise.conversions, "mux", lambda *_, **__: None)
            assert run("run_visualise", *places(turns), "--speaker_threshold", "0.1").code == 0
        np.testing.assert_array_equal(written, images)
        written.clear()
        assert run("run_visualise", *places(turns), "--speaker_threshold", "0.1").code == 0
        videos.append(turns.video_only.read_bytes())
        turns.scores.unlink(missing_ok=True)
    assert videos[0] == videos[1]
