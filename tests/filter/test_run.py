# ruff: noqa: F811, fixtures are imported
"""Tests of the filter's main loop and results, with a scorer that reads scores from file names."""

import codecs
import csv
import json
import os
import shutil

import cv2
import filter_stub
import pytest
import torch
from filter_fixtures import (  # noqa: F401
    EARLY,
    EDGE,
    FACELESS,
    GOOD,
    POOR,
    by_name,
    files,
    folder,
    placed,
    published_weights,
    run_filter,
    stub,
    weights_files,
)
from filter_program import records

import filter_videos_by_sync_score as script
from syncnet.filter import scorer
from syncnet.filter.outputs import histogram
from syncnet.filter.quality import Thresholds, judge


def test_published_fields_and_folders(run_filter, folder, tmp_path):
    results, err = run_filter(folder(GOOD, POOR, EARLY, EDGE, FACELESS, "notes.txt"))
    assert results["filter_settings"] == {
        "min_confidence": 5.0,
        "max_abs_offset": 3,
        "min_face_size": 50,
        "min_track": 50,
        "reject": ["damaged", "silent", "few_windows", "offset_changes"],
    }
    counts = {
        "total_videos": 5,
        "successful_processing": 4,
        "good_quality": 1,
        "poor_quality": 3,
        "no_faces_detected": 1,
        "processing_failed": 0,
    }
    assert {name: results[name] for name in counts} == counts
    assert results["timestamp"]
    good, poor, early, edge, faceless = (by_name(results)[n] for n in (GOOD, POOR, EARLY, EDGE, FACELESS))
    assert (good["video_name"], good["status"], good["offset"], good["confidence"]) == (GOOD, "success", 1, 7.2)
    assert good["video_path"] == str(tmp_path / "videos" / GOOD)
    assert good["passes_quality"] and good["quality_reasons"] == [] and good["error"] is None
    assert [t["confidence"] for t in good["all_tracks"]] == [7.2, pytest.approx(6.2)]
    assert good["start_time"] <= good["end_time"] and good["processing_time"] > 0
    assert poor["quality_reasons"] == ["confidence 3.100 is below 5"]
    assert early["quality_reasons"] == ["offset -6 is more than 3 frames"]
    assert edge["quality_reasons"] == ["offset 15 is more than 3 frames", "at the edge"]
    assert faceless["status"] == "no_faces" and faceless["quality_reasons"] == ["no face found"]
    assert placed(tmp_path) == [f"good_quality/{GOOD}", *(f"poor_quality/{n}" for n in (EARLY, EDGE, POOR))]
    assert (tmp_path / "out/good_quality" / GOOD).read_text() == f"content of videos/{GOOD}"
    assert "1 good, 3 poor, 1 without faces" in err


def test_defaults_and_presets(run_filter, folder):
    defaults = {
        "min_confidence": 5.0,
        "max_abs_offset": 3,
        "min_face_size": 50,
        "min_track": 50,
        "max_workers": 2,
        "keep_all": False,
        "preset": None,
        "initial_model": "data/syncnet_v2.model",
        "s3fd_weights": "detectors/s3fd/weights/sfd_face.pth",
        "facedet_scale": 0.25,
        "crop_scale": 0.40,
        "num_failed_det": 25,
        "scene_threshold": 27,
        "vshift": 15,
        "batch_size": 20,
        "device": "auto",
    }
    args = script.get_parser().parse_args(["--output_dir", "x"])
    assert {name: getattr(args, name) for name in defaults} == defaults
    videos = folder(GOOD)
    presets = {"strict": (8.0, 2), "high": (6.0, 3), "medium": (4.0, 5), "relaxed": (2.0, 8)}
    for preset, thresholds in presets.items():
        settings = run_filter(videos, "--preset", preset)[0]["filter_settings"]
        assert (settings["min_confidence"], settings["max_abs_offset"]) == thresholds
    settings = run_filter(videos, "--max_abs_offset", 1, "--preset", "high")[0]["filter_settings"]
    assert (settings["min_confidence"], settings["max_abs_offset"]) == (6.0, 1)


def test_thresholds_are_inclusive(run_filter, folder):
    results, _ = run_filter(folder("a.c5.o3.mp4", "b.c5.o-3.mp4", "c.c4.999.o0.mp4", "d.c5.o4.mp4"))
    assert [r["passes_quality"] for r in results["results"]] == [True, True, False, False]


def test_other_thresholds_move_files_and_score_nothing(run_filter, folder, stub, tmp_path):
    videos = folder(GOOD, POOR)
    run_filter(videos)
    assert len(stub()) == 2
    own = tmp_path / "out/good_quality/mine.txt"
    own.write_text("mine")
    for flags in (["--min_confidence", 2], ["--min_confidence", 2, "--rescore", "never"]):
        results, _ = run_filter(videos, *flags)
        assert results["good_quality"] == 2
        assert placed(tmp_path) == [f"good_quality/{GOOD}", "good_quality/mine.txt", f"good_quality/{POOR}"]
    run_filter(videos, "--preset", "strict")
    assert placed(tmp_path) == ["good_quality/mine.txt", f"poor_quality/{GOOD}", f"poor_quality/{POOR}"]
    assert len(stub()) == 2
    assert own.read_text() == "mine"


def test_rescore_never_needs_neither_weights_nor_videos(run_filter, folder, stub, tmp_path):
    videos = folder(GOOD, POOR, "sub/s.c9.o0.mp4")
    run_filter(videos, "--recursive")
    shutil.rmtree(videos)
    (tmp_path / "a.pt").unlink()
    results, _ = run_filter(None, "--rescore", "never", "--min_confidence", 8)
    assert (results["total_videos"], results["good_quality"]) == (3, 1)
    assert placed(tmp_path) == ["good_quality/sub/s.c9.o0.mp4", f"poor_quality/{GOOD}", f"poor_quality/{POOR}"]
    assert run_filter(videos, "--rescore", "never")[0]["total_videos"] == 2
    assert run_filter(videos, "--rescore", "never", "--recursive")[0]["total_videos"] == 3
    assert len(stub()) == 3
    _, err = run_filter(None, "--rescore", "never", output="empty", code=2)
    assert "no scores" in err


def test_what_is_scored_again(run_filter, folder, stub, tmp_path):
    videos = folder(GOOD, POOR, "x.raises.mp4")

    def scored(*flags, code=3):
        before = len(stub())
        run_filter(videos, *flags, code=code)
        return sorted(stub()[before:])

    assert scored() == [GOOD, POOR, "x.raises.mp4"]
    assert scored() == []
    assert scored("--batch_size", 10, "--device", "cpu") == []  # the same score
    assert scored("--retry_failed") == ["x.raises.mp4"]
    (videos / POOR).write_text("another content")
    assert scored() == [POOR]
    os.utime(videos / GOOD, (1, 1))
    assert scored() == [GOOD]
    for flags in (["--min_track", 40], ["--min_face_size", 40], ["--vshift", 10], ["--facedet_scale", 0.5]):
        assert len(scored(*flags)) == 3
    (tmp_path / "a.pt").write_text("other weights")
    assert len(scored()) == 3
    assert len(scored("--rescore", "always")) == 3
    lines = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert len(lines) == len(stub())
    assert run_filter(videos, code=3)[0]["total_videos"] == 3


def test_paper_line(run_filter, folder, published_weights):
    results, err = run_filter(folder("a.c7.o0.mp4", "b.c4.o1.mp4", "c.c1.o0.mp4", FACELESS))
    best, every = results["lse"]["most_confident_track_of_each_video"], results["lse"]["all_tracks"]
    assert (best["videos"], best["lse_c"]) == (3, {"mean": 4.0, "median": 4.0})
    assert (every["tracks"], every["lse_c"], every["lse_d"]["mean"]) == (6, {"mean": 3.5, "median": 3.5}, 8.0)
    [used] = results["recipes"]
    assert used["videos"] == 3 and used["parameters"]["min_track"] == 50
    assert used["parameters"]["initial_model"]["name"] == "a.pt"
    assert "most confident track of each of 3 videos: LSE-C mean 4.000 median 4.000, LSE-D mean 8.000" in err
    assert "all 6 tracks: LSE-C mean 3.500" in err
    assert "a.pt" in err and "min_track 50" in err and "do not report" not in err


@pytest.mark.parametrize(
    ("flags", "why"), [([], "not the published SyncNet weights"), (["--mode", "direct"], "direct")]
)
def test_scores_that_are_not_lse(run_filter, folder, tmp_path, flags, why, request):
    if flags:
        request.getfixturevalue("published_weights")
    results, err = run_filter(folder("a.c7.o0.mp4", "b.c4.o1.mp4", "c.c1.o0.mp4", FACELESS), *flags)
    best, every = results["lse"]["most_confident_track_of_each_video"], results["lse"]["all_tracks"]
    middle = {"mean": 4.0, "median": 4.0}
    assert best["confidence"] == middle and best["min_dist"] == {"mean": 8.0, "median": 8.0}
    assert best["lse_c"] == best["lse_d"] == every["lse_c"] == every["lse_d"] == {"mean": None, "median": None}
    assert "of 3 videos: confidence mean 4.000 median 4.000, min dist mean 8.000" in err
    assert f"{why}" in err and "do not report these numbers as LSE-C and LSE-D" in err
    tracks = [track for result in results["results"] for track in result["all_tracks"]]
    assert tracks and all(
        track["lse_c"] is track["lse_d"] is None and None is not track["confidence"] for track in tracks
    )
    rows = table(tmp_path)
    assert all(row["lse_c"] == row["lse_d"] == "" for row in rows)
    assert [row["confidence"] for row in rows] == ["7.0", "4.0", "1.0", ""]


def table(tmp_path):
    """Return the rows of results.csv."""
    with (tmp_path / "out/results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_of_published_and_direct_mode(run_filter, folder, tmp_path, published_weights):
    videos = folder(GOOD, FACELESS)
    run_filter(videos)
    names = ("mode", "weights", "lse_c", "lse_d", "lag_ms", "lag_error_ms")
    assert [[row[name] for name in names] for row in table(tmp_path)] == [
        ["published", "a.pt", "7.2", "8.0", "", ""],
        ["published", "a.pt", "", "", "", ""],
    ]
    results, _ = run_filter(videos, "--mode", "direct")
    assert [[row[name] for name in names] for row in table(tmp_path)] == [
        ["direct", "a.pt", "", "", "37.0", "4.0"],
        ["direct", "a.pt", "", "", "", ""],
    ]
    good = by_name(results)[GOOD]
    assert (good["mode"], good["lag_ms"], good["lag_error_ms"]) == ("direct", 37.0, 4.0)
    assert [record["mode"] for record in records(tmp_path / "out")] == ["published"] * 2 + ["direct"] * 2


def test_an_offset_that_means_nothing_is_named():
    reason = {"code": "low_confidence", "text": "the offset means nothing"}
    track = {**filter_stub.track(0, 1.5, 9), "reasons": [reason, {"code": "audio_short", "text": "x"}]}
    verdict = judge({"status": "success", "tracks": [track], "reasons": []}, Thresholds(1.0, 10))
    assert verdict.passes and verdict.reasons == ["the offset means nothing"]


def test_histogram_shows_where_thresholds_cut(run_filter, folder):
    _, err = run_filter(folder("a.c7.5.o0.mp4", "b.c7.o1.mp4", "c.c2.5.o-7.mp4"))
    lines = [line.split() for line in err.splitlines()]
    assert ["7", "to", "8", "*", "#" * 40, "2"] in lines
    assert ["2", "to", "3", "#" * 20, "1"] in lines
    assert ["5", "to", "6", "*", "0"] in lines
    assert ["-7", "#" * 40, "1"] in lines and ["1", "*", "#" * 40, "1"] in lines


def test_histogram_marks_bars_that_pass_in_part():
    values = [6.5, 7.0, 9.0, 50.0]
    lines = list(histogram(values, passes=lambda value: value >= 7))
    assert [(line[:12].strip(), line[13]) for line in lines if not line.endswith(" 0")] == [
        ("6 to 8", "+"),
        ("8 to 10", "*"),
        ("50 to 52", "*"),
    ]
    offsets = list(histogram(range(-15, 16), passes=lambda value: abs(value) <= 3, whole=True))
    assert len(offsets) == 31 and [int(line[:12]) for line in offsets if line[13] == "*"] == list(range(-3, 4))


def test_settings_are_those_of_the_scores(run_filter, folder):
    run_filter(folder(GOOD), "--min_face_size", "40", "--min_track", "30")
    results, _ = run_filter(None, "--rescore", "never", "--min_confidence", "3")
    assert results["filter_settings"] == {
        "min_confidence": 3.0,
        "max_abs_offset": 3,
        "min_face_size": 40,
        "min_track": 30,
        "reject": ["damaged", "silent", "few_windows", "offset_changes"],
    }


def test_never_counts_videos_without_a_score(run_filter, folder, tmp_path):
    videos = folder(GOOD)
    run_filter(videos)
    folder(POOR)
    known, unknown = tmp_path / "known", tmp_path / "unknown"
    known.write_text(f"{videos / GOOD}\n{videos / POOR}\n")
    unknown.write_text(f"{videos / POOR}\n")
    results, _ = run_filter(None, "--input_list", known, "--rescore", "never", code=3)
    assert (results["total_videos"], results["not_scored"]) == (2, 1)
    _, err = run_filter(None, "--input_list", unknown, "--rescore", "never", code=2)
    assert "no scores of these videos" in err


@pytest.mark.parametrize("rescore", ["changed", "always"])
def test_list_keeps_scores_while_its_disk_is_away(run_filter, folder, stub, tmp_path, rescore):
    videos = folder(GOOD, POOR)
    paths = tmp_path / "list"
    paths.write_bytes(codecs.BOM_UTF8 + f"{videos / GOOD}\n \n{videos / POOR}\n".encode())
    before, _ = run_filter(None, "--input_list", paths)
    assert before["total_videos"] == 2
    begun = len(stub())
    videos.rename(tmp_path / "away")
    after, _ = run_filter(None, "--input_list", paths, "--rescore", rescore)
    assert after["results"] == before["results"]
    (tmp_path / "away").rename(videos)
    run_filter(None, "--input_list", paths)
    assert len(stub()) == begun


def test_verbose_and_quiet(run_filter, folder):
    videos = folder(GOOD, "x.raises.mp4")
    _, err = run_filter(videos, "--verbose", code=3)
    assert f"{GOOD}: good, confidence 7.200, offset 1" in err
    _, err = run_filter(videos, "--quiet", "--rescore", "always", code=3)
    assert err.splitlines() == ["x.raises.mp4: failed: RuntimeError: a bug of two lines"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--input_dir"),
        (["--input_dir", "nowhere"], "no such folder"),
        (["--input_dir", ".", "--min_face_size", "-1"], "--min_face_size"),
        (["--input_dir", ".", "--preset", "best"], "--preset"),
        (["--input_dir", ".", "--rescore", "never", "--save_outputs"], "--save_outputs"),
        (["--input_dir", ".", "--min_confidence", "nan"], "--min_confidence"),
        (["--input_dir", ".", "--min_confidence", "inf"], "--min_confidence"),
        (["--input_dir", ".", "--gpus_per_worker", "nan"], "--gpus_per_worker: nan: must be a number"),
        (["--input_dir", ".", "--output_dir", ""], "--output_dir"),
    ],
)
def test_usage(run_filter, flags, words):
    _, err = run_filter(None, *flags, code=2)
    assert words in err


def test_output_is_not_the_input(run_filter, folder):
    videos = folder(GOOD)
    _, err = run_filter(videos, output="videos", code=2)
    assert "choose another folder" in err
    assert files(videos) == [GOOD]


def test_missing_weights(run_filter, folder, tmp_path):
    (tmp_path / "a.pt").unlink()
    _, err = run_filter(folder(GOOD), code=1)
    assert "a.pt: cannot read the SyncNet weights" in err
    assert not (tmp_path / "out/sync_filter_results.json").exists()


def test_empty_folder(run_filter, folder):
    results, err = run_filter(folder("readme.txt"))
    assert results["total_videos"] == 0 and results["results"] == []
    assert "0 videos" in err


def test_journals_put_together(run_filter, folder, tmp_path):
    """Merge journals as docs/cluster.md describes: all videos are judged, and none is scored again."""
    run_filter(folder(GOOD, into="part1"), "--transfer", "none", output="results.00")
    run_filter(folder(POOR, EARLY, into="part2"), "--transfer", "none", output="results.01")
    parts = [tmp_path / "results.00", tmp_path / "results.01"]
    (tmp_path / "all").mkdir()
    (tmp_path / "all/results.jsonl").write_bytes(b"".join((part / "results.jsonl").read_bytes() for part in parts))
    (tmp_path / "all/recipes.json").write_bytes((parts[0] / "recipes.json").read_bytes())
    results, _ = run_filter(None, "--rescore", "never", "--min_confidence", "3", output="all")
    assert (results["total_videos"], results["good_quality"]) == (3, 2)
    assert {name: result["passes_quality"] for name, result in by_name(results).items()} == {
        GOOD: True,
        POOR: True,
        EARLY: False,
    }


@pytest.mark.parametrize(
    ("device", "cards", "expected"),
    [("auto", 2, "cuda:1"), ("cuda", 4, "cuda:3"), ("auto", 1, "auto"), ("cpu", 4, "cpu"), ("cuda:0", 4, "cuda:0")],
)
def test_several_gpus_are_shared_out(monkeypatch, device, cards, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    for library, name in ((torch, "set_num_threads"), (cv2, "setNumThreads")):
        monkeypatch.setattr(library, name, lambda count: None)
    monkeypatch.setattr(scorer, "Scorer", lambda parameters, **_: parameters.device)
    args = script.get_parser().parse_args(["--input_dir", "videos", "--output_dir", "out", "--device", device])
    parameters = script.parameters_of(args)
    found = scorer.load_scorer(parameters, output_dir=None, scratch=None, index=3, threads=1)
    assert found == expected


def test_timeout_of_many_years(run_filter, folder):
    for seconds in ("3000000", "1e10", "1e300"):
        results, _ = run_filter(folder(GOOD), "--timeout", seconds, "--rescore", "always")
        assert results["successful_processing"] == 1
