# ruff: noqa: F811, fixtures are imported
"""Tests of ``--reject``, and of the codes of reasons in the results, with a scorer that reads both from file names."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from filter_fixtures import by_name, folder, placed, run_filter, stub, weights_files  # noqa: F401
from filter_program import records
from filter_stub import OF_VIDEO, corrected

from syncnet import reasons
from syncnet.filter import quality
from syncnet.filter.quality import CODES, REJECT, Thresholds, judge
from syncnet.filter.scorer import CHECKS

OLD = Path(__file__).parent / "old_journal"
MODES = ("published", "direct")
CLEAN, POOR, FACELESS = "g.c7.o1.mp4", "p.c3.o0.mp4", "none.mp4"
REJECTED = {code: f"{code}.c7.o0.{code}.mp4" for code in REJECT}
OTHER_TRACK = "t.c8.o0.other-silent.few_windows.mp4"
# Codes of videos or tracks without a score.
WITHOUT_SCORE = (
    *(reasons.NOT_MEDIA, reasons.NO_VIDEO, reasons.NO_AUDIO, reasons.NO_FACE, reasons.FACES_TOO_SMALL),
    *(reasons.TRACKS_TOO_SHORT, reasons.SCENE_TOO_SHORT, reasons.TOO_SHORT),
)


def table(tmp_path):
    with (tmp_path / "out/results.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def passing(results):
    return {name for name, each in by_name(results).items() if each["passes_quality"]}


@pytest.mark.parametrize("mode", MODES)
def test_rejected_by_default(run_filter, folder, tmp_path, mode):
    """A code of the video or of its most confident track; those of other tracks do not matter."""
    videos = folder(CLEAN, POOR, FACELESS, OTHER_TRACK, *REJECTED.values())
    results, err = run_filter(videos, "--mode", mode)
    assert passing(results) == {CLEAN, OTHER_TRACK}
    found = by_name(results)
    for code, name in REJECTED.items():
        assert found[name]["quality_reasons"] == [f"rejected: {code}: about {code}"]
        assert found[name]["codes"] == [code] and found[name]["status"] == "success"
    assert results["filter_settings"]["reject"] == list(REJECT)
    assert (results["good_quality"], results["poor_quality"]) == (2, 5)
    assert results["reason_counts"] == {**dict.fromkeys(REJECT, 1), "no_face": 1}
    assert results["not_checked"] == {} and "older version" not in err
    assert "reasons: " in err and "1 silent (rejected)" in err and "1 no_face" in err
    assert f"poor_quality/{REJECTED['damaged']}" in placed(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_none_gives_the_verdicts_of_the_thresholds_alone(run_filter, folder, stub, tmp_path, mode):
    """At no cost, and a damaged video that passes is named."""
    videos = folder(CLEAN, POOR, FACELESS, OTHER_TRACK, *REJECTED.values(), "bad.c2.o0.damaged.mp4")
    run_filter(videos, "--mode", mode)
    scored = len(stub())
    for flags in (("--mode", mode), ("--rescore", "never")):
        results, err = run_filter(videos, *flags, "--reject", "none")
        assert passing(results) == {CLEAN, OTHER_TRACK, *REJECTED.values()}
        assert results["filter_settings"]["reject"] == []
        assert f"{REJECTED['damaged']}: good, but damaged: about damaged" in err and "bad.c2" not in err
        assert "(rejected)" not in err and "2 damaged" in err
        found = by_name(results)[REJECTED["silent"]]
        assert (found["quality_reasons"], found["codes"]) == (["about silent"], ["silent"])
        assert f"good_quality/{REJECTED['damaged']}" in placed(tmp_path)
    assert len(stub()) == scored
    results, err = run_filter(None, "--rescore", "never")
    assert passing(results) == {CLEAN, OTHER_TRACK} and "good, but damaged" not in err
    assert f"poor_quality/{REJECTED['damaged']}" in placed(tmp_path)


def test_none_is_what_two_thresholds_say():
    """Whatever the codes of a row are, with and without them."""
    for code in CODES:
        reason = {"code": code, "text": "x"}
        for of_video, of_track in (([reason], []), ([], [reason])):
            for confidence, offset in ((7.0, 0), (3.0, 0), (7.0, 9)):
                track = {"confidence": confidence, "offset": offset, "reasons": of_track}
                record = {"status": "success", "tracks": [track], "reasons": of_video}
                assert judge(record, Thresholds(5.0, 3, reject=())).passes == (confidence == 7 and offset == 0)
                assert not judge(record, Thresholds(5.0, 3, reject=(code,))).passes


def test_every_code_of_a_scored_video(run_filter, folder):
    names = {code: f"{code}.c7.o{15 if code == 'edge_offset' else 0}.{code}.mp4" for code in CODES}
    results, _ = run_filter(folder(CLEAN, *names.values()), "--reject", ", ".join(CODES), "--max_abs_offset", 15)
    assert passing(results) == {CLEAN} and results["reason_counts"] == dict.fromkeys(CODES, 1)
    for code, name in names.items():
        assert by_name(results)[name]["quality_reasons"][0].startswith(f"rejected: {code}: ")


def test_no_code_is_forgotten():
    known = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert {*CODES, *WITHOUT_SCORE} == known and not {*CODES} & {*WITHOUT_SCORE}
    assert {*REJECT} <= {*CHECKS} <= {*CODES} and {*OF_VIDEO} <= {*CODES}


@pytest.mark.parametrize("value", ["foo", "no_face", "none,damaged", "damaged,", "damaged;silent", ""])
def test_unknown_codes(run_filter, folder, stub, value):
    _, err = run_filter(folder(CLEAN), "--reject", value, code=2)
    assert f"--reject {value}: no reason of a scored video: " in err
    assert all(code in err for code in (*CODES, "none alone")) and stub() == []


def test_codes_are_listed_like_other_lists(run_filter, folder, tmp_path):
    names = ("a.c3.o15.damaged.few_windows.mp4", FACELESS, CLEAN, "no.raises.mp4")
    results, _ = run_filter(folder(*names), code=3)
    rows = table(tmp_path)
    codes = ["damaged", "edge_offset", "few_windows"]
    assert [rows[name]["codes"] for name in names] == ["; ".join(codes), "no_face", "", ""]
    assert [by_name(results)[name]["codes"] for name in names] == [codes, ["no_face"], [], []]
    assert rows[names[0]]["quality_reasons"] == (
        "confidence 3.000 is below 5; offset 15 is more than 3 frames; rejected: damaged: about damaged; "
        "rejected: few_windows: about few_windows; at the edge"
    )
    assert list(results["reason_counts"].values()) == [1, 1, 1, 1]


def test_a_faceless_video_may_be_damaged(run_filter, folder, tmp_path):
    results, err = run_filter(folder("x.damaged.mp4"))
    assert table(tmp_path)["x.damaged.mp4"]["codes"] == "damaged; no_face"
    assert results["reason_counts"] == {"damaged": 1, "no_face": 1} and placed(tmp_path) == []
    assert "good, but" not in err


def test_many_damaged_videos_are_not_all_named(run_filter, folder):
    videos = folder(*(f"{number:02d}.c7.o0.damaged.mp4" for number in range(23)))
    _, err = run_filter(videos, "--reject", "silent")
    assert err.count("good, but damaged") == 20 and "and 3 more: see results.csv" in err and "23 damaged" in err


def test_texts_that_begin_with_their_code(run_filter, folder):
    found = {"damaged": "damaged: it ends early", "silent": "no sound"}
    assert quality.rejections(found, Thresholds(5.0, 3)) == [
        "rejected: damaged: it ends early",
        "rejected: silent: no sound",
    ]


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_older_versions_pass_as_they_did(run_filter, folder, stub, tmp_path, mode):
    """They are counted, and scored again only where that is asked for."""
    names = ("a.c7.o0.older.mp4", "b.c3.o0.older.mp4", CLEAN)
    videos = folder(*names)
    results, err = run_filter(videos, "--mode", mode)
    assert passing(results) == {names[0], CLEAN}
    assert "2 scored by an older version: not checked for damaged, silent, few_windows, offset_changes (" in err
    assert results["not_checked"] == dict.fromkeys(CHECKS, 2)
    assert [by_name(results)[name]["checks"] for name in names] == [None, None, list(CHECKS)]
    assert [record["checks"] for record in records(tmp_path / "out")].count(None) == 2
    _, err = run_filter(videos, "--mode", mode, "--reject", "silent,edge_offset")
    assert "2 scored by an older version: not checked for damaged, silent (" in err
    for nothing in ("none", "edge_offset"):  # damage is said even where it passes
        _, err = run_filter(videos, "--mode", mode, "--reject", nothing)
        assert "2 scored by an older version: not checked for damaged (" in err
    assert len(stub()) == 3


def test_a_journal_of_an_older_version(run_filter, stub, tmp_path):
    """Today's verdicts, whatever is rejected."""
    (tmp_path / "out").mkdir()
    for name in ("recipes.json", "results.jsonl"):
        shutil.copy(OLD / name, tmp_path / "out")
    for flags in ((), ("--reject", "none"), ("--reject", ",".join(CHECKS))):
        results, err = run_filter(None, "--rescore", "never", *flags)
        found = by_name(results)
        assert {name: each["quality_reasons"] for name, each in found.items()} == {
            "g.c7.2.o1.mp4": [],
            "none.mp4": ["no face found"],
            "p.c3.1.o0.mp4": ["confidence 3.100 is below 5"],
        }
        assert (results["good_quality"], results["not_checked"]) == (1, dict.fromkeys(CHECKS, 2))
        assert "2 scored by an older version: not checked for damaged" in err
    assert stub() == []


def test_rejected_videos_are_not_corrected(run_filter, folder, stub, tmp_path):
    flags = ("--mode", "direct", "--transfer", "correct")
    late, faint, unknown = "l.c7.o5.silent.mp4", "lag900.c1.o2.few_windows.mp4", "e.c7.o15.damaged.mp4"
    videos = folder("g.c7.o5.mp4", late, faint, unknown)
    results, _ = run_filter(videos, *flags, "--max_lag", 1000)
    assert passing(results) == {"g.c7.o5.mp4"} and results["not_yet_corrected"] == 0
    assert [line for line in stub() if line.startswith("correct")] == ["correct g.c7.o5.mp4"]
    found = by_name(results)
    assert found[late]["quality_reasons"] == ["rejected: silent: about silent"]
    assert found[faint]["quality_reasons"][:2] == [
        "confidence 1.000 is below 5",
        "rejected: few_windows: about few_windows",
    ]
    assert found[unknown]["quality_reasons"][0] == "rejected: damaged: about damaged"
    results, err = run_filter(videos, *flags, "--max_lag", 1000, "--reject", "none")
    assert passing(results) == {"g.c7.o5.mp4", late, faint, unknown} and results["corrected"] == 4
    found = by_name(results)
    assert found[unknown]["quality_reasons"] == ["about damaged"]  # "at the edge" does not hold any more
    assert f"{unknown}: good, but damaged: about damaged" in err
    results, _ = run_filter(videos, *flags, "--max_lag", 1000)
    assert passing(results) == {"g.c7.o5.mp4"}
    assert (tmp_path / "out/poor_quality" / late).read_text() == corrected(f"content of videos/{late}")


def test_never_names_a_command_that_rejects_the_same(run_filter, folder):
    videos = folder("l.c7.o5.silent.mp4", "g.c7.o5.mp4", "d.c7.o5.damaged.mp4")
    run_filter(videos, "--mode", "direct")
    _, err = run_filter(None, "--rescore", "never", "--transfer", "correct", "--reject", "damaged", code=3)
    assert "l.c7.o5.silent.mp4: not yet corrected: lag 197 ms" in err and "d.c7.o5" not in err.split("reasons: ")[0]
    assert "--reject damaged" in err


def test_a_line_says_what_its_score_was_checked_for(run_filter, folder, tmp_path):
    run_filter(folder(CLEAN))
    [record] = records(tmp_path / "out")
    assert record["checks"] == list(CHECKS)
    assert json.loads((tmp_path / "out/sync_filter_results.json").read_text())["results"][0]["checks"] == list(CHECKS)
