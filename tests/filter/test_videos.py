"""Tests of the filter on real files.

Most use clips with red squares as faces, a detector of red squares and a network that compares brightness with
loudness; one uses rendered talking faces and the starter weights.
"""

import json
import random
import shutil
import time
from pathlib import Path

import clips
import filter_program
import numpy as np
import pytest
from filter_program import alive, descendants, finish, kill, records, times_finished, wait_until, workers

from syncnet.results.layout import Layout

FLAGS = ("--facedet_scale", "0.5", "--min_track", "40")  # suits the detector of the tests
SIZE, FRAMES, HOLD = (480, 640), 125, 20
TOP, LEFT = 160, 270
OFFSET = 6
KILLS = 20
STARTER = Path(__file__).resolve().parents[2] / "data" / "starter"


def flashing_face(path, folder, *, late=0, other_audio=False, side=clips.FACE, frames=FRAMES):
    """Write a clip of a red square whose surroundings flash with the noise; the audio is ``late`` frames late."""
    video_frames = clips.flashes(frames + 2 * OFFSET, hold=HOLD)
    audio_frames = clips.flashes(len(video_frames), seed=7, hold=HOLD) if other_audio else video_frames
    images = []
    for light in video_frames[OFFSET : OFFSET + frames]:
        image = np.full((*SIZE, 3), 60, np.uint8)
        image[100:340, 200:440] = 190 if light else 60  # too small a part of the frame to count as a scene cut
        image[TOP : TOP + side, LEFT : LEFT + side] = (0, 0, 255)
        images.append(image)
    folder = folder / path.name
    folder.mkdir()
    pattern = clips.write_frames(folder / "frames", images)
    audio = clips.write_audio(folder / "audio.wav", audio_frames[OFFSET - late :][:frames])
    return clips.encode(path, pattern, audio)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One video of every kind."""
    folder, scratch = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("scratch")
    (folder / "sub").mkdir()
    flashing_face(folder / "good.avi", scratch)
    flashing_face(folder / "late.avi", scratch, late=OFFSET)
    flashing_face(folder / "wrong.avi", scratch, other_audio=True)
    flashing_face(folder / "short.avi", scratch, frames=30)
    shutil.copy(folder / "late.avi", folder / "sub" / "good.avi")
    shutil.copy(folder / "good.avi", folder / "-odd 'name' \"$x;\" ü.avi")
    clips.make(folder / "no face.mp4", clips.canvas(seconds=1), clips.tone(seconds=1))
    clips.make(folder / "mute.mp4", clips.canvas(seconds=1))
    clips.make(folder / "sound.mp3", clips.tone(seconds=1))
    (folder / "corrupt.mp4").write_bytes((folder / "no face.mp4").read_bytes()[:900])
    (folder / "empty.mp4").touch()
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "notes.txt").write_text("no video")
    return folder


GOOD = ("good.avi", "-odd 'name' \"$x;\" ü.avi")
LATE = ("late.avi", "sub/good.avi")
FAILED = ("corrupt.mp4", "empty.mp4", "gone.mp4")


@pytest.fixture
def start(weights, tmp_path):
    """Start the filter as a program on the CPU."""
    chosen = [str(part) for pair in weights.items() for part in pair]
    started = []

    def call(videos, *more, output="out"):
        folders = ("--input_dir", videos, "--output_dir", tmp_path / output, "--device", "cpu")
        started.append(filter_program.start(*folders, *FLAGS, *chosen, *more))
        return started[-1]

    yield call
    for program in started:
        program.kill()
        program.wait()


def results(output):
    return json.loads((output / "sync_filter_results.json").read_text())


@pytest.fixture(scope="module")
def thresholds():
    """Thresholds for the tests' network, whose distances are small."""
    return ("--min_confidence", "0.22")


def test_every_kind_of_video(start, folder, tmp_path, thresholds, run):
    code, out, err = finish(start(folder, "--recursive", "--save_outputs", "--verbose", *thresholds), seconds=300)
    assert code == 3, err
    assert out == "" and "Traceback" not in err
    found = {result["name"]: result for result in results(tmp_path / "out")["results"]}
    assert {name for name in found if found[name]["passes_quality"]} == set(GOOD), err
    in_step = found[GOOD[0]]["offset"]  # the tests' network has a small constant offset
    assert abs(in_step) <= 2 and all(found[name]["offset"] == in_step for name in GOOD)
    for name in LATE:  # audio after video: negative offset
        assert found[name]["offset"] == in_step - OFFSET
        assert found[name]["quality_reasons"][0] == f"offset {in_step - OFFSET} is more than 3 frames"
    assert "confidence 0." in found["wrong.avi"]["quality_reasons"][0]
    status = {name: found[name]["status"] for name in found}
    assert {name for name in status if status[name] == "failed"} == set(FAILED)
    assert all(found[name]["error"] and "\n" not in found[name]["error"] for name in FAILED)
    assert (status["mute.mp4"], status["sound.mp3"], status["no face.mp4"]) == ("no_audio", "no_video", "no_faces")
    [reason] = found["short.avi"]["reasons"]
    assert (status["short.avi"], reason["code"]) == ("no_faces", "tracks_too_short")
    assert "the longest track has 3" in reason["text"]
    kept = tmp_path / "out" / "syncnet_outputs"
    for name in (*GOOD, *LATE):
        assert (kept / name / "crops" / "00000.avi").is_file()
        assert (kept / name / "video_out.avi").is_file() and (kept / name / "analysis" / "scores.json").is_file()
        assert (tmp_path / "out" / f"{'good' if name in GOOD else 'poor'}_quality" / name).is_file()
    assert not (tmp_path / "out" / ".work").exists()
    small = ("--min_face_size", "150", *thresholds)
    assert finish(start(folder, *small, output="small"))[0] == 3
    [reason] = {result["name"]: result for result in results(tmp_path / "small")["results"]}["good.avi"]["reasons"]
    assert reason["code"] == "faces_too_small" and "the largest measures" in reason["text"]
    scripts_agree(run, folder / "late.avi", found["late.avi"], tmp_path)


def scripts_agree(run, video, result, tmp_path):
    """Check that run_pipeline and run_syncnet give the same numbers as the filter."""
    where = ("--data_dir", tmp_path / "data", "--reference", "me")
    assert run("run_pipeline", "--videofile", video, *where, *FLAGS, "--min_face_size", 50).code == 0
    assert run("run_syncnet", *where).code == 0
    report = json.loads(Layout(tmp_path / "data", "me").scores.read_text())
    assert len(report["tracks"]) == len(result["all_tracks"]) == 1
    assert result["all_tracks"][0]["lse_c"] is None  # the tests' weights are not the published ones
    for name, value in report["tracks"][0].items():
        if name in ("lse_c", "lse_d"):
            continue
        other = result["all_tracks"][0][name]
        assert other == (pytest.approx(value, abs=1e-4) if isinstance(value, float) else value)


@pytest.mark.slow
def test_kill_workers_and_program_at_random(start, folder, tmp_path):
    """Kill a worker or the whole program with SIGKILL, KILLS times, while real videos are scored."""
    videos = tmp_path / "videos"
    videos.mkdir()
    names = [f"{number:02d}.avi" for number in range(40)]
    for name in names:
        (videos / name).symlink_to(folder / "good.avi")
    dice, orphans, done = random.Random(0), [], set()
    program = start(videos)
    tally = {"worker": 0, "program": 0}
    for number in range(KILLS):
        wait_until(lambda running=program: running.poll() is not None or workers(running.pid), seconds=60)
        if number % 4 > 1:  # half of the kills happen while videos are scored, on any machine
            wait_until(lambda known=done: set(times_finished(tmp_path / "out")) > known, seconds=120)
        time.sleep(dice.uniform(0, 2))
        children = descendants(program.pid)
        victims = workers(program.pid) or children
        if program.poll() is not None or not victims:
            break
        if number % 2:
            tally["worker"] += kill(dice.choice(victims))
        else:
            orphans += children
            tally["program"] += kill(program.pid)
            program.wait()
            finished = set(times_finished(tmp_path / "out"))
            assert done <= finished, "a finished video is lost"
            done = finished
            program = start(videos)
    code, _, err = finish(program, seconds=300)
    wait_until(lambda: not any(map(alive, orphans)))
    print(tally, len(done), "finished before the last kill")
    assert sum(tally.values()) == KILLS and 0 < len(done) < len(names), "the kills hit nothing"
    failed = [record for record in records(tmp_path / "out") if record["status"] == "failed"]
    assert all("SIGKILL" in record["error"] for record in failed)
    assert code == (3 if failed else 0), err
    assert times_finished(tmp_path / "out") == dict.fromkeys(names, 1), "scored twice or never"
    scores = {record["tracks"][0]["confidence"] for record in records(tmp_path / "out") if record["tracks"]}
    assert len(scores) == 1, "a kill changed a score"
    assert not (tmp_path / "out" / ".work").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not ((STARTER / "syncnet.pt").is_file() and (STARTER / "s3fd.pt").is_file()), reason="no starter weights"
)
def test_rendered_talking_faces(tmp_path):
    """With the starter weights, videos in sync pass and others do not."""
    from training.face.make_sample import delay, write_video
    from training.face.talking_face import render_scene

    videos = tmp_path / "videos"
    videos.mkdir()
    scenes = [render_scene(seed, 5.0, people=1, face_height=170) for seed in range(4)]
    for number, clip in enumerate(scenes):
        other = scenes[(number + 1) % len(scenes)].audio[: len(clip.audio)]
        write_video(videos / f"{number} good.mp4", clip.frames, clip.audio)
        write_video(videos / f"{number} late.mp4", clip.frames, delay(clip.audio, OFFSET))
        write_video(videos / f"{number} wrong.mp4", clip.frames, other)
    weights = ("--initial_model", STARTER / "syncnet.pt", "--s3fd_weights", STARTER / "s3fd.pt")
    flags = ("--input_dir", videos, "--output_dir", tmp_path / "out", *weights, "--preset", "medium")
    code, _, err = finish(filter_program.start(*flags), seconds=400)
    assert code == 0, err
    found = {result["name"]: result for result in results(tmp_path / "out")["results"]}
    passes = {
        kind: sum(r["passes_quality"] for n, r in found.items() if kind in n) for kind in ("good", "late", "wrong")
    }
    scores = {name: (result["offset"], round(result["confidence"] or 0, 2)) for name, result in found.items()}
    assert passes["good"] >= 3 and passes["late"] == 0 and passes["wrong"] <= 1, scores
    late = [result["offset"] for name, result in found.items() if "late" in name]
    assert sum(abs(offset + OFFSET) <= 1 for offset in late) >= 3, scores
