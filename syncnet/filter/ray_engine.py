"""Score videos with actors on a Ray cluster, each of which has its own networks.

Every actor has one video at a time, so that a million paths never become a million Ray tasks. Ray may restart an actor
and load its networks again, a limited number of times. If an actor dies, or does not answer because its node is gone, a
new actor tries its video once more, as with local workers; Ray itself retries no video. Only the driver writes the
journal.
"""

import collections
import logging
import os
import time
from pathlib import Path
from typing import Any

from syncnet.errors import SyncNetError, ToolError, out_of_memory
from syncnet.filter import scorer
from syncnet.filter.inputs import Video
from syncnet.filter.layout import discard_orphans, worker_scratch
from syncnet.filter.local_engine import RETRIES, Deaths, Result, Results
from syncnet.models.weights import ROOT
from syncnet.results.layout import discard

logger = logging.getLogger("syncnet")

MAX_RESTARTS = 3  # of an actor, by Ray
MAX_TASK_RETRIES = 1  # of loading the networks, by Ray
MAX_VIDEO_RETRIES = 0  # of a video, by Ray
POLL_SECONDS = 0.5
SILENCE_SECONDS = 30.0  # an actor that does not answer for this time is replaced
START_SECONDS = 600.0  # the run ends if no actor has worked for this time
HEALTH = "health"  # concurrency group of calls that an actor answers while it scores a video
INSTALL = "pip install -r requirements-ray.txt"


class Actor:
    """Ray actor that scores videos; calls of ``alive`` are in the concurrency group ``HEALTH``.

    Args:
        load: As for ``RayEngine``.
        scratch: Folder for the actors' scratch folders.
        index: Index of the actor.
        threads: CPU threads of the actor.
    """

    def __init__(self, load: scorer.LoadScorer, scratch: Path, index: int, threads: int) -> None:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self.load, self.scratch, self.index, self.threads = load, scratch, index, threads
        self.score: scorer.ScoreVideo | None = None

    def alive(self) -> bool:
        """Return True, to show that the actor answers."""
        return True

    def prepare(self) -> SyncNetError | None:
        """Load the networks, unless they are loaded already.

        Returns:
            None, or the error that ends the run.
        """
        try:
            self.loaded()
        except SyncNetError as error:
            return error
        return None

    def loaded(self) -> scorer.ScoreVideo:
        """Return the function that scores one video; load it first if necessary."""
        if self.score is None:
            discard_orphans(self.scratch)  # left by killed actors on this node
            scratch = worker_scratch(self.scratch, f"ray-{self.index}")
            self.score = self.load(scratch=scratch, index=self.index, threads=self.threads)
        return self.score

    def work(self, *arguments: Any) -> tuple[Result | SyncNetError, bool]:
        """Score or correct one video.

        Args:
            arguments: ``scorer.task`` of the video.

        Returns:
            The score or outcome, or the error that ends the run; and True if the actor must be replaced, because an
            unexpected error left it in an unknown state.
        """
        try:
            score = self.loaded()
        except SyncNetError as error:
            return error, False
        started = time.monotonic(), scorer.timestamp()
        try:
            return score(*arguments), False
        except SyncNetError as error:
            return error, False
        except Exception as error:
            if out_of_memory(error):
                os._exit(1)  # the driver handles it like any other death
            return scorer.failed(f"{type(error).__name__}: {scorer.one_line(error)}", started=started), True


class Slot:
    """Driver's record of an actor and its current video.

    Args:
        index: Index of the actor.
        actor: Ray's handle of the actor.

    Attributes:
        task: Reference to the running task (loading, or scoring a video); None while the actor is idle.
        video: The actor's current video; None without one.
        ping: Reference to the outstanding call of ``Actor.alive``; None without a video.
        answered: Time of the actor's last answer, by time.monotonic().
        started: Start of the video, as ``scorer.failed`` takes it; None before the first video.
    """

    def __init__(self, index: int, actor: Any) -> None:
        self.index, self.actor = index, actor
        self.task: Any = actor.prepare.remote()
        self.ping: Any = None
        self.video: Video | None = None
        self.answered = time.monotonic()
        self.started: scorer.Started | None = None

    def give(self, video: Video) -> None:
        """Send a video to the actor."""
        self.video, self.started = video, (time.monotonic(), scorer.timestamp())
        work = self.actor.work.options(max_task_retries=MAX_VIDEO_RETRIES)
        self.task = work.remote(*scorer.task(video))
        self.ping, self.answered = self.actor.alive.options(concurrency_group=HEALTH).remote(), time.monotonic()

    def release(self) -> Video:
        """Mark the actor as idle and return its video."""
        video, self.video, self.task, self.ping = self.video, None, None, None
        assert video is not None, "the actor has a video"
        return video


class RayEngine:
    """Engine with actors on a Ray cluster.

    Args:
        load: As for ``local_engine.LocalEngine``; called on the actor's node.
        scratch: Folder for the actors' scratch folders, on their nodes.
        max_workers: Number of actors.
        timeout: Longest time that a video may take, in seconds; None for no limit.
        address: Address of the cluster; None for the one in RAY_ADDRESS, or else a new one on this machine.
        gpus: GPUs per actor, also fractions.
        cpus: CPU cores per actor, and its number of threads.
        silence: Time after which an actor that does not answer is replaced, in seconds.

    Raises:
        ToolError: Ray is not installed.
    """

    def __init__(
        self,
        load: scorer.LoadScorer,
        *,
        scratch: Path,
        max_workers: int,
        timeout: float | None = None,
        address: str | None = None,
        gpus: float = 0.0,
        cpus: int = 1,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise ToolError(f"--engine ray: Ray is not installed: {INSTALL}") from error
        self.ray, self.address = ray, address
        self.load, self.scratch, self.timeout, self.silence = load, scratch, timeout, silence
        self.max_workers, self.gpus, self.cpus = max_workers, gpus, cpus
        self.slots: list[Slot] = []

    def run(self, videos: collections.deque[Video]) -> Results:
        """Score and correct videos, as ``local_engine.LocalEngine.run`` does.

        Args:
            videos: As there.

        Yields:
            As there.

        Raises:
            SyncNetError: The cluster cannot be joined or has no room, or an actor met an error that concerns all
                videos, such as a full disk.
        """
        deaths: Deaths = collections.Counter()
        joined = self.join()
        active = time.monotonic()
        try:
            self.slots = [self.start(index) for index in range(min(self.max_workers, len(videos)))]
            while videos or any(slot.video for slot in self.slots):
                for slot in self.slots:
                    if slot.task is None and videos:
                        slot.give(videos.popleft())
                yield from self.collect(videos, deaths)
                yield from self.check(videos, deaths)
                answered = [slot.answered for slot in self.slots if slot.video]
                active = max([active, *answered])
                if time.monotonic() - active > START_SECONDS:
                    raise ToolError(
                        f"the Ray cluster has had no room for a worker of {self.cpus} CPUs and {self.gpus:g} GPUs for "
                        f"{START_SECONDS:g} seconds: lower --cpus_per_worker or --gpus_per_worker, or add nodes"
                    )
        finally:
            for slot in self.slots:
                self.ray.kill(slot.actor)
            self.slots = []
            if joined:
                self.ray.shutdown()
            discard(self.scratch)

    def join(self) -> bool:
        """Join or start a cluster, unless this process is connected already.

        Returns:
            True if this call connected.

        Raises:
            ToolError: The cluster cannot be joined.
        """
        if self.ray.is_initialized():
            return False
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self.ray.init(
                address=self.address,
                runtime_env={"env_vars": {"PYTHONPATH": path}},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(
                f"--ray_address {self.address}: cannot join this cluster ({scorer.one_line(error)}): start it first"
            ) from error
        return True

    def start(self, index: int) -> Slot:
        """Create an actor, which loads its networks as soon as the cluster has room for it."""
        as_actor = self.ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_TASK_RETRIES,
            concurrency_groups={HEALTH: 1},
        )
        return Slot(index, as_actor(Actor).remote(self.load, self.scratch, index, self.cpus))

    def replace(self, slot: Slot) -> None:
        """Kill an actor and create a new one with the same index."""
        self.ray.kill(slot.actor)
        self.slots[self.slots.index(slot)] = self.start(slot.index)

    def collect(self, waiting: collections.deque[Video], deaths: Deaths) -> Results:
        """Wait for finished tasks, at most ``POLL_SECONDS``.

        Args:
            waiting: Videos that no actor has started.
            deaths: Number of actors that were abandoned, by what they did.

        Yields:
            Every finished video with its score or outcome.

        Raises:
            SyncNetError: An actor met an error that ends the run.
        """
        tasks = {slot.task: slot for slot in self.slots if slot.task is not None}
        done, _ = self.ray.wait(list(tasks), timeout=POLL_SECONDS) if tasks else ([], [])
        for task in done:
            slot = tasks[task]
            try:
                answer = self.ray.get(task)
            except self.ray.exceptions.RayError as error:
                if slot.video is None:
                    raise ToolError(
                        f"a worker on the Ray cluster died while loading the networks: {scorer.one_line(error)}: try "
                        "fewer --max_workers"
                    ) from error
                yield from self.abandon(slot, "died", waiting, deaths)
                continue
            result, unusable = answer if slot.video else (answer, False)
            if isinstance(result, SyncNetError):
                raise result
            if slot.video:
                yield slot.release(), result
            else:
                slot.task = None  # the networks are loaded
            if unusable:
                self.replace(slot)

    def check(self, waiting: collections.deque[Video], deaths: Deaths) -> Results:
        """Replace actors that exceed the timeout or do not answer; arguments and yields as for ``collect``."""
        for slot in [slot for slot in self.slots if slot.video]:
            now = time.monotonic()
            started = slot.started
            if self.timeout and started and now - started[0] > self.timeout:
                video = slot.release()
                self.replace(slot)
                yield video, scorer.failed(f"took longer than --timeout {self.timeout:g} seconds", started=started)
            elif self.ray.wait([slot.ping], timeout=0)[0]:
                slot.ping, slot.answered = slot.actor.alive.options(concurrency_group=HEALTH).remote(), now
            elif now - slot.answered > self.silence:
                yield from self.abandon(slot, "did not answer", waiting, deaths)

    def abandon(self, slot: Slot, why: str, waiting: collections.deque[Video], deaths: Deaths) -> Results:
        """Replace an actor, and queue its video again.

        Args:
            slot: The actor's slot.
            why: What the actor did, in words.
            waiting: Videos that no actor has started.
            deaths: Number of actors that were abandoned, by what they did.

        Yields:
            The video with a failed score, if it has been tried ``RETRIES`` times more already.
        """
        started, video = slot.started, slot.release()
        self.replace(slot)
        deaths[type(video), video.path] += 1
        if deaths[type(video), video.path] > RETRIES:
            yield video, scorer.failed(f"its worker {why}, twice: run again with --retry_failed", started=started)
        else:
            logger.warning("%s: its worker %s: trying this video once more", video.name, why)
            waiting.appendleft(video)
