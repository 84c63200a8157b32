"""Workers on a Ray cluster: actors that hold the networks, wherever Ray finds room for them.

Every actor has one video at a time, so that a million paths are never a million tasks. Ray may restart an actor and
load its networks again, a bounded number of times. A video whose actor died, or is not heard of because its node is
gone, goes to a new actor: once, as with local workers, so Ray itself retries no video. The journal is written by the
program that started all this, and by nobody else.
"""

import collections
import logging
import os
import time

from syncnet.errors import SyncNetError, ToolError, out_of_memory
from syncnet.filter import scorer
from syncnet.filter.layout import discard_orphans, worker_scratch
from syncnet.filter.local_engine import RETRIES
from syncnet.models.weights import ROOT
from syncnet.results.layout import discard

logger = logging.getLogger("syncnet")

MAX_RESTARTS = 3  # of an actor, by Ray
MAX_TASK_RETRIES = 1  # of loading the networks, by Ray
MAX_VIDEO_RETRIES = 0  # of a video, by Ray
POLL_SECONDS = 0.5
SILENCE_SECONDS = 30.0  # an actor that does not answer for so long is given up
START_SECONDS = 600.0  # the run is given up when no actor has been at work for so long
HEALTH = "health"  # calls that are answered while a video is being scored
INSTALL = "pip install -r requirements-ray.txt"


class Actor:
    """Body of a Ray actor; ``alive`` is in the group ``HEALTH``."""

    def __init__(self, load, scratch, index, threads):
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self.load, self.scratch, self.index, self.threads = load, scratch, index, threads
        self.score = None

    def alive(self):
        return True

    def prepare(self):
        """Load the networks: None, or the ``SyncNetError`` that ends the run."""
        try:
            if self.score is None:
                discard_orphans(self.scratch)  # of actors on this node that were killed
                scratch = worker_scratch(self.scratch, f"ray-{self.index}")
                self.score = self.load(scratch=scratch, index=self.index, threads=self.threads)
        except SyncNetError as error:
            return error
        return None

    def work(self, path, name):
        """The ``VideoScore`` of a video, or the ``SyncNetError`` that ends the run; and whether the actor is spoilt."""
        error = self.prepare()
        if error:
            return error, False
        started = time.monotonic(), scorer.timestamp()
        try:
            return self.score(path, name), False
        except SyncNetError as error:
            return error, False
        except Exception as error:
            if out_of_memory(error):
                os._exit(1)  # a worker that dies
            return scorer.failed(f"{type(error).__name__}: {scorer.one_line(error)}", started=started), True


class Slot:
    """An actor, seen from the driver.

    Attributes:
        actor: Ray's handle.
        task: reference to what it is at: loading, or a video; None while it has nothing to do.
        video: the ``Video`` it is at.
        ping: reference to the answer that is waited for; None without a video.
        heard: when it last answered, by time.monotonic().
        started: when it was given the video, as ``scorer.failed`` takes it.
    """

    def __init__(self, index, actor):
        self.index, self.actor = index, actor
        self.task, self.video, self.ping = actor.prepare.remote(), None, None
        self.heard, self.started = time.monotonic(), None

    def give(self, video):
        self.video, self.started = video, (time.monotonic(), scorer.timestamp())
        work = self.actor.work.options(max_task_retries=MAX_VIDEO_RETRIES)
        self.task = work.remote(video.path, video.name)
        self.ping, self.heard = self.actor.alive.options(concurrency_group=HEALTH).remote(), time.monotonic()

    def release(self):
        """Have it no longer at a video: the video."""
        video, self.video, self.task, self.ping = self.video, None, None, None
        return video


class RayEngine:
    """Scores videos by actors on a Ray cluster.

    Args:
        load: as of ``local_engine.LocalEngine``; called on the node.
        scratch: folder that actors make their scratch folders in, on their node.
        max_workers: actors.
        timeout: seconds that a video may take; None for any time.
        address: of the cluster; None for what RAY_ADDRESS names, else a new one on this machine.
        gpus: GPUs of an actor, also a part of one.
        cpus: CPU cores of an actor, and threads that it computes with.
        silence: seconds after which an actor that does not answer is given up.

    Raises:
        ToolError: Ray is not installed.
    """

    def __init__(
        self, load, *, scratch, max_workers, timeout=None, address=None, gpus=0.0, cpus=1, silence=SILENCE_SECONDS
    ):
        try:
            import ray
        except ImportError as error:
            raise ToolError(f"--engine ray: Ray is not installed: {INSTALL}") from error
        self.ray, self.address = ray, address
        self.load, self.scratch, self.timeout, self.silence = load, scratch, timeout, silence
        self.max_workers, self.gpus, self.cpus = max_workers, gpus, cpus
        self.slots = []

    def run(self, videos):
        """Yield every ``Video`` with its ``VideoScore``, as they are finished; as ``local_engine.LocalEngine.run``."""
        waiting, again = collections.deque(videos), collections.Counter()
        joined = self.join()
        active = time.monotonic()
        try:
            self.slots = [self.start(index) for index in range(min(self.max_workers, len(waiting)))]
            while waiting or any(slot.video for slot in self.slots):
                for slot in self.slots:
                    if slot.task is None and waiting:
                        slot.give(waiting.popleft())
                yield from self.collect(waiting, again)
                yield from self.check(waiting, again)
                heard = [slot.heard for slot in self.slots if slot.video]
                active = max([active, *heard])
                if time.monotonic() - active > START_SECONDS:
                    raise ToolError(
                        f"the Ray cluster has had no room for a worker of {self.cpus} CPUs and {self.gpus:g} GPUs for "
                        f"{START_SECONDS:g} seconds: ask for less, or run again when nodes are there"
                    )
        finally:
            for slot in self.slots:
                self.ray.kill(slot.actor)
            self.slots = []
            if joined:
                self.ray.shutdown()
            discard(self.scratch)

    def join(self):
        """Join or start a cluster, unless this process has: whether this did.

        Raises:
            ToolError: there is none at the address.
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
            raise ToolError(f"--ray_address {self.address}: cannot join it ({scorer.one_line(error)})") from error
        return True

    def start(self, index):
        """A ``Slot`` with a new actor, which loads the networks as soon as there is room for it."""
        as_actor = self.ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_TASK_RETRIES,
            concurrency_groups={HEALTH: 1},
        )
        return Slot(index, as_actor(Actor).remote(self.load, self.scratch, index, self.cpus))

    def replace(self, slot):
        self.ray.kill(slot.actor)
        self.slots[self.slots.index(slot)] = self.start(slot.index)

    def collect(self, waiting, again):
        """Wait until something happens; yield what is finished.

        Raises:
            SyncNetError: an actor could not go on.
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
                        f"a worker on the Ray cluster died while it loaded the networks: {scorer.one_line(error)}"
                    ) from error
                yield from self.abandon(slot, "died", waiting, again)
                continue
            result, spoilt = answer if slot.video else (answer, False)
            if isinstance(result, SyncNetError):
                raise result
            video = slot.release()
            if video:
                yield video, result
            if spoilt:
                self.replace(slot)

    def check(self, waiting, again):
        """Take videos away from actors that are too slow or that do not answer."""
        for slot in [slot for slot in self.slots if slot.video]:
            now = time.monotonic()
            if self.timeout and now - slot.started[0] > self.timeout:
                started, video = slot.started, slot.release()
                self.replace(slot)
                yield video, scorer.failed(f"took longer than --timeout {self.timeout:g} seconds", started=started)
            elif self.ray.wait([slot.ping], timeout=0)[0]:
                slot.ping, slot.heard = slot.actor.alive.options(concurrency_group=HEALTH).remote(), now
            elif now - slot.heard > self.silence:
                yield from self.abandon(slot, "did not answer", waiting, again)

    def abandon(self, slot, why, waiting, again):
        """Give up an actor; its video goes to another, once."""
        started, video = slot.started, slot.release()
        self.replace(slot)
        again[video.path] += 1
        if again[video.path] > RETRIES:
            yield video, scorer.failed(f"its worker {why}, twice: run again with --retry_failed", started=started)
        else:
            logger.warning("%s: its worker %s: tried once more", video.name, why)
            waiting.appendleft(video)
