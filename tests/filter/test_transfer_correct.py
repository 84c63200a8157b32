# ruff: noqa: F811, fixtures are imported
"""Tests of ``--transfer correct`` with a scorer that reads scores from file names, and once with real networks."""

import csv
import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
import types
from pathlib import Path

import pytest
from conftest import ROOT
from filter_fixtures import by_name, files, folder, placed, run_filter, stub, weights_files  # noqa: F401
from filter_program import records
from filter_stub import corrected

import filter_videos_by_sync_score as script
from syncnet.filter.layout import other_name
from syncnet.media.resync import Shift, move_sound

SAMPLE, STARTER = ROOT / "data/sample.mp4", ROOT / "data/starter"
FLAGS = ("--mode", "direct", "--transfer", "correct")
EARLY, STEP, LATE = "e.c7.o5.mp4", "s.c7.o0.mp4", "l.c9.o-8.MKV"
POOR, FAR = "p.c3.o5.mp4", "far.c8.o14.mp4"


@pytest.fixture
def filtered(run_filter):
    """Return a function that runs the filter with ``--transfer correct``."""
    return lambda videos, *more, **kwargs: run_filter(videos, *FLAGS, *more, **kwargs)


def texts(tmp_path):
    """Return the content of the files in the quality folders, by name."""
    return {name: (tmp_path / "out" / name).read_text() for name in placed(tmp_path)}


def source(name):
    return f"content of videos/{name}"


def corrections(stub):
    return sorted(line.removeprefix("correct ") for line in stub() if line.startswith("correct "))


def table(tmp_path):
    with (tmp_path / "out/results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_what_goes_where(filtered, folder, stub, tmp_path):
    """Lags are taken out up to --max_lag, a video in step is copied, and all others are poor."""
    names = ("sub/ü.c7.o4.webm", "v.c8.o3.vague.mp4", "r.c7.o4.correct-refused.mp4", "none.mp4")
    videos = folder(EARLY, STEP, LATE, POOR, FAR, *names)
    results, err = filtered(videos, "--recursive", "--max_lag", 500)
    good = (EARLY, LATE, names[0])
    assert texts(tmp_path) == {
        **{f"good_quality/{name}": corrected(source(name)) for name in good},
        f"good_quality/{STEP}": source(STEP),
        **{f"poor_quality/{name}": source(name) for name in (POOR, FAR, *names[1:3])},
    }
    assert (results["good_quality"], results["poor_quality"], results["corrected"]) == (4, 4, 3)
    assert results["not_yet_corrected"] == 0 and results["filter_settings"]["max_lag"] == 500
    assert "3 of the good ones are corrected" in err
    found = by_name(results)
    assert {name: each["quality_reasons"] for name, each in found.items() if not each["passes_quality"]} == {
        POOR: ["confidence 3.000 is below 5"],
        FAR: ["lag 557 ms is more than --max_lag 500 ms"],
        names[1]: ["lag 117 ms is known to 40 ms only, not to 15 ms"],
        names[2]: ["not corrected: for a reason"],
        names[3]: ["no face found"],
    }
    assert corrections(stub) == sorted([*good, names[2]])
    assert sorted(files(videos)) == sorted([EARLY, STEP, LATE, POOR, FAR, *names])
    assert all((videos / name).read_text() == source(name) for name in files(videos))


def test_lag_before_and_after_in_results_and_journal(filtered, folder, tmp_path):
    results, _ = filtered(folder(EARLY, STEP))
    rows = table(tmp_path)
    columns = ("lag_ms", "correction", "lag_before_ms", "lag_after_ms", "confidence_after", "delay_ms")
    assert [rows[EARLY][name] for name in columns] == ["197.0", "corrected", "197.0", "2.0", "7.2", "197.0"]
    assert [rows[STEP][name] for name in columns] == ["-3.0", "", "", "", "", ""]
    assert rows[EARLY]["correction_notes"] == "a note"
    assert (rows[EARLY]["offset"], rows[EARLY]["confidence"], rows[EARLY]["passes_quality"]) == ("5", "7.0", "True")
    found = by_name(results)
    assert found[STEP]["correction"] is None
    assert found[EARLY]["correction"] == {
        "state": "corrected",
        "max_lag": 600.0,
        "lag_before_ms": 197.0,
        "lag_error_before_ms": 4.0,
        "confidence_before": 7.0,
        "lag_after_ms": 2.0,
        "lag_error_after_ms": 4.0,
        "confidence_after": 7.2,
        "delay_ms": 197.0,
        "rounds": 1,
        "notes": ["a note"],
        "error": None,
        "processing_time": 0.0,
    }
    lines = [line for line in records(tmp_path / "out") if line["name"] == EARLY]
    assert ["correction" in line for line in lines] == [False, True]
    same = {key: value for key, value in lines[1].items() if key not in ("crc32", "correction")}
    assert same == {key: value for key, value in lines[0].items() if key != "crc32"}


def test_without_the_flag_nothing_is_corrected(run_filter, folder, stub, tmp_path):
    results, _ = run_filter(folder(EARLY, STEP), "--mode", "direct")
    assert texts(tmp_path) == {f"good_quality/{STEP}": source(STEP), f"poor_quality/{EARLY}": source(EARLY)}
    assert corrections(stub) == [] and "corrected" not in results and "max_lag" not in results["filter_settings"]
    assert not any("correction" in line for line in records(tmp_path / "out"))
    assert "corrects" not in (tmp_path / "out/.placed.jsonl").read_text()


def test_a_second_run_corrects_nothing(filtered, folder, stub, tmp_path):
    videos = folder(EARLY, STEP, LATE, "r.c7.o4.correct-refused.mp4")
    first, _ = filtered(videos)
    begun, made = stub(), {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in placed(tmp_path)}
    for flags in ([], ["--rescore", "never"], ["--save_outputs"]):
        again, _ = filtered(videos, *flags)
        assert again["results"] == first["results"] or flags == ["--save_outputs"]
        assert corrections(stub) == [line.removeprefix("correct ") for line in sorted(begun) if "correct " in line]
        assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in placed(tmp_path)} == made
    filtered(videos, "--rescore", "always")
    assert corrections(stub) == sorted([EARLY, LATE, "r.c7.o4.correct-refused.mp4"] * 2)


def test_thresholds_move_corrected_files(filtered, folder, stub, tmp_path):
    """A corrected file follows the verdict and comes back, also without networks."""
    videos = folder(EARLY, STEP, LATE)
    filtered(videos)
    for never in ([], ["--rescore", "never"]):
        filtered(videos, "--min_confidence", 8, *never)
        assert texts(tmp_path) == {
            f"good_quality/{LATE}": corrected(source(LATE)),
            f"poor_quality/{EARLY}": corrected(source(EARLY)),
            f"poor_quality/{STEP}": source(STEP),
        }
        filtered(videos, *never)
        assert texts(tmp_path)[f"good_quality/{EARLY}"] == corrected(source(EARLY))
    filtered(videos, "--max_lag", 250)
    assert texts(tmp_path)[f"poor_quality/{LATE}"] == corrected(source(LATE))
    assert len(corrections(stub)) == 2


def test_copies_replace_corrected_files_where_they_are_asked_for(run_filter, filtered, folder, tmp_path):
    videos = folder(EARLY)
    filtered(videos)
    run_filter(videos, "--mode", "direct")
    assert texts(tmp_path) == {f"poor_quality/{EARLY}": source(EARLY)}
    run_filter(videos, "--mode", "direct", "--max_abs_offset", 5)
    assert texts(tmp_path) == {f"good_quality/{EARLY}": source(EARLY)}
    filtered(videos)
    assert texts(tmp_path) == {f"good_quality/{EARLY}": corrected(source(EARLY))}


def test_never_lists_what_is_not_yet_corrected(run_filter, filtered, folder, stub, tmp_path, monkeypatch):
    """Videos that pass only now are named with the command that corrects them, which then does so."""
    videos = folder(EARLY, "sub/ü v.c7.o4.mp4", "c.c7.o1.mp4", LATE)
    filtered(videos, "--recursive", "--min_confidence", 8, "--min_track", 40)
    assert sorted(corrections(stub)) == [LATE]
    flags = ("--transfer", "correct", "--min_confidence", 6, "--rescore", "never")
    results, err = run_filter(None, *flags, code=3)
    assert (results["good_quality"], results["not_yet_corrected"]) == (1, 3)
    assert f"{EARLY}: not yet corrected: lag 197 ms" in err and "ü v.c7.o4.mp4: not yet corrected" in err
    assert [name for name in texts(tmp_path) if name.startswith("good")] == [f"good_quality/{LATE}"]
    assert texts(tmp_path)[f"poor_quality/{EARLY}"] == source(EARLY)
    assert table(tmp_path)[EARLY]["correction"] == "pending"
    assert by_name(results)[EARLY]["quality_reasons"] == ["not yet corrected: lag 197 ms"]
    [command] = [line for line in err.splitlines() if line.startswith("python ")]
    assert command.startswith(f"python filter_videos_by_sync_score.py --input_dir {videos} --recursive ")
    begun = len(stub())
    assert "--initial_model a.pt --s3fd_weights b.pt" in command  # of other weights than the default, only the name
    monkeypatch.chdir(tmp_path)
    assert script.main(shlex.split(command)[2:]) == 0
    assert sorted(stub()[begun:]) == sorted(f"correct {n}" for n in (EARLY, "sub/ü v.c7.o4.mp4", "c.c7.o1.mp4"))
    assert len([name for name in texts(tmp_path) if name.startswith("good")]) == 4


def test_an_uncorrected_copy_does_not_stay_good(run_filter, filtered, folder, tmp_path):
    """Never takes copies of an earlier run out of good_quality, and makes no new ones."""
    videos = folder("c.c7.o1.mp4", EARLY, STEP)
    for kind in ("hardlink", "none"):
        run_filter(videos, "--mode", "direct", "--transfer", kind, output=kind)
        shutil.copytree(tmp_path / kind, tmp_path / "out", copy_function=os.link)
        filtered(None, "--rescore", "never", code=3)
        there = {
            "hardlink": {f"poor_quality/{n}": source(n) for n in ("c.c7.o1.mp4", EARLY)},
            "none": {},
        }[kind]
        assert texts(tmp_path) == {f"good_quality/{STEP}": source(STEP), **there}
        assert all((tmp_path / "out" / name).samefile(videos / name.rpartition("/")[2]) for name in there)
        shutil.rmtree(tmp_path / "out")


def test_source_that_is_gone_or_modified(filtered, folder, stub, tmp_path):
    videos = folder(EARLY, LATE, STEP)
    filtered(videos, "--min_confidence", 8)
    (videos / LATE).unlink()
    (videos / EARLY).unlink()
    filtered(None, "--rescore", "never", "--min_confidence", 9.5)
    assert texts(tmp_path)[f"poor_quality/{LATE}"] == corrected(source(LATE))  # it may be the only copy left
    listed = tmp_path / "list"
    listed.write_text("".join(f"{videos / name}\n" for name in (EARLY, LATE, STEP)))
    results, _ = filtered(None, "--input_list", listed, code=3)
    assert texts(tmp_path)[f"good_quality/{LATE}"] == corrected(source(LATE))
    assert by_name(results)[EARLY]["quality_reasons"] == ["not yet corrected: lag 197 ms"]
    assert f"poor_quality/{EARLY}" in texts(tmp_path)
    folder(EARLY, LATE)
    (videos / LATE).write_text("another content")
    filtered(videos)
    assert texts(tmp_path)[f"good_quality/{LATE}"] == corrected("another content")
    assert texts(tmp_path)[f"good_quality/{EARLY}"] == corrected(source(EARLY))
    assert corrections(stub) == sorted([EARLY, LATE, LATE])


def test_video_that_is_modified_while_it_is_corrected(filtered, folder, stub, tmp_path):
    """Its correction is void; the next run scores and corrects what is there now."""
    name = "t.c7.o4.correct-touches.mp4"
    results, err = filtered(folder(name), code=3)
    assert f"{name}: not corrected: the video was modified after it was scored" in err
    assert placed(tmp_path) == [] and by_name(results)[name]["correction"] is None
    filtered(tmp_path / "videos")
    assert texts(tmp_path) == {f"good_quality/{name}": corrected("touched")}
    assert stub() == [name, f"correct {name}"] * 2


def test_corrected_file_that_was_deleted_is_made_again(filtered, folder, stub, tmp_path):
    videos = folder(EARLY, LATE)
    filtered(videos)
    (tmp_path / "out/good_quality" / EARLY).unlink()
    (tmp_path / "out/good_quality" / LATE).write_text("edited by the user")
    _, err = filtered(videos, "--rescore", "never", code=3)
    assert f"{EARLY}: not yet corrected" in err and f"{LATE}: not yet corrected" in err
    filtered(videos)
    other = other_name(f"good_quality/{LATE}", str(videos / LATE))
    assert texts(tmp_path) == {
        f"good_quality/{EARLY}": corrected(source(EARLY)),
        f"good_quality/{LATE}": "edited by the user",
        other: corrected(source(LATE)),
    }


def test_files_of_others_are_not_touched(filtered, folder, tmp_path):
    videos = folder(EARLY)
    for name in (EARLY, "notes.txt"):
        taken = tmp_path / "out/good_quality" / name
        taken.parent.mkdir(parents=True, exist_ok=True)
        taken.write_text("mine")
    other = other_name(f"good_quality/{EARLY}", str(videos / EARLY))
    (tmp_path / "out" / other).write_text("mine too")
    results, err = filtered(videos, code=3)
    assert "not written: a file that the filter did not make has this name" in err
    assert by_name(results)[EARLY]["quality_reasons"] == ["not yet corrected: lag 197 ms"]
    (tmp_path / "out" / other).unlink()
    filtered(videos)
    mine = {f"good_quality/{name}": "mine" for name in (EARLY, "notes.txt")}
    assert texts(tmp_path) == {**mine, other: corrected(source(EARLY))}


def test_a_lag_beyond_what_scores_looked_for(filtered, folder, stub, tmp_path):
    """A larger --max_lag measures again what has no lag; what was refused with a smaller one is tried again."""
    wide, edge, other = "w.c1.o2.lag900.mp4", "edge.c9.o15.mp4", "x.c4.o7.lag900x.mp4"  # the latter seems to have a lag
    videos = folder(wide, edge, other, STEP)
    results, _ = filtered(videos)
    assert corrections(stub) == [edge]  # 597 ms
    assert by_name(results)[wide]["quality_reasons"][0] == "confidence 1.000 is below 5"
    results, _ = filtered(videos, "--max_lag", 800)
    assert corrections(stub) == [edge, wide, other]
    assert by_name(results)[wide]["quality_reasons"] == ["lag 900 ms is more than --max_lag 800 ms"]
    results, err = filtered(videos, "--max_lag", 1000, "--rescore", "never", code=3)
    assert f"{wide}: not yet corrected: its lag is looked for up to 1000 ms" in err
    for flags, code in (([], 0), (["--rescore", "never"], 0)):
        results, _ = filtered(videos, "--max_lag", 1000, *flags, code=code)
        assert texts(tmp_path) == {
            **{f"good_quality/{name}": corrected(source(name)) for name in (wide, edge, other)},
            f"good_quality/{STEP}": source(STEP),
        }
    assert corrections(stub) == [edge, wide, wide, other, other]
    results, _ = filtered(videos, "--max_lag", 1000, "--min_confidence", 6.5)
    assert by_name(results)[wide]["quality_reasons"] == ["confidence 6.000 is below 6.5"]


def test_failed_corrections(filtered, folder, stub, tmp_path):
    """They are poor and do not stop the others; --retry_failed tries them again."""
    names = [f"{c}.c7.o4.correct-{word}.mp4" for c, word in zip("abcd", ("dies", "raises", "hang", "dies-once"))]
    videos = folder(*names, EARLY)
    results, err = filtered(videos, "--timeout", 3, code=3)
    errors = {name: each["quality_reasons"] for name, each in by_name(results).items() if not each["passes_quality"]}
    assert errors == {
        names[0]: ["its worker was killed by SIGSEGV, twice: run again with --retry_failed"],
        names[1]: ["RuntimeError: a bug of two lines"],
        names[2]: ["took longer than --timeout 3 seconds"],
    }
    assert sorted(texts(tmp_path)) == [
        *sorted(f"good_quality/{name}" for name in (names[3], EARLY)),
        *(f"poor_quality/{name}" for name in names[:3]),
    ]
    assert "not corrected: took longer" in err and not (tmp_path / "out/.work").exists()
    begun = len(stub())
    filtered(videos, "--timeout", 3, code=3)
    assert len(stub()) == begun
    filtered(videos, "--timeout", 3, "--retry_failed", code=3)
    assert set(stub()[begun:]) == {f"correct {name}" for name in names[:3]}


class Ray(types.ModuleType):
    """Stand-in of Ray whose actors work at once, in this process."""

    exceptions = types.SimpleNamespace(RayError=RuntimeError)

    class Call:
        def __init__(self, function):
            self.function = function

        def options(self, **_):
            return self

        def remote(self, *arguments):
            found = self.function(*arguments)
            return lambda: found

    def remote(self, **_):
        return lambda actor: types.SimpleNamespace(remote=lambda *arguments: self.handle(actor(*arguments)))

    def handle(self, actor):
        return types.SimpleNamespace(**{name: self.Call(getattr(actor, name)) for name in ("prepare", "work", "alive")})

    def wait(self, tasks, *, timeout):
        return tasks, []

    def get(self, task):
        return task()

    def kill(self, actor):
        pass

    def is_initialized(self):
        return True


def test_ray_s_actors_correct_videos(filtered, folder, tmp_path, monkeypatch):
    """They get a second kind of task, which is added while they score."""
    monkeypatch.setitem(sys.modules, "ray", Ray("ray"))
    logger = logging.getLogger("syncnet")
    monkeypatch.setattr(logger, "propagate", logger.propagate)  # an actor changes it
    filtered(folder(EARLY, STEP, "r.c7.o4.correct-raises.mp4"), "--engine", "ray", "--max_workers", 1, code=3)
    assert texts(tmp_path) == {
        f"good_quality/{EARLY}": corrected(source(EARLY)),
        f"good_quality/{STEP}": source(STEP),
        "poor_quality/r.c7.o4.correct-raises.mp4": source("r.c7.o4.correct-raises.mp4"),
    }


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--transfer", "correct"], "--transfer correct: needs the lag in milliseconds: add --mode direct"),
        (["--mode", "direct", "--max_lag", "500"], "--max_lag 500: works with --transfer correct only"),
        ([*FLAGS, "--max_lag", "0"], "--max_lag: 0"),
        ([*FLAGS, "--audio_dir", "."], "--audio_dir: --transfer correct moves the videos' own sound"),
    ],
)
def test_usage(run_filter, folder, flags, words):
    _, err = run_filter(folder(EARLY), *flags, code=2)
    assert words in err


def test_scores_of_published_mode_say_nothing_of_the_lag(run_filter, folder):
    run_filter(folder(EARLY))
    _, err = run_filter(None, "--rescore", "never", "--transfer", "correct", code=2)
    assert "--transfer correct: these scores are of published mode" in err


def test_a_damaged_correction_is_no_line(filtered, folder, tmp_path):
    """A line that another program changed is checked completely, and its video's earlier line holds."""
    videos = folder(EARLY)
    filtered(videos)
    journal = tmp_path / "out/results.jsonl"
    lines = journal.read_text().splitlines()
    line = json.loads(lines[1])
    for damage in ({"notes": 3}, {"state": "done"}, {"lag_after_ms": None}, {"lag_before_ms": "x"}):
        changed = json.dumps({**line, "correction": {**line["correction"], **damage}})
        journal.write_text(f"{lines[0]}\n{changed}\n")
        _, err = filtered(videos, "--rescore", "never", code=3)
        assert "1 damaged lines" in err and f"{EARLY}: not yet corrected" in err


@pytest.mark.slow
def test_real_networks_correct_a_moved_video(tmp_path, capfd):
    """A video whose sound is 200 ms early lands in good_quality in step; a second run takes nothing out."""
    videos = tmp_path / "videos"
    videos.mkdir()
    move_sound(SAMPLE, videos / "ü.mp4", shift=Shift(-200.0))
    weights = ("--initial_model", STARTER / "syncnet.pt", "--s3fd_weights", STARTER / "s3fd.pt")
    flags = (*FLAGS, *weights, "--detect_every", 25, "--max_workers", 1, "--device", "cpu")
    for source_dir, output in ((videos, "out"), (videos, "out"), (tmp_path / "out/good_quality", "again")):
        folders = ("--input_dir", source_dir, "--output_dir", tmp_path / output)
        assert script.main([*map(str, (*folders, *flags))]) == 0, capfd.readouterr().err
    [first, again] = [json.loads((tmp_path / o / "sync_filter_results.json").read_text()) for o in ("out", "again")]
    [found] = first["results"]
    assert found["passes_quality"] and found["offset"] == 5
    assert found["correction"]["lag_before_ms"] == pytest.approx(200, abs=6) == found["correction"]["delay_ms"]
    assert abs(found["correction"]["lag_after_ms"]) < 6
    assert again["corrected"] == 0 and again["good_quality"] == 1 and abs(again["results"][0]["lag_ms"]) < 6
    assert len(records(tmp_path / "out")) == 2
    corrected_file, copy = tmp_path / "out/good_quality/ü.mp4", tmp_path / "again/good_quality/ü.mp4"
    assert corrected_file.read_bytes() == copy.read_bytes() != (videos / "ü.mp4").read_bytes()


@pytest.mark.parametrize("side", ["good_quality", "poor_quality"])
def test_a_quality_folder_on_another_disk(filtered, folder, tmp_path, side):
    """A corrected file gets there complete, and moves to the other disk and back."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk")
    videos = folder(EARLY, "sub/ü.c7.o4.mp4")
    with tempfile.TemporaryDirectory(dir=memory) as other:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / side).symlink_to(other)
        for least, where in ((5, "good_quality"), (9, "poor_quality"), (5, "good_quality")):
            filtered(videos, "--recursive", "--min_confidence", least)
            there = tmp_path / "out" / where
            assert {str(p.relative_to(there)): p.read_text() for p in there.rglob("*.mp4")} == {
                name: corrected(source(name)) for name in (EARLY, "sub/ü.c7.o4.mp4")
            }
        assert not (Path(other) / ".work").exists()
