# ruff: noqa: F811, fixtures are imported
"""Tests of the files that the filter reads, and of those that it puts into the quality folders."""

import csv
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from filter_fixtures import GOOD, POOR, by_name, folder, placed, run_filter, stub, weights_files  # noqa: F401

from syncnet.filter import placement
from syncnet.filter.inputs import stat_video
from syncnet.filter.layout import FilterLayout, other_name
from syncnet.filter.placement import Placement

NOBODY = 65534


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
    with open(odd, "w") as file:  # noqa: PTH123, a name that is not valid Unicode
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
    assert "nothing: cannot read this list" in err


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
    assert (tmp_path / "out/poor_quality" / POOR).exists()  # it may be the only copy left


def texts(tmp_path):
    return {name: (tmp_path / "out" / name).read_text() for name in placed(tmp_path)}


def test_same_names_each_keep_a_place(run_filter, folder, tmp_path):
    """Copies whose sources are gone move to the other quality folder and back, each to its own path."""
    first, second = folder(GOOD, into="one"), folder(GOOD, into="two")
    run_filter(first)
    run_filter(second)
    for videos in (first, second):
        shutil.rmtree(videos)
    for side, least in (("poor_quality", 9), ("good_quality", 5)):
        other = other_name(f"{side}/{GOOD}", str(second / GOOD))
        expected = {f"{side}/{GOOD}": f"content of one/{GOOD}", other: f"content of two/{GOOD}"}
        for _ in range(2):
            results, _ = run_filter(None, "--rescore", "never", "--min_confidence", least)
            assert results["total_videos"] == 2
            assert texts(tmp_path) == expected


def test_same_names_are_all_copied_at_once(run_filter, folder, tmp_path):
    for videos in (folder(GOOD, into="one"), folder(GOOD, into="two")):
        run_filter(videos, "--keep_all")
    made = []
    for _ in range(2):
        run_filter(None, "--rescore", "never")
        made.append(texts(tmp_path))
    assert sorted(made[0].values()) == [f"content of one/{GOOD}", f"content of two/{GOOD}"]
    assert made[0] == made[1]


def test_same_names_that_change_sides_at_once(run_filter, folder, tmp_path):
    """A file is not moved over another one that has not been moved yet."""
    for videos in (folder(GOOD, into="one"), folder(GOOD, into="two")):
        run_filter(videos, "--transfer", "none")
    videos = [stat_video(str(tmp_path / into / GOOD), GOOD) for into in ("one", "two")]
    layout, sides = FilterLayout(tmp_path / "out"), [f"good_quality/{GOOD}", f"poor_quality/{GOOD}"]
    for places in (sides, sides[::-1], sides):
        for _ in range(2):
            Placement(layout, kind="copy").settle(list(zip(videos, places)))
            assert {Path(name).parent.name: text for name, text in texts(tmp_path).items()} == {
                Path(place).parent.name: f"content of {into}/{GOOD}" for place, into in zip(places, ("one", "two"))
            }


def test_file_planned_but_never_made_is_not_taken_for_another_s(run_filter, folder, tmp_path):
    first, second = folder(GOOD, into="one"), folder(GOOD, into="two")
    for videos in (first, second):
        os.utime(videos / GOOD, (10**9, 10**9))  # same size and time, so the copies have them too
    run_filter(first)
    (tmp_path / "out/good_quality" / GOOD).unlink()  # as if the program had been killed before making it
    for videos in (second, first):
        run_filter(videos)
    assert sorted(texts(tmp_path).values()) == [f"content of one/{GOOD}", f"content of two/{GOOD}"]
    for videos in (first, second):
        shutil.rmtree(videos)
    run_filter(None, "--rescore", "never", "--min_confidence", 9)
    assert sorted(texts(tmp_path).values()) == [f"content of one/{GOOD}", f"content of two/{GOOD}"]


def test_hard_link_of_a_link_is_to_the_video(run_filter, folder, tmp_path):
    real = folder(GOOD, into="real") / GOOD
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "l.c7.o0.mp4").symlink_to(real)
    file = tmp_path / "out/good_quality/l.c7.o0.mp4"
    for _ in range(2):
        run_filter(videos, "--transfer", "hardlink")
        assert not file.is_symlink() and file.samefile(real)
        assert placed(tmp_path) == ["good_quality/l.c7.o0.mp4"]


@pytest.fixture
def ordinary_user():
    """Folder of a user for whom file modes are binding, unlike for root."""
    with tempfile.TemporaryDirectory() as name:
        root = os.geteuid() == 0
        if root:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            if not os.access(name, os.W_OK, effective_ids=True):
                pytest.skip(f"no ordinary user can work in {name}")
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="becomes another user")
def test_read_only_videos_are_copied_and_moved(ordinary_user):
    source = ordinary_user / GOOD
    source.write_text("content")
    source.chmod(0o444)
    video, layout = stat_video(str(source), GOOD), FilterLayout(ordinary_user / "out")
    layout.output_dir.mkdir()
    for place in (f"good_quality/{GOOD}", f"poor_quality/{GOOD}", None):
        Placement(layout, kind="copy").settle([(video, place)])
        copies = list(layout.output_dir.rglob("*.mp4"))
        assert copies == ([layout.file(place)] if place else [])
        assert all(path.read_text() == "content" and path.stat().st_mode & 0o777 == 0o444 for path in copies)


@pytest.mark.parametrize("line", [b"\xff\n", b'{"place": "\xc3', b"\0\0\0\0\n", b"[1]\n"])
def test_incomplete_record_of_placed_files(run_filter, folder, tmp_path, line):
    videos, record = folder(GOOD, POOR), tmp_path / "out/.placed.jsonl"
    run_filter(videos)
    record.write_bytes(line + b"\n" + record.read_bytes() + line)
    run_filter(videos, "--min_confidence", 2)
    assert placed(tmp_path) == [f"good_quality/{GOOD}", f"good_quality/{POOR}"]


def test_file_where_a_folder_is_needed(run_filter, folder, tmp_path):
    videos = folder("sub/a.c7.o0.mp4", "sub/deep/b.c7.o0.mp4", GOOD)
    run_filter(videos, "--recursive", "--transfer", "none")
    taken = tmp_path / "out/good_quality/sub"
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("mine")
    for _ in range(2):
        _, err = run_filter(videos, "--recursive")
        for name in ("sub/a.c7.o0.mp4", "sub/deep/b.c7.o0.mp4"):
            assert f"good_quality/{name}: not written: a file has the name of its folder" in err
        assert texts(tmp_path) == {f"good_quality/{GOOD}": f"content of videos/{GOOD}", "good_quality/sub": "mine"}
    taken.unlink()
    run_filter(videos, "--recursive")
    assert len(placed(tmp_path)) == 3


def test_video_named_as_another_s_folder(run_filter, folder, tmp_path):
    run_filter(folder("v.c7.o0.mp4", into="one"), "--keep_all")
    run_filter(folder("v.c7.o0.mp4/a.c7.o0.mp4", into="two"), "--keep_all", "--recursive")
    for _ in range(2):
        _, err = run_filter(None, "--rescore", "never")
        assert "v.c7.o0.mp4/a.c7.o0.mp4: not written: a file has the name of its folder" in err
        assert texts(tmp_path) == {"good_quality/v.c7.o0.mp4": "content of one/v.c7.o0.mp4"}


def test_file_that_appears_while_others_are_copied(run_filter, folder, tmp_path, monkeypatch):
    videos = folder(GOOD, "h.c7.o0.mp4")
    taken, make_temporary = tmp_path / "out/good_quality/h.c7.o0.mp4", placement.make_temporary

    def while_others_work(*args):
        if not taken.exists():
            taken.write_text("mine")
        return make_temporary(*args)

    monkeypatch.setattr(placement, "make_temporary", while_others_work)
    _, err = run_filter(videos)
    assert "h.c7.o0.mp4: not written: a file that the filter did not make" in err
    assert texts(tmp_path) == {
        f"good_quality/{GOOD}": f"content of videos/{GOOD}",
        f"good_quality/{taken.name}": "mine",
    }


@pytest.fixture
def other_disk(tmp_path):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk")
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


@pytest.mark.parametrize("kind", ["copy", "symlink"])
def test_folder_on_another_disk(run_filter, folder, tmp_path, other_disk, kind):
    videos = folder(GOOD, "sub/s.c7.o0.mp4", POOR)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/good_quality").symlink_to(other_disk)
    left = FilterLayout(tmp_path / "out")
    left = Placement(left, kind=kind).temporary_folder(left.quality_folders[0])
    flags = ("--recursive", "--transfer", kind)
    for least, good in ((5, [GOOD, "sub/s.c7.o0.mp4"]), (9, []), (2, [GOOD, POOR, "sub/s.c7.o0.mp4"])):
        left.mkdir(parents=True)
        (left / "copy.mp4").write_text("half a vid")  # left by a killed program
        for _ in range(2):
            run_filter(videos, *flags, "--min_confidence", least)
            there = sorted(str(p.relative_to(other_disk)) for p in other_disk.rglob("*") if not p.is_dir())
            assert there == good
            assert all((other_disk / n).read_text() == f"content of videos/{n}" for n in good)
            assert all((other_disk / n).is_symlink() == (kind == "symlink") for n in good)
        assert not (other_disk / ".work").exists()
    assert not list((tmp_path / "out/poor_quality").iterdir())
