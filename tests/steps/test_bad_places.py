"""Unusual names, folders that are not writable, full disks, and files that must not be overwritten."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import clips
import pytest
from checks import nothing_half_finished, one_error
from conftest import DETECT, ROOT

from syncnet.results.layout import Layout

pytestmark = pytest.mark.usefixtures("nothing_left_running")

NAMES = [
    "two words",
    "it's",
    'say "hi"',
    "a;b&c|d",
    "$HOME $(ls) `ls`",
    "ü 日本語 🙂",
    "%d %06d %s",
    "[a-z]*?",
    "{} {0}",
    "-leading",
    "a\nb",
    "http:",
    "x" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(run, pipeline, face_clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(face_clip, tmp_path / f"{name}.mp4")
    ran, layout = pipeline(f"{name}.mp4", reference=name, data_dir=f"{name} data")
    assert ran.code == 0, ran
    assert len(layout.crop_files()) == 1
    flags = ("--data_dir", f"{name} data") if name[0] != "-" else (f"--data_dir={name} data",)
    assert run("run_syncnet", *flags, f"--reference={name}").code == 0
    assert layout.offsets.read_text().startswith("TRACK 0: OFFSET ")
    assert run("run_visualise", *flags, f"--reference={name}").code == 0
    assert layout.video_out.stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{name}.mp4", f"{name} data"])


def test_name_that_is_no_text(pipeline, run, face_clip, tmp_path):
    clip = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(face_clip, clip)
    ran, layout = pipeline(clip)
    assert ran.code == 0, ran
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me").code == 0


def test_results_with_names_that_are_no_text(pipeline, run, face_clip, tmp_path):
    """OpenCV would crash on them."""
    name = os.fsdecode(b"r\xff")
    where = ("--data_dir", tmp_path / name, "--reference", "me")
    one_error(run("run_pipeline", "--videofile", face_clip, *where), "--data_dir", "not valid Unicode", code=2)
    assert not (tmp_path / name).exists()
    _, layout = pipeline(face_clip)
    one_error(run("run_syncnet", "--data_dir", layout.data_dir, "--reference", name), "--reference", code=2)
    crop = layout.crop_files()[0]
    demo = ("demo_syncnet", "--videofile", crop, "--tmp_dir", tmp_path / "tmp")
    one_error(run(*demo, "--reference", name), "--reference", code=2)


def test_json_into_what_is_no_plain_file(pipeline, run, face_clip, tmp_path):
    _, layout = pipeline(face_clip)
    demo = ("demo_syncnet", "--videofile", layout.crop_files()[0], "--tmp_dir", tmp_path / "tmp", "--json")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    (tmp_path / "real.json").write_text("old")
    assert run(*demo, tmp_path / "link.json").code == 0
    assert (tmp_path / "link.json").is_symlink()
    report = json.loads((tmp_path / "real.json").read_text())
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        assert run(*demo, tmp_path / "pipe").code == 0
        assert json.loads(read.result(timeout=60))["tracks"] == report["tracks"]
    assert (tmp_path / "pipe").is_fifo()


def test_input_among_what_a_run_replaces(pipeline, run, face_clip, tmp_path):
    """The input is refused before anything is removed, also if it is reached through links."""
    data = tmp_path / "data"
    unfinished = data / "pyavi" / "me.part" / "in.mp4"
    unfinished.parent.mkdir(parents=True)
    shutil.copy(face_clip, unfinished)
    (data / "pyavi" / "link").symlink_to(unfinished)
    for clip, reference in ((unfinished, "me"), (data / "pyavi" / "link", "link")):
        ran, _ = pipeline(clip, reference=reference, data_dir=data)
        one_error(ran, clip, "choose another --reference", code=2)
        assert unfinished.is_file() and clip.exists()
    _, layout = pipeline(face_clip, data_dir=data)
    scratch = tmp_path / "tmp" / "demo"
    scratch.mkdir(parents=True)
    shutil.copy(layout.crop_files()[0], scratch / "audio.wav")
    ran = run("demo_syncnet", "--videofile", scratch / "audio.wav", "--tmp_dir", tmp_path / "tmp")
    one_error(ran, "choose another --tmp_dir", code=2)
    assert (scratch / "audio.wav").is_file()


def test_missing_crops(pipeline, run, face_clip):
    _, layout = pipeline(face_clip)
    flags = ("--data_dir", layout.data_dir, "--reference", "me")
    assert run("run_syncnet", *flags).code == 0
    before = layout.offsets.read_bytes()
    layout.crop_files()[0].unlink()
    one_error(run("run_syncnet", *flags), "0 of 1 face tracks found: run run_pipeline.py again")
    assert layout.offsets.read_bytes() == before


def test_reader_of_the_lines_that_goes_away(face_clip, weights, tmp_path):
    """As with `| head -1`: no message."""
    command = [sys.executable, ROOT / "run_pipeline.py", "--videofile", face_clip, "--data_dir", tmp_path / "data"]
    command += ["--reference", "me", "--verbose", *DETECT, "--s3fd_weights", weights["--s3fd_weights"]]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 1
    assert "error" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_letters_that_the_terminal_has_not(face_clip, weights, tmp_path, encoding):
    command = [sys.executable, ROOT / "run_pipeline.py", "--videofile", face_clip, "--data_dir", tmp_path / "data"]
    command += ["--reference", "ünï", *DETECT, "--s3fd_weights", weights["--s3fd_weights"]]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    name = "ünï".encode(encoding, "backslashreplace")
    assert b"Written " + os.fsencode(tmp_path) + b"/data/pycrop/" + name + b"/00000" in done.stdout


@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "run_visualise"])
@pytest.mark.parametrize("reference", ["a/b", "..", ".", "../up", "/abs", "a\\b", "me.part", ""])
def test_reference_stays_inside(run, face_clip, tmp_path, script, reference):
    data_dir = tmp_path / "data"
    flags = (f"--videofile={face_clip}", f"--data_dir={data_dir}", f"--reference={reference}")
    one_error(run(script, *flags), "--reference", code=2)
    assert not data_dir.exists()


@pytest.mark.parametrize("reference", ["x" * 300, "x" * 253, "ü" * 126])
def test_reference_too_long(run, tmp_path, reference):
    """Also refuse a name that fits if the temporary name of its folder does not."""
    ran = run("run_pipeline", "--data_dir", tmp_path, "--reference", reference, "--videofile", "a.mp4")
    one_error(ran, reference, "choose a shorter one", code=2)


def test_demo_reference_stays_inside(run, tmp_path):
    one_error(run("demo_syncnet", "--tmp_dir", tmp_path, "--reference", "../up"), "--reference", code=2)


@pytest.mark.parametrize("argv", [(), ("--videofile", "")])
def test_no_video_named(run, tmp_path, argv):
    ran = run("run_pipeline", "--data_dir", tmp_path, "--reference", "me", *argv)
    one_error(ran, "--videofile", code=2)


@pytest.mark.parametrize("below", ["", "pyavi", "pytmp", "pytmp/me", "pycrop", "pywork"])
def test_file_in_place_of_a_folder(pipeline, face_clip, tmp_path, below):
    place = tmp_path / "data" / below
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    ran, _ = pipeline(face_clip)
    one_error(ran, place)
    assert place.read_text() == "mine"


@contextlib.contextmanager
def mounted(folder, options):
    """A tmpfs on a folder; skips where that is not permitted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "run_visualise", "demo_syncnet"])
def test_read_only_data_dir(run, face_clip, finished, tmp_path, script):
    with mounted(tmp_path / "disk", "size=40m") as disk:
        shutil.copytree(finished, disk, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        flags = ("--data_dir", disk, "--reference", "me")
        if script == "demo_syncnet":
            flags = ("--tmp_dir", disk, "--reference", "me", "--videofile", Layout(finished, "me").crop_files()[0])
        elif script == "run_pipeline":
            flags = (*flags, "--videofile", face_clip)
        one_error(run(script, *flags), disk, "Read-only")
        assert Layout(disk, "me").scores.read_text() == Layout(finished, "me").scores.read_text()


def used(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


@pytest.mark.parametrize("share", [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_disk_full_in_run_pipeline(pipeline, tmp_path, share):
    """Wherever the disk becomes full: one line, and no clip or frame that looks complete."""
    clip = clips.make(
        tmp_path / "a.mp4",
        f"testsrc2=s=320x240:r=25:d=1.4{clips.square(100, 60)}",
        clips.tone(seconds=1.4),
    )
    ran, layout = pipeline(clip, data_dir=tmp_path / "roomy")
    assert ran.code == 0
    with mounted(tmp_path / "disk", f"size={int(used(layout.data_dir) * share) // 4096 * 4096 + 65536}") as disk:
        ran, layout = pipeline(clip, data_dir=disk)
        one_error(ran, "No space left" if "No space" in str(ran.err) else "disk full")
        assert str(disk) in ran.err[0] or str(clip) in ran.err[0]
        nothing_half_finished(layout)
        assert not layout.crops.exists()
        assert not layout.scores.exists()


@pytest.mark.parametrize("room", [0, 40, 80, 120, 160, 400])
def test_disk_full_in_run_syncnet(run, finished, tmp_path, room):
    size = used(finished) + room * 1024
    with mounted(tmp_path / "disk", f"size={size // 4096 * 4096 + 65536}") as disk:
        shutil.copytree(finished, disk, dirs_exist_ok=True)
        layout = Layout(disk, "me")
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
            file.write(bytes(10**8))
        with (disk / "filler").open("r+b") as file:
            file.truncate(max(0, (disk / "filler").stat().st_size - room * 1024))
        ran = run("run_syncnet", "--data_dir", disk, "--reference", "me")
        assert ran.code or room
        if ran.code:
            assert len([line for line in ran.err if ": error: " in line]) == len(ran.err) == 1
            assert "space" in ran.err[0] or "full" in ran.err[0]
            assert not layout.scores.exists()
        nothing_half_finished(layout)


@pytest.mark.parametrize("room", [0, 8, 40, 80])
def test_disk_full_in_run_visualise(run, finished, tmp_path, room):
    with mounted(tmp_path / "disk", f"size={used(finished) // 4096 * 4096 + 262144}") as disk:
        shutil.copytree(finished, disk, dirs_exist_ok=True)
        layout = Layout(disk, "me")
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
            file.write(bytes(10**8))
        with (disk / "filler").open("r+b") as file:
            file.truncate(max(0, (disk / "filler").stat().st_size - room * 1024))
        ran = run("run_visualise", "--data_dir", disk, "--reference", "me")
        one_error(ran, disk)
        assert "space" in ran.err[0] or "full" in ran.err[0]
        nothing_half_finished(layout)
        assert not layout.video_out.exists()


@pytest.mark.parametrize("step", ["pyavi", "pywork", "pycrop", "pyframes", "pytmp"])
def test_input_inside_the_results(pipeline, face_clip, tmp_path, step):
    inside = tmp_path / "data" / step / "me" / "deep" / "mine.mp4"
    inside.parent.mkdir(parents=True)
    shutil.copy(face_clip, inside)
    ran, _ = pipeline(inside)
    one_error(ran, inside, "--reference", code=2)
    assert inside.read_bytes() == face_clip.read_bytes()


def test_links_into_and_out_of_the_results(pipeline, face_clip, tmp_path):
    inside = tmp_path / "data" / "pyavi" / "me" / "mine.mp4"
    inside.parent.mkdir(parents=True)
    shutil.copy(face_clip, inside)
    link = tmp_path / "link.mp4"
    link.symlink_to(inside)
    one_error(pipeline(link)[0], link, code=2)
    outwards = inside.with_name("outwards.mp4")
    outwards.symlink_to(face_clip)
    one_error(pipeline(outwards)[0], outwards, code=2)
    assert outwards.is_symlink()


def test_second_run_replaces_the_first(pipeline, run, face_clip, tmp_path):
    _, layout = pipeline(face_clip)
    run("run_syncnet", "--data_dir", layout.data_dir, "--reference", "me")
    other = tmp_path / "data" / "pycrop" / "other"
    other.mkdir()
    (layout.crops / "00001.avi").write_bytes(b"of an earlier run")
    clip = clips.make(tmp_path / "none.mp4", clips.canvas(seconds=0.4), clips.tone(seconds=0.4))
    ran, _ = pipeline(clip)
    assert ran.code == 0
    assert layout.crop_files() == []
    assert not layout.offsets.exists()
    assert len(list(layout.frames.iterdir())) < 15
    assert other.is_dir()


def test_failed_run_keeps_the_first(pipeline, results, tmp_path):
    before = sorted(path for path in results.data_dir.rglob("*") if path.is_file())
    one_error(pipeline(tmp_path / "no.mp4")[0])
    assert sorted(path for path in results.data_dir.rglob("*") if path.is_file()) == before


def test_linked_results_folder_is_unlinked_not_emptied(pipeline, face_clip, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "keep.txt").write_text("keep")
    (tmp_path / "data" / "pycrop").mkdir(parents=True)
    (tmp_path / "data" / "pycrop" / "me").symlink_to(mine)
    ran, layout = pipeline(face_clip)
    assert ran.code == 0
    assert (mine / "keep.txt").read_text() == "keep"
    assert len(layout.crop_files()) == 1
