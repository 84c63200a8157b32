"""Helpers for tests that start the filter as a separate program and kill it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent


def environment(**more):
    """Return environment variables with which another Python finds the suite and the tests' modules."""
    path = os.pathsep.join([str(ROOT), str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


def start(*flags, stub_log=None, **kwargs):
    """Start a filter in a new session.

    Args:
        stub_log: Log for the scorer of ``filter_stub``; None to use the real scorer.
    """
    program = [str(ROOT / "filter_videos_by_sync_score.py")] if stub_log is None else ["-m", "filter_stub"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, flags)],
        env=environment(STUB_LOG=str(stub_log)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # if the tests run as a shell's background job, SIGINT is ignored, and child processes inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        text=True,
        **kwargs,
    )


def finish(program, *, seconds=120):
    """Wait for a filter to end; return its exit code, stdout and stderr."""
    try:
        out, err = program.communicate(timeout=seconds)
    finally:
        program.kill()
    return program.returncode, out, err


def records(output_dir):
    """Return the records of the journal's complete lines."""
    journal = Path(output_dir) / "results.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in lines]


def times_finished(output_dir):
    return Counter(record["name"] for record in records(output_dir))


def descendants(pid):
    """Return the process IDs of a process's descendants."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            child = int(status.parent.name)
            found += [child, *descendants(child)]
    return found


def workers(pid):
    """Return the process IDs of a filter's workers: its children except Python's resource tracker."""
    children = []
    for child in descendants(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in command:
            children.append(child)
    return children


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def peak_megabytes(pid):
    """Return the peak memory of a process so far, in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), default=0)


def wait_until(condition, *, seconds=60.0):
    """Wait until a condition is true, and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"condition not met within {seconds:g} s"
        time.sleep(0.01)
    return value


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
