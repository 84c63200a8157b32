"""Worker processes that score videos: each has the networks, a share of the cores and a pipe of its own.

A worker that dies takes nothing with it but the video it was at, which is tried once more by a new worker.
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
from dataclasses import dataclass

from syncnet.errors import SyncNetError, ToolError, out_of_memory
from syncnet.filter import scorer
from syncnet.filter.layout import worker_scratch
from syncnet.results.layout import discard

logger = logging.getLogger("syncnet")

RETRIES = 1  # of a video whose worker died
START_ATTEMPTS = 3  # workers in a row that may die before they have loaded the networks, while none ever has
RESTART_ATTEMPTS = 30  # once one has
JOIN_SECONDS = 5
LONGEST_WAIT = 3600.0  # seconds at a time: the system takes no month


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the networks."""


@dataclass(frozen=True)
class Stopped:
    """The worker cannot go on: the error ends the whole run."""

    error: SyncNetError


@dataclass(frozen=True)
class Last:
    """A video's score by a worker that ends with it."""

    score: scorer.VideoScore


@dataclass(frozen=True)
class Dying:
    """The worker ends itself while it is at a video."""

    why: str


def cores():
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def serve(connection, load):
    """Body of a worker process.

    Args:
        connection: takes (path, name) of a video, gives ``Ready``, then ``VideoScore``, ``Last``, ``Dying`` or
            ``Stopped``.
        load: returns the function that scores one video.
    """
    lead_group()
    threading.Thread(target=end_with_parent, daemon=True).start()
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    try:
        score = prepare(load)
        connection.send(Ready())
        while True:
            path, name = connection.recv()
            started = time.monotonic(), scorer.timestamp()
            try:
                connection.send(score(path, name))
            except SyncNetError:
                raise
            except Exception as error:
                why = f"{type(error).__name__}: {scorer.one_line(error)}"
                connection.send(Dying(why) if out_of_memory(error) else Last(scorer.failed(why, started=started)))
                return  # whatever happened may have spoilt the process
    except SyncNetError as error:
        connection.send(Stopped(error))
    except (EOFError, OSError):
        pass  # the parent is gone


def prepare(load):
    """The function that scores.

    Raises:
        SyncNetError: in place of whatever went wrong.
    """
    try:
        return load()
    except SyncNetError:
        raise
    except Exception as error:
        raise ToolError(
            f"a worker cannot load the networks: {type(error).__name__}: {scorer.one_line(error)}"
        ) from error


def lead_group():
    """Lead a process group: ffmpegs end with the worker, and Ctrl-C on the terminal reaches the parent alone."""
    if hasattr(os, "setsid"):
        os.setsid()
        # one that came before, while ``interrupts_held``, is forgotten
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


@contextlib.contextmanager
def interrupts_held():
    """Keep Ctrl-C waiting, here and in a process that is started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent():
    """End this process and its ffmpegs when the parent ends, however that happens."""
    parent = multiprocessing.parent_process()
    multiprocessing.connection.wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class Worker:
    """A worker process, seen from the parent.

    Attributes:
        video: the ``Video`` it is at; None while it has nothing to do.
        ready: whether it has loaded the networks.
        deadline: when the video has taken too long, by time.monotonic(); None for never.
    """

    def __init__(self, load, *, threads, scratch, index):
        context = multiprocessing.get_context("spawn")
        self.scratch, self.index = scratch, index
        self.connection, theirs = context.Pipe()
        load = functools.partial(load, scratch=scratch, index=index, threads=threads)
        self.process = context.Process(target=serve, args=(theirs, load), daemon=True)
        with interrupts_held():
            self.process.start()
        theirs.close()
        self.video, self.ready, self.deadline, self.started = None, False, None, None

    def give(self, video, *, timeout):
        """Hand it a video: whether it took it."""
        try:
            self.connection.send((video.path, video.name))
        except OSError:
            return False
        self.video, self.started = video, (time.monotonic(), scorer.timestamp())
        self.deadline = self.started[0] + timeout if timeout else None
        return True

    def kill(self):
        """End it with everything that it has started."""
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.join(JOIN_SECONDS)
        self.connection.close()
        discard(self.scratch)

    def cause_of_death(self):
        """How it ended, in words."""
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
    """Scores videos by worker processes on this machine.

    Args:
        load: ``load(scratch=..., index=..., threads=...)`` returns the function that scores one video; called in the
            worker.
        scratch: folder that the workers' scratch folders are made in.
        max_workers: processes.
        timeout: seconds that a video may take; None for any time.
        threads: per worker; None to share the cores among them.
    """

    def __init__(self, load, *, scratch, max_workers, timeout=None, threads=None):
        self.load, self.scratch, self.timeout = load, scratch, timeout
        self.max_workers = max_workers
        self.threads = threads or max(1, cores() // max_workers)
        self.workers = []
        self.numbers = itertools.count()
        self.failed_starts, self.attempts = 0, START_ATTEMPTS

    def run(self, videos):
        """Yield every ``Video`` with its ``VideoScore``, as they are finished.

        Raises:
            SyncNetError: no worker can start, or none could go on (a full disk).
        """
        waiting, again = collections.deque(videos), collections.Counter()
        try:
            for index in range(min(self.max_workers, len(waiting))):
                self.start(index)
            while waiting or any(worker.video for worker in self.workers):
                self.hand_out(waiting)
                yield from self.collect(waiting, again)
        finally:
            for worker in self.workers:
                worker.kill()
            self.workers.clear()

    def hand_out(self, waiting):
        """Give every idle worker a video."""
        for worker in [w for w in self.workers if w.ready and not w.video]:
            if not waiting:
                return
            video = waiting.popleft()
            if not worker.give(video, timeout=self.timeout):
                waiting.appendleft(video)
                self.replace(worker)

    def start(self, index):
        scratch = worker_scratch(self.scratch, next(self.numbers))
        self.workers.append(Worker(self.load, threads=self.threads, scratch=scratch, index=index))

    def replace(self, worker):
        self.workers.remove(worker)
        worker.kill()
        self.start(worker.index)

    def collect(self, waiting, again):
        """Wait until something happens; yield what is finished."""
        by_connection = {worker.connection: worker for worker in self.workers}
        for connection in multiprocessing.connection.wait(by_connection, timeout=self.patience()):
            worker = by_connection[connection]
            try:
                message = connection.recv()
            except (EOFError, OSError):
                message = Dying(worker.cause_of_death())
            if isinstance(message, Ready):
                worker.ready, self.failed_starts, self.attempts = True, 0, RESTART_ATTEMPTS
            elif isinstance(message, Stopped):
                raise message.error
            elif isinstance(message, Dying):
                yield from self.bury(worker, message.why, waiting, again)
            elif isinstance(message, Last):
                self.replace(worker)
                yield worker.video, message.score
            else:
                video, worker.video, worker.deadline = worker.video, None, None
                yield video, message
        for worker in [w for w in self.workers if w.deadline and w.deadline <= time.monotonic()]:
            error = f"took longer than --timeout {self.timeout:g} seconds"
            yield worker.video, scorer.failed(error, started=worker.started)
            self.replace(worker)

    def patience(self):
        """Seconds until the next deadline; None without one."""
        deadlines = [worker.deadline for worker in self.workers if worker.deadline]
        return min(max(0.0, min(deadlines) - time.monotonic()), LONGEST_WAIT) if deadlines else None

    def bury(self, worker, why, waiting, again):
        """Replace a dead worker; its video is tried once more, and failed after that."""
        video, started = worker.video, worker.started
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts >= self.attempts:
                raise ToolError(f"workers die while they load the networks: {why}: try fewer --max_workers")
        self.replace(worker)
        if video is None:
            return
        again[video.path] += 1
        if again[video.path] > RETRIES:
            yield video, scorer.failed(f"{why}, twice: run again with --retry_failed", started=started)
        else:
            logger.warning("%s: %s: tried once more", video.name, why)
            waiting.appendleft(video)
