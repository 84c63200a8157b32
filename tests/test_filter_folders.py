# ruff: noqa: F811, fixtures are imported
"""Which files the filter takes, and where it puts them."""

import csv
import os

import pytest
from filter_fixtures import GOOD, POOR, by_name, folder, placed, run_filter, stub, weights_files  # noqa: F401

from syncnet.filter_layout import other_name


def test_same_stems_and_odd_names(run_filter, folder, tmp_path):
    names = [
        "a.c7.o0.mp4",
        "a.c7.o0.avi",
        "sub/a.c7.o0.mp4",
        "sub dir/ü 'x' \"y\".c7.o0.mp4",
        "-n;$(x).c7.o0.mp4",
        "n\nl.c7.o0.mp4",
    ]
    videos = folder(*names, ".hidden.c7.o0.mp4", ".dir/h.c7.o0.mp4")
    odd = os.fsencode(videos) + b"/\xff.c7.o0.mp4"
    with open(odd, "w") as file:  # noqa: PTH123, a name that is no Unicode
        file.write("odd")
    results, _ = run_filter(videos, "--recursive")
    assert results["total_videos"] == 7 == results["good_quality"]
    for name in names:
        assert (tmp_path / "out/good_quality" / name).read_text() == f"content of videos/{name}"
    rows = list(csv.DictReader((tmp_path / "out/results.csv").open(errors="surrogateescape", newline="")))
    assert sorted(row["name"] for row in rows) == sorted([*names, os.fsdecode(b"\xff.c7.o0.mp4")])
    assert run_filter(videos)[0]["total_videos"] == 5


def test_scan_leaves_out_results_and_loops(run_filter, folder, tmp_path):
    videos = folder(GOOD, "sub/s.c9.o0.mp4")
    (videos / "sub/loop").symlink_to(videos)
    (videos / "again").symlink_to(videos / "sub")
    for _ in range(2):
        results, _ = run_filter(videos, "--recursive", output="videos/out")
        assert results["total_videos"] == 2


def test_input_list(run_filter, folder, stub, tmp_path):
    videos = folder(GOOD, POOR, "sub/s.c9.o0.mp4")
    (tmp_path / "list").write_text(f"{videos}/{GOOD}\n\n{videos}/sub/s.c9.o0.mp4\n{videos}/{GOOD}\n")
    results, _ = run_filter(None, "--input_list", tmp_path / "list")
    assert list(by_name(results)) == [GOOD, "sub/s.c9.o0.mp4"]
    (tmp_path / "list").write_text(f"sub/s.c9.o0.mp4\n{POOR}\n")
    results, _ = run_filter(videos, "--input_list", tmp_path / "list")
    assert list(by_name(results)) == ["sub/s.c9.o0.mp4", POOR]
    assert len(stub()) == 3
    assert len(placed(tmp_path)) == 3
    _, err = run_filter(None, "--input_list", tmp_path / "nothing", code=2)
    assert "nothing: cannot read it" in err


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "copy", "none"])
def test_transfer(run_filter, folder, tmp_path, kind):
    videos = folder(GOOD, POOR)
    before = {path: path.stat().st_mtime_ns for path in videos.iterdir()}
    run_filter(videos, "--transfer", kind)
    run_filter(videos, "--transfer", kind, "--min_confidence", 2)
    file = tmp_path / "out/good_quality" / POOR
    if kind == "none":
        assert placed(tmp_path) == []
    else:
        assert placed(tmp_path) == [f"good_quality/{GOOD}", f"good_quality/{POOR}"]
        assert file.is_symlink() == (kind == "symlink")
        assert file.samefile(videos / POOR) == (kind != "copy")
    run_filter(videos, "--transfer", "copy", "--min_confidence", 2)
    assert not file.is_symlink() and not file.samefile(videos / POOR)
    assert {path: path.stat().st_mtime_ns for path in videos.iterdir()} == before


def test_keep_all_copies_nothing(run_filter, folder, tmp_path):
    results, _ = run_filter(folder(GOOD, POOR), "--keep_all")
    assert results["good_quality"] == 1
    assert not (tmp_path / "out/good_quality").exists() and not (tmp_path / "out/poor_quality").exists()


def test_files_of_others_are_not_touched(run_filter, folder, tmp_path):
    videos = folder(GOOD, POOR)
    taken = tmp_path / "out/good_quality" / GOOD
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    run_filter(videos)
    assert taken.read_text() == "mine"
    ours = tmp_path / "out" / other_name(f"good_quality/{GOOD}", str(videos / GOOD))
    assert ours.read_text() == f"content of videos/{GOOD}"
    ours.write_text("edited by the user")
    run_filter(videos, "--preset", "strict")
    assert ours.read_text() == "edited by the user"
    assert (tmp_path / "out/poor_quality" / GOOD).read_text() == f"content of videos/{GOOD}"


def test_two_folders_into_one_output(run_filter, folder, tmp_path):
    first, second = folder(GOOD, into="one"), folder(GOOD, into="two")
    run_filter(first)
    results, _ = run_filter(second)
    assert results["total_videos"] == 1
    texts = sorted((tmp_path / "out" / name).read_text() for name in placed(tmp_path))
    assert texts == [f"content of one/{GOOD}", f"content of two/{GOOD}"]
    run_filter(second)
    run_filter(first)
    assert len(placed(tmp_path)) == 2


def test_copy_follows_its_source(run_filter, folder, tmp_path):
    videos = folder(GOOD, POOR)
    run_filter(videos)
    (videos / GOOD).write_text("another content")
    run_filter(videos)
    assert (tmp_path / "out/good_quality" / GOOD).read_text() == "another content"
    (videos / POOR).unlink()
    results, _ = run_filter(videos)
    assert results["total_videos"] == 1
    assert (tmp_path / "out/poor_quality" / POOR).exists()  # it may be all that is left
