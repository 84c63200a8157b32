# ruff: noqa: F811, fixtures are imported
"""Tests that one judgement holds scores of one recipe, and of what belongs to a recipe."""

import json
import shutil
from dataclasses import replace

import pytest
from filter_fixtures import (  # noqa: F401
    EARLY,
    FACELESS,
    GOOD,
    POOR,
    by_name,
    folder,
    placed,
    run_filter,
    stub,
    weights_files,
)
from filter_program import records

import filter_videos_by_sync_score as script
from syncnet.filter import recipe
from syncnet.steps import versions

NAMES = (GOOD, POOR)


@pytest.fixture
def digest(weights_files):
    """Return a function that returns the digest of the recipe that flags give."""

    def call(*flags):
        args = script.get_parser().parse_args(["--output_dir", "out", *weights_files, *map(str, flags)])
        return recipe.digest(recipe.make_recipe(script.parameters_of(args).found()))

    return call


def test_what_belongs_to_a_recipe(digest, tmp_path):
    direct = ("--mode", "direct")
    different = [
        digest(*flags)
        for flags in (
            [],
            direct,
            [*direct, "--detect_every", 1],
            [*direct, "--precision", "bfloat16"],
            ["--face_crops"],
            [*direct, "--face_crops"],
            ["--audio_dir", tmp_path],
            ["--audio_dir", tmp_path / "other"],
            ["--min_track", 40],
        )
    ]
    assert len(set(different)) == len(different)
    assert digest("--mode", "published", "--precision", "float32") == digest()
    assert digest(*direct, "--detect_every", 5) == digest(*direct)
    assert digest("--audio_dir", f"{tmp_path}/./") == digest("--audio_dir", tmp_path)


@pytest.mark.parametrize("mode", ["published", "direct"])
def test_face_crops_need_no_detection(digest, tmp_path, mode):
    """No flag of it is part of the recipe, and no weights of a detector are read."""
    found = digest("--mode", mode, "--face_crops")
    (tmp_path / "b.pt").unlink()
    others = ("--detect_every", "1"), ("--min_track", "9"), ("--facedet_scale", "1"), ("--scene_threshold", "9")
    assert {digest("--mode", mode, "--face_crops", *other) for other in others} == {found}
    assert digest("--mode", mode, "--face_crops", "--vshift", "9") != found


def test_software_of_a_recipe(digest, monkeypatch):
    """Of the suite's own version no score depends; of ffmpeg those of published mode do."""

    def digests(**changed):
        monkeypatch.setattr(recipe, "versions", lambda mode: {**versions.versions(mode), **changed})
        both = digest(), digest("--mode", "direct")
        monkeypatch.undo()
        return both

    published, direct = digests()
    assert digests(syncnet="9.0", torch="9.0", something="1") == (published, direct)
    for name in ("opencv", "scenedetect", "python_speech_features"):
        changed = digests(**{name: "0"})
        assert changed[0] != published and changed[1] != direct
    assert digests(ffmpeg_fingerprint="0")[0] != published and digests(ffmpeg_fingerprint="0")[1] == direct
    assert digests(av="0")[0] == published and digests(av="0")[1] != direct


def test_scores_of_earlier_recipes_are_kept(run_filter, folder, stub, tmp_path):
    """One judgement holds scores of one recipe; going back to another scores nothing again."""
    videos = folder(*NAMES, FACELESS)
    recipes = ([], ["--mode", "direct"], ["--mode", "direct", "--detect_every", 2])
    for count, flags in enumerate(recipes, start=1):
        results, _ = run_filter(videos, *flags)
        assert len(stub()) == 3 * count and results["total_videos"] == 3
        assert len(results["recipes"]) == 1 and len(results["other_recipes"]) == count - 1
    for flags in recipes:
        results, err = run_filter(videos, *flags)
        assert len(stub()) == 9 and "3 of 3 videos are finished already" in err
        [used] = results["recipes"]
        assert used["videos"] == 2
        assert {result["recipe"] for result in results["results"]} == {used["recipe"]}
        assert {result["mode"] for result in results["results"]} == {used["parameters"]["mode"]}
        assert [other["videos"] for other in results["other_recipes"]] == [3, 3]
        assert used["recipe"] not in [other["recipe"] for other in results["other_recipes"]]
        assert "not judged: 6 scores by 2 other recipes" in err
    (videos / POOR).write_text("another content")
    run_filter(videos)
    assert stub()[9:] == [POOR]


def test_never_judges_the_newest_recipe(run_filter, folder, stub, tmp_path):
    videos = folder(*NAMES)
    run_filter(videos, "--min_track", 30)
    run_filter(videos, "--mode", "direct")
    folder(EARLY)
    run_filter(videos)
    (videos / EARLY).unlink()
    (tmp_path / "a.pt").unlink()

    def never(*flags, **more):
        results, err = run_filter(None, "--rescore", "never", *flags, **more)
        [used] = results["recipes"]
        parameters = used["parameters"]
        assert results["filter_settings"]["min_track"] == parameters["min_track"]
        return results["total_videos"], parameters["mode"], parameters["min_track"], err

    assert never()[:3] == (3, "published", 50)
    assert "not judged: 4 scores by 2 other recipes" in never()[3]
    assert never("--mode", "direct")[:3] == (2, "direct", 50)
    assert never("--detect_every", 5)[:3] == (2, "direct", 50)
    assert never("--mode", "published", "--min_track", 50)[:3] == (3, "published", 50)
    assert never("--min_track", 30)[:3] == (2, "published", 30)
    assert never("--batch_size", 3, "--device", "cpu")[:3] == (3, "published", 50)  # no part of a recipe
    _, err = run_filter(None, "--rescore", "never", "--mode", "direct", "--min_track", 30, code=2)
    assert "results.jsonl: no scores by a recipe with --min_track 30, --mode direct: " in err
    _, err = run_filter(None, "--rescore", "never", "--face_crops", code=2)
    assert "no scores by a recipe with --face_crops: " in err
    _, err = run_filter(None, "--rescore", "never", "--initial_model", tmp_path / "a.pt", code=1)
    assert "a.pt: cannot read the SyncNet weights" in err
    assert len(stub()) == 7
    run_filter(videos, "--min_track", 30, "--rescore", "always", *weights_of(tmp_path))
    assert never()[:3] == (2, "published", 30)


def weights_of(tmp_path):
    """Write the weights again."""
    (tmp_path / "a.pt").write_text("a.pt")
    return ("--initial_model", tmp_path / "a.pt")


def test_never_of_videos_without_scores_by_the_recipe(run_filter, folder, tmp_path):
    first, second = folder(GOOD, into="one"), folder(POOR, into="two")
    run_filter(first)
    run_filter(second, "--mode", "direct")
    _, err = run_filter(first, "--rescore", "never", code=2)
    assert f"no scores of videos in {first} by the newest recipe: give the flags of another" in err
    results, _ = run_filter(first, "--rescore", "never", "--mode", "published")
    assert list(by_name(results)) == [GOOD]


def test_missing_weights_leave_results_as_they_are(run_filter, folder, tmp_path):
    videos = folder(GOOD)
    run_filter(videos)
    before = (tmp_path / "out/sync_filter_results.json").read_bytes()
    (tmp_path / "a.pt").unlink()
    run_filter(videos, code=1)
    assert (tmp_path / "out/sync_filter_results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--detect_every", "2"], "--detect_every 2: works in direct mode only: add --mode direct"),
        (["--mode", "published", "--precision", "bfloat16"], "--precision bfloat16: works in direct mode only"),
        (["--mode", "direct", "--detect_every", "0"], "--detect_every: 0: must be a whole number"),
        (["--mode", "fast"], "--mode"),
        (["--audio_dir", "nowhere"], "--audio_dir nowhere: no such folder"),
    ],
)
def test_usage(run_filter, folder, stub, flags, words):
    _, err = run_filter(folder(GOOD), *flags, code=2)
    assert words in err and stub() == []


def test_defaults_of_direct_mode_are_allowed_in_published_mode(run_filter, folder):
    run_filter(folder(GOOD), "--detect_every", 5, "--precision", "float32")


def test_sound_of_another_folder(run_filter, folder, stub, tmp_path):
    videos = folder("a.c7.o0.mp4", "sub/a.c7.o0.mkv", "b.x.c7.o0.mp4", "gone.c7.o0.mp4")
    sounds = folder(
        *("a.c7.o0.wav", "sub/a.c7.o0.MP3", "b.x.c7.o0.mp4", "b.x.c7.o0.flac", "b.x.c7.o0.aac", "a.c7.o0.txt"),
        into="sounds",
    )
    flags = ("--recursive", "--audio_dir", sounds)
    results, _ = run_filter(videos, *flags)
    expected = [
        f"a.c7.o0.mp4 {sounds}/a.c7.o0.wav",
        f"b.x.c7.o0.mp4 {sounds}/b.x.c7.o0.aac",  # sound files first, then by name
        "gone.c7.o0.mp4",
        f"sub/a.c7.o0.mkv {sounds}/sub/a.c7.o0.MP3",
    ]
    assert sorted(stub()) == expected
    assert by_name(results)["a.c7.o0.mp4"]["sound"]["path"] == f"{sounds}/a.c7.o0.wav"
    [used] = results["recipes"]
    assert used["parameters"]["audio_dir"] == str(sounds)
    run_filter(videos, *flags)
    assert len(stub()) == 4
    (sounds / "a.c7.o0.wav").write_text("another sound")
    (sounds / "gone.c7.o0.ogg").write_text("a sound")
    run_filter(videos, *flags)
    assert sorted(stub()[4:]) == [expected[0], f"gone.c7.o0.mp4 {sounds}/gone.c7.o0.ogg"]
    run_filter(videos, "--recursive")
    assert sorted(stub()[6:]) == ["a.c7.o0.mp4", "b.x.c7.o0.mp4", "gone.c7.o0.mp4", "sub/a.c7.o0.mkv"]
    shutil.rmtree(sounds)
    results, _ = run_filter(None, "--rescore", "never", "--audio_dir", sounds)
    assert by_name(results)["a.c7.o0.mp4"]["sound"]["size"] == len("another sound")
    assert len(stub()) == 10


def test_changed_sounds_are_known_after_restart(run_filter, folder, stub, tmp_path):
    """A line keeps size and time of the sound, also among a journal's other lines."""
    videos, sounds = folder(GOOD), folder(GOOD.replace("mp4", "wav"), into="sounds")
    run_filter(videos, "--audio_dir", sounds)
    [line] = records(tmp_path / "out")
    stat = (sounds / GOOD.replace("mp4", "wav")).stat()
    assert line["sound"] == {"path": f"{sounds}/g.c7.2.o1.wav", "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    shutil.copytree(sounds, tmp_path / "moved")
    run_filter(videos, "--audio_dir", tmp_path / "moved")
    assert len(stub()) == 2  # sounds that lie elsewhere may be others
    run_filter(videos, "--audio_dir", sounds)
    assert len(stub()) == 2


def test_recipes_that_nobody_wrote_down(run_filter, folder, stub, tmp_path):
    """Scores whose recipe is unknown are judged, but are no LSE-C and LSE-D."""
    run_filter(folder(GOOD))
    (tmp_path / "out/recipes.json").write_text(json.dumps({}))
    results, err = run_filter(None, "--rescore", "never")
    assert results["good_quality"] == 1 and results["recipes"][0]["parameters"] is None
    assert "confidence mean 7.200" in err and placed(tmp_path) == [f"good_quality/{GOOD}"]
    _, err = run_filter(None, "--rescore", "never", "--mode", "published", code=2)
    assert "no scores by a recipe with --mode published" in err


def test_given_values_are_in_the_form_of_the_recipe(weights_files):
    args = script.get_parser().parse_args(["--output_dir", "out", *weights_files, "--audio_dir", "sounds"])
    parameters = script.parameters_of(args)
    made = recipe.make_recipe(replace(parameters, audio_dir=""))
    assert recipe.agrees(made, recipe.given_values(parameters, ["initial_model", "vshift", "mode"]))
    assert not recipe.agrees(made, recipe.given_values(parameters, ["audio_dir"]))
