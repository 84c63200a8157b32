# ruff: noqa: F811, fixtures are imported
"""Tests that scores of earlier versions stay valid.

old_journal/ is a journal that an early version wrote with ffmpeg 5.1, with a placeholder for the folder's name. Its
recipes contain only the version of ffmpeg. In mixed_journal/ version 1.0.0 has continued it: with the same recipe,
which has another digest there that recipes.json lacks, with --min_track 40 and with the first recipe again.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from filter_fixtures import by_name, folder, published_weights, run_filter, stub, weights_files  # noqa: F401

from syncnet import defaults
from syncnet.filter import recipe
from syncnet.filter.journal import Journal, with_checksum
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT
from syncnet.media.fingerprint import Behaviour
from syncnet.steps.versions import versions as all_versions

OLD, MIXED = (Path(__file__).parent / name for name in ("old_journal", "mixed_journal"))
NAMES = ("g.c7.2.o1.mp4", "none.mp4", "p.c3.1.o0.mp4")
WRITTEN = 1_700_000_000


@pytest.fixture
def published_ffmpeg(monkeypatch):
    """Pretend that the installed ffmpeg has the published fingerprint."""
    found = Behaviour(version="7.0.2-static", fingerprint=PUBLISHED_FINGERPRINT, keeps_gaps=False, has_async=False)
    monkeypatch.setattr("syncnet.media.fingerprint.behaviour", lambda: found)
    all_versions.cache_clear()
    yield
    all_versions.cache_clear()


@pytest.fixture
def old(folder, tmp_path):
    """Videos, and the output folder that the old version left."""
    return restore(OLD, folder(*NAMES), tmp_path / "out")


@pytest.fixture
def mixed(folder, tmp_path):
    """Videos, and the output folder that two earlier versions left."""
    return restore(MIXED, folder(*NAMES, "new.c8.o0.mp4"), tmp_path / "out")


def restore(journal, videos, output):
    """Copy a journal, and give videos the time that it was written for; return the folder of the videos."""
    for video in videos.iterdir():
        os.utime(video, (WRITTEN, WRITTEN))
    output.mkdir()
    shutil.copy(journal / "recipes.json", output)
    with (output / "results.jsonl").open("wb") as file:
        for line in (journal / "results.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line.replace("@FOLDER@", str(videos)))
            del record["crc32"]
            file.write(with_checksum(json.dumps(record)))
    return videos


def change_ffmpeg(output, version):
    path = output / "recipes.json"
    path.write_text(path.read_text().replace("5.1.9-0+deb12u1", version))


@pytest.mark.parametrize("version", ["5.1.9-0+deb12u1", "4.2.2-static", "4.4.1", "6.1.1-3ubuntu5", "n5.0"])
def test_finished_videos_stay_finished(run_filter, stub, old, tmp_path, published_ffmpeg, version):
    change_ffmpeg(tmp_path / "out", version)
    results, err = run_filter(old)
    assert stub() == []
    assert "3 of 3 videos are finished already" in err
    assert by_name(results)["g.c7.2.o1.mp4"]["confidence"] == 7.2
    [used] = results["recipes"]
    assert used["videos"] == 2  # the third has no score
    assert used["parameters"]["versions"]["ffmpeg"] == version


@pytest.mark.parametrize("version", ["7.0.2-static", "n9.0.2-17-g2a571b6068-20260930", "4.1", "N-100000-gabcdef"])
def test_scores_of_another_ffmpeg_are_made_anew(run_filter, stub, old, tmp_path, published_ffmpeg, version):
    change_ffmpeg(tmp_path / "out", version)
    run_filter(old)
    assert sorted(stub()) == sorted(NAMES)


def test_new_scores_join_the_old_ones(run_filter, stub, old, folder, tmp_path, published_ffmpeg):
    """Old and new scores count as one recipe, although its digest has changed."""
    folder("new.c8.o0.mp4")
    results, _ = run_filter(old)
    assert stub() == ["new.c8.o0.mp4"]
    assert [used["videos"] for used in results["recipes"]] == [3]
    journal = Journal(tmp_path / "out/results.jsonl", tmp_path / "out/recipes.json")
    [entries] = journal.entries.values()
    assert len(entries) == 4
    results, _ = run_filter(old, "--rescore", "never", "--min_confidence", "7.5")
    assert results["good_quality"] == 1
    assert "8e08043ab58e63ad" in json.loads((tmp_path / "out/recipes.json").read_text())


@pytest.mark.parametrize("version", ["1.0.0", "9.0"])
def test_scores_of_two_versions_stay_valid(run_filter, stub, mixed, tmp_path, published_ffmpeg, monkeypatch, version):
    monkeypatch.setattr("syncnet.steps.versions.__version__", version)
    all_versions.cache_clear()
    results, err = run_filter(mixed)
    assert (
        "4 of 4 videos are finished already" in err and "not judged: 4 scores by 1 other recipe, not comparable" in err
    )
    [used], [other] = results["recipes"], results["other_recipes"]
    assert (used["videos"], used["parameters"]["min_track"]) == (3, 50)
    assert (other["videos"], other["parameters"]["min_track"]) == (4, 40)
    results, _ = run_filter(mixed, "--min_track", 40)
    assert results["filter_settings"]["min_track"] == 40 and results["good_quality"] == 2
    results, _ = run_filter(mixed, "--mode", "published", "--detect_every", 5, "--precision", "float32")
    assert results["filter_settings"]["min_track"] == 50
    assert stub() == []
    results, _ = run_filter(None, "--rescore", "never", "--min_track", 40)
    assert results["total_videos"] == 4 and results["filter_settings"]["min_track"] == 40
    results, _ = run_filter(None, "--rescore", "never", "--mode", "published")
    assert results["filter_settings"]["min_track"] == 50  # the recipe of the last line


def test_new_recipes_join_an_old_journal(run_filter, stub, mixed, tmp_path, published_ffmpeg):
    """And the earlier one is still there afterwards, with its scores."""
    results, _ = run_filter(mixed, "--mode", "direct")
    assert len(stub()) == 4 and sorted(used["videos"] for used in results["other_recipes"]) == [4, 4]
    results, _ = run_filter(mixed)
    assert len(stub()) == 4 and results["recipes"][0]["parameters"]["min_track"] == 50


@pytest.mark.parametrize("published", [True, False])
def test_old_scores_are_lse_only_where_they_are(run_filter, old, tmp_path, published_ffmpeg, published):
    """The lines have numbers there in any case; the recipe decides."""
    path = tmp_path / "out/recipes.json"
    path.write_text(path.read_text().replace('"published": false', f'"published": {json.dumps(published)}', 1))
    results, err = run_filter(None, "--rescore", "never")
    assert ("LSE-C mean" in err) == published == ("do not report these numbers" not in err)
    good = by_name(results)["g.c7.2.o1.mp4"]
    assert [track["lse_c"] for track in good["all_tracks"]] == ([7.2, 6.2] if published else [None, None])
    assert [track["confidence"] for track in good["all_tracks"]] == [7.2, 6.2]
    with (tmp_path / "out/results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["lse_c"], row["lse_d"]) == (("7.2", "8.0") if published else ("", ""))
    assert (row["confidence"], row["mode"], row["weights"], row["lag_ms"]) == ("7.2", "published", "a.pt", "")
    assert (good["mode"], good["lag_ms"], good["sound"]) == ("published", None, None)


def test_two_ffmpegs_of_one_fingerprint_are_one_recipe():
    stored = json.loads((OLD / "recipes.json").read_text())["8e08043ab58e63ad"]

    def digest(**versions):
        return recipe.digest({**stored, "versions": {**stored["versions"], **versions}})

    known = {"ffmpeg_fingerprint": PUBLISHED_FINGERPRINT, "ffmpeg_source": "PATH"}
    assert digest() == digest(**known) == digest(ffmpeg="7.0.2-static", **known)
    assert digest() != digest(ffmpeg_fingerprint="29656e88ec44ffd7")
    assert digest(ffmpeg="9", ffmpeg_fingerprint="a") == digest(ffmpeg="10", ffmpeg_fingerprint="a")
    assert digest() != digest(opencv="4.0")


def test_the_speaker_threshold_is_recorded_and_no_reason_to_score_again(run_filter, folder):
    """The spans of speakers that kept outputs show depend on it, no score does."""
    results, _ = run_filter(folder("g.c7.2.o1.mp4"))
    [used] = results["recipes"]
    parameters = used["parameters"]
    assert parameters["speaker_threshold"] == defaults.SPEAKER_THRESHOLD
    assert recipe.digest({**parameters, "speaker_threshold": 9}) == recipe.digest(parameters) == used["recipe"]


def test_min_speaking_is_recorded_and_no_reason_to_score_again(run_filter, stub, folder, tmp_path):
    """Another value holds for new rows: each row has the one that it was made with."""
    videos = folder("g.c7.2.o1.mp4")
    run_filter(videos, "--min_speaking", "0.9")
    folder("h.c6.5.o0.mp4")
    results, _ = run_filter(videos, "--min_speaking", "0.2")
    assert len(stub()) == 2 and len(results["recipes"]) == 1
    found = by_name(results)
    assert [found[name]["min_speaking"] for name in ("g.c7.2.o1.mp4", "h.c6.5.o0.mp4")] == [0.9, 0.2]
    good = found["g.c7.2.o1.mp4"]
    assert good["speakers"] == [{"start": 0.0, "end": 2.5, "track": 0, "confidence": 0.9}]
    assert good["speech_without_face"] == [{"start": 3.0, "end": 4.0}]
    assert good["all_tracks"][0]["speaking_s"] == 2.5
    with (tmp_path / "out/results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    names = ("speaking_s", "speaking_offset", "speaking_confidence", "speaking_min_dist")
    assert [row[name] for name in names] == ["2.5", "1", "8.2", "7.5"]
    parameters = results["recipes"][0]["parameters"]
    assert recipe.digest({**parameters, "min_speaking": 3}) == recipe.digest(parameters)
    assert recipe.digest({key: value for key, value in parameters.items() if key != "min_speaking"}) == recipe.digest(
        parameters
    )


def test_old_rows_have_no_speakers_and_stay_valid(run_filter, stub, old, tmp_path):
    results, _ = run_filter(None, "--rescore", "never")
    good = by_name(results)["g.c7.2.o1.mp4"]
    assert [good[key] for key in ("speakers", "speech_without_face", "min_speaking")] == [None, None, None]
    assert good["passes_quality"] is True and "speaking_s" not in good["all_tracks"][0]
    with (tmp_path / "out/results.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["speaking_s"] == ""
    assert stub() == []


@pytest.mark.parametrize("damage", [{"8e08043ab58e63ad": []}, {"8e08043ab58e63ad": {"versions": 1}}, {}])
def test_recipes_that_are_damaged(run_filter, stub, old, tmp_path, damage):
    """Recipes of the scores are then unknown, so all videos are scored again."""
    (tmp_path / "out/recipes.json").write_text(json.dumps(damage))
    run_filter(old)
    assert sorted(stub()) == sorted(NAMES)
