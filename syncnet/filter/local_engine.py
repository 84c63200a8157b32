"""Score and correct videos with worker processes on this machine.

Every worker has its own networks, share of the CPU cores and pipe to the parent. If a worker dies, only its current
video is affected: a new worker tries it once more.
"""

import collections
import contextlib
import functools
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from syncnet.errors import SyncNetError, ToolError, out_of_memory
from syncnet.filter import scorer
from syncnet.filter.correction import Outcome
from syncnet.filter.inputs import Video
from syncnet.filter.layout import worker_scratch
from syncnet.results.layout import discard

logger = logging.getLogger("syncnet")

Result = scorer.VideoScore | Outcome
Results = Generator[tuple[Video, Result], None, None]
Deaths = collections.Counter[tuple[type[Video], str]]  # by what was done, and path

RETRIES = 1  # of a video whose worker died
START_ATTEMPTS = 3  # workers that may die in a row while loading the networks, before any has loaded them
RESTART_ATTEMPTS = 30  # the same, after one has loaded them
JOIN_SECONDS = 5
LONGEST_WAIT = 3600.0  # seconds of one wait: the system call does not accept arbitrarily long timeouts


@dataclass(frozen=True)
class Ready:
    """Message of a worker that has loaded the networks."""


@dataclass(frozen=True)
class Stopped:
    """Message of a worker with an error that ends the whole run.

    Attributes:
        error: The error.
    """

    error: SyncNetError


@dataclass(frozen=True)
class Last:
    """Message of a worker that ends after this score.

    Attributes:
        score: Score of the worker's current video.
    """

    score: scorer.VideoScore


@dataclass(frozen=True)
class Dying:
    """Message of a worker that ends without a score of its current video.

    Attributes:
        why: The cause, in words.
    """

    why: str


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def serve(connection: Connection, load: scorer.LoadScorer) -> None:
    """Run a worker process.

    Args:
        connection: Receives ``scorer.task`` of a video; sends ``Ready``, and then for every video what ``load``'s
            function returns, ``Last``, ``Dying`` or ``Stopped``.
        load: Returns the function that scores or corrects one video.
    """
    lead_group()
    threading.Thread(target=end_with_parent, daemon=True).start()
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    try:
        score = prepare(load)
        connection.send(Ready())
        while True:
            arguments = connection.recv()
            started = time.monotonic(), scorer.timestamp()
            try:
                connection.send(score(*arguments))
            except SyncNetError:
                raise
            except Exception as error:
                why = f"{type(error).__name__}: {scorer.one_line(error)}"
                connection.send(Dying(why) if out_of_memory(error) else Last(scorer.failed(why, started=started)))
                return  # after an unexpected error the state of the process is unknown
    except SyncNetError as error:
        connection.send(Stopped(error))
    except (EOFError, OSError):
        pass  # the parent has ended


def prepare(load: scorer.LoadScorer) -> scorer.ScoreVideo:
    """Return the function that scores one video.

    Raises:
        SyncNetError: ``load`` failed with any error.
    """
    try:
        return load()
    except SyncNetError:
        raise
    except Exception as error:
        raise ToolError(
            f"a worker cannot load the networks: {type(error).__name__}: {scorer.one_line(error)}: check --device, "
            "--initial_model and --s3fd_weights"
        ) from error


def lead_group() -> None:
    """Start a new session, so that Ctrl-C on the terminal reaches only the parent, and ignore SIGINT.

    The parent can then also kill the worker together with its ffmpeg processes.
    """
    if hasattr(os, "setsid"):
        os.setsid()
        # a SIGINT that arrived earlier, blocked by ``interrupts_held``, is discarded
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Block SIGINT in this process and in processes that are started in the block; it arrives afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Wait until the parent process ends, for any reason; then kill this process and its ffmpeg processes."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"
    multiprocessing.connection.wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class Worker:
    """Handle of a worker process.

    Args:
        load: As for ``LocalEngine``.
        threads: Number of CPU threads of the worker.
        scratch: Scratch folder of the worker.
        index: Index of the worker.

    Attributes:
        video: The worker's current video; None while it is idle.
        ready: True once it has loaded the networks.
        deadline: Time by which the video must be finished, by time.monotonic(); None for no limit.
        started: Start of the video, as ``scorer.failed`` takes it; None before the first video.
    """

    def __init__(self, load: scorer.LoadScorer, *, threads: int, scratch: Path, index: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.scratch, self.index = scratch, index
        self.connection, theirs = context.Pipe()
        load = functools.partial(load, scratch=scratch, index=index, threads=threads)
        self.process = context.Process(target=serve, args=(theirs, load), daemon=True)
        with interrupts_held():
            self.process.start()
        theirs.close()
        self.video: Video | None = None
        self.ready = False
        self.deadline: float | None = None
        self.started: scorer.Started | None = None

    def give(self, video: Video, *, timeout: float | None) -> bool:
        """Send a video to the worker.

        Args:
            video: The video.
            timeout: Longest time that the video may take, in seconds; None for no limit.

        Returns:
            True if the worker received it, False if the worker has died.
        """
        try:
            self.connection.send(scorer.task(video))
        except OSError:
            return False
        now = time.monotonic()
        self.video, self.started = video, (now, scorer.timestamp())
        self.deadline = now + timeout if timeout else None
        return True

    def release(self) -> Video:
        """Mark the worker as idle and return its video."""
        video, self.video, self.deadline = self.video, None, None
        assert video is not None, "the worker has a video"
        return video

    def kill(self) -> None:
        """Kill the worker and all processes that it has started, and remove its scratch folder."""
        with contextlib.suppress(OSError, AttributeError):
            if self.process.pid:
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.join(JOIN_SECONDS)
        self.connection.close()
        discard(self.scratch)

    def cause_of_death(self) -> str:
        """Return how the worker ended, in words."""
        self.process.join(JOIN_SECONDS)
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"its worker ended (exit code {code})"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its worker was killed by {name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")


class LocalEngine:
    """Engine with worker processes on this machine.

    Args:
        load: ``load(scratch=..., index=..., threads=...)`` returns the function that scores one video; called in the
            worker.
        scratch: Folder for the workers' scratch folders.
        max_workers: Number of worker processes.
        timeout: Longest time that a video may take, in seconds; None for no limit.
        threads: CPU threads per worker; None to share the cores among the workers.
    """

    def __init__(
        self,
        load: scorer.LoadScorer,
        *,
        scratch: Path,
        max_workers: int,
        timeout: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.load, self.scratch, self.timeout = load, scratch, timeout
        self.max_workers = max_workers
        self.threads = threads or max(1, cores() // max_workers)
        self.workers: list[Worker] = []
        self.numbers = itertools.count()
        self.failed_starts, self.attempts = 0, START_ATTEMPTS

    def run(self, videos: collections.deque[Video]) -> Results:
        """Score videos, and correct those that are ``Uncorrected``.

        Args:
            videos: The videos; more may be appended while this generator runs, which removes those that are started.

        Yields:
            Every video with its score or outcome, as soon as it is finished. If it failed, that is a failed score.

        Raises:
            SyncNetError: No worker can start, or a worker met an error that concerns all videos, such as a full disk.
        """
        deaths: Deaths = collections.Counter()
        try:
            for index in range(min(self.max_workers, len(videos))):
                self.start(index)
            while videos or any(worker.video for worker in self.workers):
                self.hand_out(videos)
                yield from self.collect(videos, deaths)
        finally:
            for worker in self.workers:
                worker.kill()
            self.workers.clear()

    def hand_out(self, waiting: collections.deque[Video]) -> None:
        """Send a video to every idle worker."""
        for worker in [w for w in self.workers if w.ready and not w.video]:
            if not waiting:
                return
            video = waiting.popleft()
            if not worker.give(video, timeout=self.timeout):
                waiting.appendleft(video)
                self.replace(worker)

    def start(self, index: int) -> None:
        """Start a worker."""
        scratch = worker_scratch(self.scratch, next(self.numbers))
        self.workers.append(Worker(self.load, threads=self.threads, scratch=scratch, index=index))

    def replace(self, worker: Worker) -> None:
        """Kill a worker and start a new one with the same index."""
        self.workers.remove(worker)
        worker.kill()
        self.start(worker.index)

    def collect(self, waiting: collections.deque[Video], deaths: Deaths) -> Results:
        """Wait for messages or the next deadline.

        Args:
            waiting: Videos that no worker has started.
            deaths: Number of workers that died, by what they did.

        Yields:
            Every finished video with its score or outcome.
        """
        by_connection: dict[Any, Worker] = {worker.connection: worker for worker in self.workers}
        for connection in multiprocessing.connection.wait(by_connection, timeout=self.wait_seconds()):
            worker = by_connection[connection]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                message = Dying(worker.cause_of_death())
            if isinstance(message, Ready):
                worker.ready, self.failed_starts, self.attempts = True, 0, RESTART_ATTEMPTS
            elif isinstance(message, Stopped):
                raise message.error
            elif isinstance(message, Dying):
                yield from self.handle_death(worker, message.why, waiting, deaths)
            elif isinstance(message, Last):
                self.replace(worker)
                yield worker.release(), message.score
            else:
                yield worker.release(), message
        for worker in [w for w in self.workers if w.deadline and w.deadline <= time.monotonic()]:
            error = f"took longer than --timeout {self.timeout:g} seconds"
            yield worker.release(), scorer.failed(error, started=worker.started)
            self.replace(worker)

    def wait_seconds(self) -> float | None:
        """Return the seconds until the next deadline; None without one."""
        deadlines = [worker.deadline for worker in self.workers if worker.deadline]
        return min(max(0.0, min(deadlines) - time.monotonic()), LONGEST_WAIT) if deadlines else None

    def handle_death(self, worker: Worker, why: str, waiting: collections.deque[Video], deaths: Deaths) -> Results:
        """Replace a worker that died, and queue its video again.

        Args:
            worker: The worker.
            why: Cause of its death, in words.
            waiting: Videos that no worker has started.
            deaths: Number of workers that died, by what they did.

        Yields:
            The video with a failed score, if it has been tried ``RETRIES`` times more already.
        """
        video, started = worker.video, worker.started
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= self.attempts:
                raise ToolError(f"workers die while they load the networks: {why}: try fewer --max_workers")
        self.replace(worker)
        if video is None:
            return
        deaths[type(video), video.path] += 1
        if deaths[type(video), video.path] > RETRIES:
            yield video, scorer.failed(f"{why}, twice: run again with --retry_failed", started=started)
        else:
            logger.warning("%s: %s: trying this video once more", video.name, why)
            waiting.appendleft(video)
