"""Tests of the filter when workers or the program are killed or the disk is full: no score is lost or made twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import filter_program
import filter_stub
import pytest
from filter_program import alive, descendants, finish, kill, records, times_finished, wait_until, workers

from syncnet.filter.journal import with_checksum
from syncnet.filter.scorer import FAILED, SUCCESS

ROUNDS = 20
SCORED = "v{:03d}.c7.o1.mp4"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def videos(tmp_path):
    def make(*names):
        folder = tmp_path / "videos"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(name)
        return folder

    return make


@pytest.fixture
def flags(tmp_path):
    """Flags for filtering tmp_path/videos into tmp_path/out."""
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_text(name)
    weights = ("--initial_model", tmp_path / "a.pt", "--s3fd_weights", tmp_path / "b.pt")
    return ("--input_dir", tmp_path / "videos", "--output_dir", tmp_path / "out", *weights)


@pytest.fixture
def start(flags, tmp_path):
    """Start the filter with the scorer of filter_stub."""
    log = tmp_path / "log"
    log.touch()
    started = []

    def call(*more, **kwargs):
        started.append(filter_program.start(*flags, *more, stub_log=log, **kwargs))
        return started[-1]

    yield call
    for program in started:
        program.kill()
        program.wait()


def begun(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def results(tmp_path):
    return json.loads((tmp_path / "out/sync_filter_results.json").read_text())


def by_name(tmp_path):
    return {result["name"]: result for result in results(tmp_path)["results"]}


def test_a_worker_that_dies_costs_one_retry(start, videos, tmp_path):
    names = [SCORED.format(i) for i in range(4)]
    videos(*names, "x.dies.mp4", "y.dies-once.c7.o0.mp4", "z.memory.mp4", "z.raises.mp4")
    code, _, err = finish(start())
    assert code == 3, err
    found = by_name(tmp_path)
    assert all(found[name]["status"] == SUCCESS for name in [*names, "y.dies-once.c7.o0.mp4"])
    assert found["x.dies.mp4"]["error"] == "its worker was killed by SIGSEGV, twice: run again with --retry_failed"
    assert "can't allocate memory, twice" in found["z.memory.mp4"]["error"]
    assert found["z.raises.mp4"]["error"] == "RuntimeError: a bug of two lines"
    tries = {name: begun(tmp_path).count(name) for name in found}
    retried = ("x.dies.mp4", "y.dies-once.c7.o0.mp4", "z.memory.mp4")
    assert tries == {name: 2 if name in retried else 1 for name in found}
    assert "Traceback" not in err
    assert times_finished(tmp_path / "out") == dict.fromkeys(found, 1)


def test_a_worker_that_ends_after_a_bug_gets_no_other_video(start, videos, tmp_path):
    names = [f"{number:02d}.raises.mp4" if number % 4 else SCORED.format(number) for number in range(24)]
    videos(*names)
    assert finish(start("--max_workers", "3"))[0] == 3
    found = by_name(tmp_path)
    assert all((found[name]["status"] == SUCCESS) == ("raises" not in name) for name in names)
    assert sorted(begun(tmp_path)) == sorted(names)


def test_timeout(start, videos, tmp_path):
    videos(SCORED.format(0), "x.hang.mp4")
    code, _, err = finish(start("--timeout", "1"))
    assert code == 3, err
    assert by_name(tmp_path)["x.hang.mp4"]["error"] == "took longer than --timeout 1 seconds"
    assert 1 <= by_name(tmp_path)["x.hang.mp4"]["processing_time"] < 5
    assert begun(tmp_path).count("x.hang.mp4") == 1


def test_workers_that_cannot_start(start, videos, tmp_path):
    videos(SCORED.format(0))
    code, _, err = finish(start("--device", "broken"))
    assert (code, err.splitlines()[-1].split(": ", 1)[1]) == (1, "error: --device broken: not a device")
    code, _, err = finish(start("--device", "dead"))
    assert code == 1 and "workers die while they load the networks: its worker ended (exit code 9)" in err
    assert "Traceback" not in err


def test_kill_workers_at_random(start, videos, tmp_path):
    """Kill a worker with SIGKILL, ROUNDS times in one run: every video gets exactly one line."""
    names = [SCORED.format(i) for i in range(200)]
    videos(*names)
    program, dice, killed = start("--max_workers", "3"), random.Random(1), 0
    wait_until(lambda: begun(tmp_path))
    while killed < ROUNDS and program.poll() is None:
        time.sleep(dice.uniform(0, 0.08))
        found = workers(program.pid)
        killed += bool(found) and kill(dice.choice(found))
    code, _, err = finish(program)
    assert killed == ROUNDS
    assert times_finished(tmp_path / "out") == dict.fromkeys(names, 1)
    failed = [record for record in records(tmp_path / "out") if record["status"] == FAILED]
    assert code == (3 if failed else 0), err
    assert all("killed by SIGKILL" in record["error"] and "twice" in record["error"] for record in failed)
    # "at most", because a worker may die between receiving a video and starting it
    assert all(begun(tmp_path).count(record["name"]) <= 2 for record in failed)
    assert len(begun(tmp_path)) <= len(names) + ROUNDS
    assert "Traceback" not in err


def test_kill_the_program_at_random(start, videos, tmp_path):
    """Kill the program with SIGKILL, ROUNDS times: no score is lost or made twice, and no scratch is left."""
    names = [SCORED.format(i) for i in range(240)]
    videos(*names)
    dice, orphans, done, in_flight = random.Random(2), [], set(), 0
    for _ in range(ROUNDS):
        before = len(begun(tmp_path))
        program = start("--max_workers", "2", "--transfer", "hardlink")
        if dice.random() < 0.8:
            wait_until(lambda before=before: len(begun(tmp_path)) > before)
        time.sleep(dice.uniform(0, 0.12))
        orphans += descendants(program.pid)
        program.kill()
        program.wait()
        finished = set(times_finished(tmp_path / "out"))
        assert done <= finished, "a finished video is lost"
        in_flight += len(begun(tmp_path)) - before - len(finished - done)
        done = finished
    wait_until(lambda: not any(map(alive, orphans)))
    assert 0 < len(done) < len(names), "the kills hit nothing"
    code, _, err = finish(start("--transfer", "hardlink"))
    assert code == 0, err
    assert times_finished(tmp_path / "out") == dict.fromkeys(names, 1), "scored twice or never"
    assert len(begun(tmp_path)) <= len(names) + 2 * ROUNDS  # two videos in flight at each kill
    assert results(tmp_path)["good_quality"] == len(names)
    assert sorted(p.name for p in (tmp_path / "out/good_quality").iterdir()) == names
    assert not (tmp_path / "out/.work").exists()


CORRECTING = ("--mode", "direct", "--transfer", "correct", "--max_workers", "2")
LAGGING = "v{:03d}.c7.o4.correct-slow.mp4"


def corrections(tmp_path):
    """Return how often each video has a line of the journal with its correction."""
    return Counter(record["name"] for record in records(tmp_path / "out") if "correction" in record)


def good(tmp_path):
    """Return the content of the files in good_quality by name."""
    folder = tmp_path / "out/good_quality"
    return {path.name: path.read_text() for path in folder.iterdir()} if folder.exists() else {}


def test_kill_workers_that_correct(start, videos, tmp_path):
    """Every video is corrected once, or its worker was killed twice."""
    names = [LAGGING.format(i) for i in range(30)]
    videos(*names)
    program, dice, killed = start(*CORRECTING), random.Random(4), 0
    wait_until(lambda: any(line.startswith("correct") for line in begun(tmp_path)))
    while killed < 8 and program.poll() is None:
        time.sleep(dice.uniform(0, 0.3))
        found = workers(program.pid)
        killed += bool(found) and kill(dice.choice(found))
    code, _, err = finish(program)
    assert killed == 8 and "Traceback" not in err
    lines = {record["name"]: record["correction"] for record in records(tmp_path / "out") if "correction" in record}
    failed = [name for name, line in lines.items() if line["state"] == "failed"]
    assert code == (3 if failed else 0), err
    assert all("killed by SIGKILL" in lines[name]["error"] for name in failed)
    assert corrections(tmp_path) == dict.fromkeys(names, 1)
    assert good(tmp_path) == {name: filter_stub.corrected(name) for name in names if name not in failed}
    assert not (tmp_path / "out/.work").exists()


def test_kill_the_program_while_it_corrects(start, videos, tmp_path):
    """Whenever it is killed, the files are complete; in the end, every video was corrected once."""
    names = [LAGGING.format(i) for i in range(40)]
    videos(*names)
    dice, done = random.Random(5), 0
    for _ in range(8):
        before = len(begun(tmp_path))
        program = start(*CORRECTING)
        wait_until(lambda before=before: len(begun(tmp_path)) > before)
        time.sleep(dice.uniform(0, 0.5))
        program.kill()
        program.wait()
        assert all(text == filter_stub.corrected(name) for name, text in good(tmp_path).items())
        assert set(corrections(tmp_path)) <= set(good(tmp_path)) and sum(corrections(tmp_path).values()) >= done
        done = sum(corrections(tmp_path).values())
    assert 0 < done < len(names), "the kills hit nothing"
    code, _, err = finish(start(*CORRECTING))
    assert code == 0, err
    assert corrections(tmp_path) == dict.fromkeys(names, 1), "corrected twice or never"
    assert good(tmp_path) == {name: filter_stub.corrected(name) for name in names}
    assert not (tmp_path / "out/.work").exists() and not list((tmp_path / "out/poor_quality").iterdir())


def test_interrupted_while_it_corrects(start, videos, tmp_path):
    """Nothing uncorrected is copied, and the next run corrects only what is left."""
    names = [LAGGING.format(i) for i in range(20)]
    videos(*names)
    program = start(*CORRECTING)
    wait_until(lambda: len(corrections(tmp_path)) >= 3)
    program.send_signal(signal.SIGINT)
    code, _, err = finish(program)
    done = corrections(tmp_path)
    assert code == 130 and "Traceback" not in err and 3 <= len(done) < 20
    assert good(tmp_path) == {name: filter_stub.corrected(name) for name in done}
    assert not list((tmp_path / "out/poor_quality").iterdir())
    assert results(tmp_path)["not_yet_corrected"] == 20 - len(done)
    assert finish(start(*CORRECTING))[0] == 0
    assert corrections(tmp_path) == dict.fromkeys(names, 1)
    assert good(tmp_path) == {name: filter_stub.corrected(name) for name in names}


def test_full_disk_ends_the_run_and_loses_no_correction(start, videos, tmp_path):
    names = [LAGGING.format(0), "v001.c7.o4.correct-full.mp4", LAGGING.format(2)]
    videos(*names)
    code, _, err = finish(start(*CORRECTING, "--max_workers", "1"))
    assert code == 1 and "no space left" in err and "Traceback" not in err
    assert list(corrections(tmp_path)) == [names[0]] == list(good(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_results_and_goes_on(start, videos, tmp_path, number):
    names = [SCORED.format(i) + ".slow.mp4" for i in range(30)]
    videos(*names)
    program = start()
    wait_until(lambda: len(times_finished(tmp_path / "out")) >= 3)
    children = descendants(program.pid)
    program.send_signal(number)
    code, _, err = finish(program)
    assert code == 130 and err.splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in err
    wait_until(lambda: not any(map(alive, children)))
    found = results(tmp_path)
    done = times_finished(tmp_path / "out")
    assert found["total_videos"] == 30 and 3 <= found["good_quality"] == len(done) < 30
    assert found["not_scored"] == 30 - len(done)
    assert sorted(p.name for p in (tmp_path / "out/good_quality").iterdir()) == sorted(done)
    assert finish(start())[0] == 0
    assert times_finished(tmp_path / "out") == dict.fromkeys(names, 1)
    assert results(tmp_path)["not_scored"] == 0


def test_second_program_is_refused(start, videos, tmp_path):
    videos(*(SCORED.format(i) + ".slow.mp4" for i in range(10)))
    first = start()
    wait_until(lambda: begun(tmp_path))
    code, _, err = finish(start())
    assert code == 1
    assert f"another program (process {first.pid} on" in err and "choose another --output_dir" in err
    assert len(err.splitlines()) == 1
    assert finish(first)[0] == 0
    assert set(times_finished(tmp_path / "out").values()) == {1}


def test_killed_while_folders_are_made(start, videos, tmp_path):
    """Copies are complete or absent whenever the program is killed, and none is made twice."""
    folder = videos()
    names = [SCORED.format(i) for i in range(40)]
    for name in names:
        (folder / name).write_bytes(os.urandom(300_000))
    sizes = {name: (folder / name).stat().st_size for name in names}
    assert finish(start("--transfer", "none"))[0] == 0
    dice, copied = random.Random(3), 0

    def copies():
        return {p for side in ("good", "poor") for p in (tmp_path / f"out/{side}_quality").glob("*")}

    for attempt in range(8):
        sides = ["--min_confidence", "9" if attempt % 2 else "5"]
        known = copies()
        program = start("--rescore", "never", *sides)
        if attempt % 4 > 1:  # half of the kills happen while files are copied, on any machine
            wait_until(lambda program=program, known=known: program.poll() is not None or copies() != known)
        else:
            time.sleep(dice.uniform(0.3, 0.7))
        program.kill()
        program.wait()
        there = copies()
        assert all(p.stat().st_size == sizes[p.name] for p in there)
        copied += len(there)
    assert copied
    assert finish(start("--rescore", "never"))[0] == 0
    assert sorted(p.name for p in (tmp_path / "out/good_quality").iterdir()) == names
    assert not list((tmp_path / "out/poor_quality").iterdir())


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 2 MB at tmp_path/out."""
    folder = tmp_path / "out"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_stops_the_run_and_loses_nothing(start, videos, small_disk, tmp_path):
    names = [SCORED.format(i) for i in range(30)]
    videos(*names)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2 * 1024 * 1024 - 32 * 1024))
    code, _, err = finish(start("--transfer", "none"))
    assert code == 1 and "No space left on device" in err and "Traceback" not in err
    done = times_finished(small_disk)
    assert 0 < len(done) < 30
    filler.unlink()
    code, _, err = finish(start("--transfer", "none"))
    assert code == 0, err
    assert times_finished(small_disk) == dict.fromkeys(names, 1)


def test_disk_that_fills_up_with_copies(start, videos, small_disk, tmp_path):
    folder = videos()
    for number in range(6):
        (folder / SCORED.format(number)).write_bytes(bytes(500_000))
    code, _, err = finish(start())
    assert code == 1 and "No space left on device" in err and "Traceback" not in err
    copies = list((small_disk / "good_quality").iterdir())
    assert copies and all(copy.stat().st_size == 500_000 for copy in copies)
    assert results(tmp_path)["good_quality"] == 6
    assert finish(start("--transfer", "symlink"))[0] == 0
    assert len(list((small_disk / "good_quality").iterdir())) == 6


def test_scratch_disk_that_is_full_is_not_the_video_s_fault(start, videos, tmp_path):
    videos(SCORED.format(0), "x.full.mp4")
    code, _, err = finish(start("--max_workers", "1"))
    assert code == 1 and "no space left" in err
    assert list(times_finished(tmp_path / "out")) == [SCORED.format(0)]


MANY = 100_000
SECONDS, TIMES_PLAIN, MEGABYTES = 10, 4, 500


@pytest.mark.slow
def test_a_hundred_thousand_lines(start, flags, videos, tmp_path):
    """Resuming and applying other thresholds take less than 10 s and 500 MB, without moving files.

    On a machine where decoding and encoding that much JSON is slow, the limit is a multiple of that time.
    """
    folder = videos()
    for number in range(MANY):
        (folder / f"v{number}.c{number % 97 / 10}.o{number % 7 - 3}.mp4").touch()
    first = folder / "v0.c0.0.o-3.mp4"
    only = tmp_path / "only"
    only.write_text(f"{first}\n")
    assert finish(start("--transfer", "none", "--input_list", only))[0] == 0
    [line] = records(tmp_path / "out")
    del line["crc32"]
    line["tracks"] = line["tracks"] * 2  # about 1.5 kB, like real lines
    with (tmp_path / "out/results.jsonl").open("wb") as file:
        for path in folder.iterdir():
            stat = path.stat()
            numbers = filter_stub.NUMBERS.search(path.name)
            line["tracks"][0].update(confidence=float(numbers["confidence"]), offset=int(numbers["offset"]))
            changed = {"name": path.name, "video_name": path.name, "video_path": str(path)}
            file.write(with_checksum(json.dumps({**line, **changed, "size": 0, "mtime_ns": stat.st_mtime_ns})))
    started = time.process_time()
    for line in (tmp_path / "out/results.jsonl").read_text().splitlines():
        json.dumps(json.loads(line))
    most = max(SECONDS, TIMES_PLAIN * (time.process_time() - started))
    took = []
    for more in ([], ["--min_confidence", "7", "--rescore", "never"]):
        program = start("--transfer", "none", *more)
        megabytes, pid = 0, 0
        while not pid:
            # ru_maxrss of a new process starts at the peak of this one
            megabytes = max(megabytes, filter_program.peak_megabytes(program.pid))
            pid, status, usage = os.wait4(program.pid, os.WNOHANG)
            time.sleep(0.01)
        # CPU time, because other programs may delay this one
        took.append((usage.ru_utime + usage.ru_stime, megabytes))
        print(f"{took[-1][0]:.1f} s of computing, at most {most:.1f}; {took[-1][1]:.0f} MB")
        assert status == 0, program.stderr.read()
    found = results(tmp_path)
    assert found["total_videos"] == MANY
    assert found["good_quality"] == sum(number % 97 >= 70 for number in range(MANY))
    assert len(begun(tmp_path)) == 1
    assert all(seconds < most and megabytes < MEGABYTES for seconds, megabytes in took), (took, most)
