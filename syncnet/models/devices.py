"""Device selection, memory settings and parallel streams for the networks."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # makes torch request huge pages; read when torch is loaded

import torch

from syncnet.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")

DEVICES = ("auto", "cpu", "cuda", "mps")
# parameters of glibc's mallopt (malloc.h)
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
TRIM_BYTES = 512 * 1024 * 1024
MAX_WORKERS = 4  # each needs memory for a batch


def select_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Args:
        name: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``mps``, or one of the latter three
            with an index, such as ``cuda:1``.

    Raises:
        UsageError: the name is invalid, or the machine has no such device.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise UsageError(f"--device {name}: not a device: choose one of {', '.join(DEVICES)}")
    available = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}[device.type]
    if (device.index or 0) >= available:
        raise UsageError(
            f"--device {name}: torch {torch.__version__} finds no such device on this machine: use --device auto"
        )
    if device.type == "cpu":
        keep_freed_memory()
    return device


@lru_cache
def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks. Otherwise allocating pages takes a third of the time of each batch."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library: only slower
    mallopt(M_ARENA_MAX, 1)  # per-thread arenas would return their blocks to the kernel
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], device: torch.device
) -> Generator[Result, None, None]:
    """Apply a network to batches, on a CPU in parallel streams.

    On a CPU several workers each process a batch with an equal share of torch's threads. This uses the cores better
    than splitting each layer of a single batch among all threads.

    Args:
        function: runs the network on a batch.
        items: the batches.
        device: device of the network.

    Yields:
        ``function(item)`` for each item, in order.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    workers = min(threads, MAX_WORKERS)
    if workers == 1:
        yield from map(function, items)
        return
    # set_num_threads applies to the calling thread only
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,)) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
