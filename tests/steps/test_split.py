"""One clip per time in which a face speaks: what is in the clips, and that nothing is lost."""

import contextlib
import csv
import shutil
from dataclasses import replace

import av
import clips
import numpy as np
import pytest
from checks import one_error

from syncnet import api
from syncnet.errors import UsageError
from syncnet.media import clips as media_clips
from syncnet.sync import speakers
from syncnet.sync.speakers import Span, Turns

pytestmark = pytest.mark.usefixtures("nothing_left_running")

FRAMES = 90
LEFT, RIGHT = (10, 60), (180, 60)
FLAGS = ("--facedet_scale", "0.5", "--min_track", "10", "--quiet")
SPANS = ((5, 39, 0), (40, 49, 1), (55, 85, 1))  # first and last frame, and place of the face from the left


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a clip of two faces, of which the left one flashes with the sound and the right one against it."""
    folder, light = tmp_path_factory.mktemp("split"), clips.flashes(FRAMES)
    frames = clips.write_frames(folder / "frames", clips.flashing_face([light, ~light], corners=[LEFT, RIGHT]))
    return clips.encode(folder / "a.mkv", frames, clips.write_audio(folder / "a.wav", light))


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """Let the faces speak as in ``SPANS``: the one whose distances vary more with the shift is the left one."""

    def find(candidates, *, levels, cuts, min_speaking):
        order = sorted(range(len(candidates)), key=lambda index: -np.ptp(candidates[index].dists.mean(axis=0)))
        spans = [Span(first, last, order[min(place, len(order) - 1)], 0.9) for first, last, place in SPANS]
        return Turns(spans, [], [np.zeros(candidate.frames, bool) for candidate in candidates])

    monkeypatch.setattr(speakers, "find", find)


@pytest.fixture
def split(run, clip, tmp_path):
    """Return a function that runs score_video on the clip and writes to the folder ``out``."""

    def call(*argv, video=clip):
        return run("score_video", "--videofile", video, "--split_speakers", tmp_path / "out", *FLAGS, *argv)

    return call


def table(folder):
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def streams(path):
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        names = (video.codec_context.name, audio.codec_context.name, audio.sample_rate)
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio)])
        return (*names, (video.width, video.height), float(video.average_rate)), sound


def bright(images):
    """Return whether frames of a face show a flash."""
    return images[:, 60:160, 60:160, 0].mean(axis=(1, 2)) > 60


def loud(sound, count):
    return np.abs(sound[: count * 640].reshape(count, -1)).mean(axis=1) > 0.05


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_clips(mode, split, clip, tmp_path):
    """Both faces are cut where they speak, in step with the sound: one flashes with it, the other one against it."""
    assert split("--mode", mode).code == 0
    rows = table(tmp_path / "out")
    assert [(row["start"], row["end"]) for row in rows] == [("0.2", "1.6"), ("2.2", "3.44")]
    assert sorted(content(tmp_path / "out")) == sorted(["index.csv", *(row["file"] for row in rows)])
    light = clips.flashes(FRAMES)
    for row, (first, last, place) in zip(rows, (SPANS[0], SPANS[2])):
        path = tmp_path / "out" / row["file"]
        assert row["file"] == f"track{row['track']}_{first / 25:08.2f}-{(last + 1) / 25:08.2f}.mp4"
        assert (row["videofile"], row["confidence"], int(row["frames"])) == (str(clip), "0.9", last + 1 - first)
        kinds, sound = streams(path)
        assert kinds == ("h264", "aac", 16000, (224, 224), 25.0)
        images, count = clips.decode(path), last + 1 - first
        assert images.shape == (count, 224, 224, 3)
        expected = light[first : last + 1]
        assert np.mean(bright(images) == (expected ^ bool(place))) > 0.97
        assert np.mean(loud(sound, count) == expected) > 0.9


def test_short_spans_are_left_out(split, tmp_path):
    assert split("--min_span", "0.4").code == 0
    assert [row["start"] for row in table(tmp_path / "out")] == ["0.2", "1.6", "2.2"]
    assert split("--min_span", "0.41", "--overwrite").code == 0
    assert [row["start"] for row in table(tmp_path / "out")] == ["0.2", "2.2"]
    assert split("--min_span", "9", "--overwrite").code == 0
    assert list(content(tmp_path / "out")) == ["index.csv"] and table(tmp_path / "out") == []


@pytest.mark.parametrize("mode", ["direct", "published"])
def test_face_crops(mode, split, tmp_path):
    light = clips.flashes(FRAMES)
    images = clips.flashing_face([light], corners=[(0, 0)], size=(clips.FACE, clips.FACE))
    frames = clips.write_frames(tmp_path / "frames", images)
    video = clips.encode(tmp_path / "crop.avi", frames, clips.write_audio(tmp_path / "a.wav", light))
    assert split("--mode", mode, "--face_crops", video=video).code == 0
    row = table(tmp_path / "out")[0]
    found = clips.decode(tmp_path / "out" / row["file"])
    assert found.shape[1:] == (224, 224, 3) and np.mean(bright(found) == light[5:40]) > 0.97


def test_sound_that_was_scored(split, clip, tmp_path):
    """The sound of another file, and another stream of the same file."""
    silent = np.zeros(FRAMES, bool)
    silent[20:] = True
    other = clips.write_audio(tmp_path / "other.wav", silent)
    two = tmp_path / "two.mkv"
    inputs = ("-i", clip, "-i", other)
    clips.Ffmpeg([*inputs, "-map", "0", "-map", "1", "-c", "copy", two], source=two).finish()
    for mode in ("direct", "published"):
        for argv, video in ((("--audio", other), clip), (("--audio_stream", 1), two)):
            assert split("--mode", mode, "--overwrite", *argv, video=video).code == 0
            sound = streams(tmp_path / "out" / table(tmp_path / "out")[0]["file"])[1]
            assert np.mean(loud(sound, 35) == silent[5:40]) > 0.9


def test_video_that_starts_late(split, clip, tmp_path):
    late = tmp_path / "late.mkv"
    inputs = ("-itsoffset", "0.4", "-i", clip, "-itsoffset", "0.4", "-i", clip, "-i", clip)
    maps = ("-map", "0:v", "-map", "1:a", "-map", "2:a", "-c", "copy")
    clips.Ffmpeg([*inputs, *maps, late], source=late).finish()
    assert split(video=late).code == 0
    row = table(tmp_path / "out")[0]
    assert row["start"] == "0.6"
    path, light = tmp_path / "out" / row["file"], clips.flashes(FRAMES)[5:40]
    assert np.mean(bright(clips.decode(path)) == light) > 0.97
    assert np.mean(loud(streams(path)[1], 35) == light) > 0.9


def test_nothing_is_overwritten(split, clip, tmp_path):
    """An error comes before the scoring; the clips of an earlier run are replaced on demand, other files never."""
    assert split().code == 0
    before = content(tmp_path / "out")
    one_error(split(), "--split_speakers", "--overwrite", code=2)
    assert content(tmp_path / "out") == before
    assert split("--overwrite", "--min_span", "1.3").code == 0
    assert len(content(tmp_path / "out")) == 2
    (tmp_path / "out" / "mine.txt").write_text("mine")
    before = content(tmp_path / "out")
    for argv in ((), ("--overwrite",)):
        one_error(split(*argv), "mine.txt", "new folder", code=2)
        assert content(tmp_path / "out") == before
    inside = shutil.copy(clip, tmp_path / "out" / "track0_00000.00-00001.00.mp4")
    one_error(split("--overwrite", video=inside), "the input lies in it", code=2)


def test_the_folder_is_a_file(split, tmp_path):
    (tmp_path / "out").write_text("mine")
    one_error(split("--overwrite"), "not a folder", code=2)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("earlier", [False, True])
def test_complete_or_not_at_all(earlier, split, monkeypatch, tmp_path):
    """The disk is full at the second clip."""
    if earlier:
        assert split().code == 0
    before = content(tmp_path / "out") if earlier else None
    made, original = [], media_clips.ClipWriter.add

    def add(self, picture, samples):
        made.append(self)
        if self is not made[0]:
            raise OSError(28, "No space left on device")
        original(self, picture, samples)

    monkeypatch.setattr(media_clips.ClipWriter, "add", add)
    ran = split("--overwrite")
    one_error(replace(ran, out=[]), tmp_path / "out", "No space left")
    assert (content(tmp_path / "out") if earlier else None) == before
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == (["out"] if earlier else [])


def test_from_python(clip, weights, tmp_path):
    nets = {"initial_model": weights["--initial_model"], "s3fd_weights": weights["--s3fd_weights"], "device": "cpu"}
    score = api.score_video(clip, facedet_scale=0.5, min_track=10, **nets)
    written = api.split_speakers(score, tmp_path / "deep" / "out")
    assert [path.parent for path in written] == [tmp_path / "deep" / "out"] * 2 and all(map(clips.Path.exists, written))
    with pytest.raises(UsageError, match="--overwrite"):
        api.split_speakers(score, tmp_path / "deep" / "out")
    with pytest.raises(UsageError, match="in memory"):
        api.split_speakers(replace(score, videofile=None), tmp_path / "other")


def test_pyav_without_h264(split, monkeypatch, tmp_path):
    monkeypatch.setattr(media_clips, "VIDEO_CODEC", "no_such_codec")
    one_error(replace(split(), out=[]), "PyAV cannot encode", "no_such_codec")
    with contextlib.suppress(FileNotFoundError):
        assert content(tmp_path / "out") == {}
