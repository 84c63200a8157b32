"""The drawn video: what is drawn on each frame, and in which colour."""

import json
import shutil

import clips
import cv2
import numpy as np
import pytest
from checks import one_error

from syncnet.errors import SyncNetError
from syncnet.media import conversions
from syncnet.media.conversions import frame_count
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.step_files import SavedTrack, load_pickle, save_pickle
from syncnet.steps import visualise

GREY = np.full((200, 200, 3), 128, np.uint8)


def face(**changes):
    return visualise.DrawnFace(**{"track": 0, "conf": 4.0, "s": 40.0, "x": 100.0, "y": 100.0, **changes})


@pytest.mark.parametrize(
    ("conf", "colour"), [(4.0, (0, 100, 155)), (-3.0, (0, 0, 255)), (50.0, (0, 255, 0)), (None, (128, 128, 128))]
)
def test_square(conf, colour):
    image = np.zeros((200, 200, 3), np.uint8)
    visualise.draw_face(image, face(conf=conf), speaks=False)
    for y, x in ((140, 100), (100, 60), (100, 140)):  # below, left and right of the text
        assert tuple(image[y, x]) == colour
    assert not image[100, 80:120].any()


def test_speaking_face_is_marked():
    silent, speaking = GREY.copy(), GREY.copy()
    visualise.draw_face(silent, face(), speaks=False)
    visualise.draw_face(speaking, face(), speaks=True)
    assert (silent != speaking).any()
    assert (speaking[120:139, 62:100] == visualise.SPEAKING_COLOUR).all(axis=2).any()


def test_confidence_belongs_to_its_frame():
    track = SavedTrack(np.arange(2, 6), s=np.arange(4.0), x=np.arange(4.0), y=np.arange(4.0))
    faces = visualise.faces_by_frame([track], [np.array([1.0, 2, 3])], count=5)
    assert [[f.conf for f in of_frame] for of_frame in faces] == [[], [], [1.0], [2.0], [3.0]]
    faces = visualise.faces_by_frame([track], [np.array([1.0])], count=7)  # the audio is shorter than the track
    assert [[f.conf for f in of_frame] for of_frame in faces] == [[], [], [1.0], [None], [None], [None], []]


def test_video(results, run):
    ran = run("run_visualise", "--data_dir", results.data_dir, "--reference", results.reference)
    assert (ran.code, ran.out) == (0, [])
    frames = len(list(results.frames.iterdir()))
    assert frame_count(results.video_out) == frame_count(results.video_only) == frames
    capture = cv2.VideoCapture(str(results.video_out))
    there, drawn = capture.read()
    plain = cv2.imread(str(results.frames / "000001.jpg"))
    assert there
    assert np.abs(drawn.astype(int) - plain).max() > 60


@pytest.fixture
def direct(results, face_clip, tmp_path):
    """Results as direct mode writes them, without frames, audio and crops."""
    video = shutil.copy(face_clip, tmp_path / "video.mp4")
    for step in ("pyframes", "pyavi", "pycrop"):
        shutil.rmtree(results.folder(step))
    pipeline = json.loads(results.pipeline.read_text())
    pipeline["videofile"], pipeline["recipe"] = str(video), {"mode": "direct"}
    results.pipeline.write_text(json.dumps(pipeline))
    return results


def test_video_of_direct_mode(direct, run, tmp_path):
    """Frames and audio come from the video itself."""
    ran = run("run_visualise", "--data_dir", direct.data_dir, "--reference", direct.reference)
    assert (ran.code, ran.out, ran.err) == (0, [], [str(direct.video_out)])
    plain, drawn = clips.decode(tmp_path / "video.mp4"), clips.decode(direct.video_out)
    assert len(plain) == len(drawn) == 35
    assert np.abs(drawn[10].astype(int) - plain[10]).max() > 60
    assert np.median(np.abs(drawn[10].astype(int) - plain[10])) < 5
    samples = conversions.read_wav(direct.audio)
    assert len(samples) == pytest.approx(1.6 * 16000, abs=1600)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * 16000 / len(samples) == pytest.approx(440, abs=3)


def test_sound_that_direct_mode_was_given(direct, run, tmp_path):
    pipeline = json.loads(direct.pipeline.read_text())
    pipeline["recipe"]["audio"] = str(clips.make(tmp_path / "a.wav", "sine=frequency=900:duration=1.4"))
    direct.pipeline.write_text(json.dumps(pipeline))
    assert run("run_visualise", "--data_dir", direct.data_dir, "--reference", direct.reference).code == 0
    samples = conversions.read_wav(direct.audio)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * 16000 / len(samples) == pytest.approx(900, abs=3)


def test_sound_of_a_video_that_starts_late(direct, run, tmp_path):
    """What sounds before the first picture is left out, as in the scores."""
    late = tmp_path / "late.mkv"
    inputs = ("-itsoffset", "0.5", "-i", tmp_path / "video.mp4", "-i", tmp_path / "video.mp4")
    Ffmpeg([*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", late], source=late).finish()
    pipeline = json.loads(direct.pipeline.read_text())
    pipeline["videofile"] = str(late)
    direct.pipeline.write_text(json.dumps(pipeline))
    assert run("run_visualise", "--data_dir", direct.data_dir, "--reference", direct.reference).code == 0
    assert len(conversions.read_wav(direct.audio)) == pytest.approx(1.1 * 16000, abs=800)


def test_video_of_direct_mode_that_is_gone(direct, run, tmp_path):
    (tmp_path / "video.mp4").unlink()
    ran = run("run_visualise", "--data_dir", direct.data_dir, "--reference", direct.reference)
    one_error(ran, tmp_path / "video.mp4", "no such file", "frames")


def test_audio_shorter_than_the_track(results, run):
    dists = load_pickle(results.distances, made_by="run_syncnet.py")
    save_pickle([d[:1] for d in dists], results.distances)
    assert run("run_visualise", "--data_dir", results.data_dir, "--reference", results.reference).code == 0


def test_scores_of_other_tracks(results):
    save_pickle([], results.distances)
    with pytest.raises(SyncNetError, match=r"run_syncnet\.py again"):
        visualise.run(results, frame_rate=25)


@pytest.mark.parametrize(("x", "y"), [(100, 100), (10, 5), (195, 100), (5, 198), (-30, -30), (230, 230)])
def test_label_can_be_read_wherever_the_face_is(x, y):
    """As many pixels of the label are drawn as in the middle of the frame."""

    def label(x, y):
        image = np.zeros((300, 400, 3), np.uint8)
        visualise.draw_face(image, face(conf=None, s=40.0, x=x, y=y), speaks=False)
        return int((image == 255).all(axis=2).sum())

    def moved(value, middle):
        return value if value < 100 else value + middle

    there = label(200, 150)
    assert there > 100
    assert label(moved(x, 200), moved(y, 100)) == pytest.approx(there, rel=0.1)
