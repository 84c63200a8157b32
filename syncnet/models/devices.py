"""Where the networks run, and how much memory their tensors cost there."""

import ctypes
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch then asks for huge pages, and reads this when it is loaded

import torch

from syncnet.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
# glibc's mallopt (malloc.h): keep freed blocks instead of handing them back to the kernel
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8
TRIM_BYTES = 512 * 1024 * 1024
MOST_LANES = 4  # each needs memory for a batch of its own


def select_device(name):
    """The torch device of a name.

    Args:
        name: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``mps`` or one with a number.

    Raises:
        UsageError: the machine has no such device.
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
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}[device.type]
    if (device.index or 0) >= there:
        raise UsageError(f"--device {name}: this machine has none that torch {torch.__version__} can use: try auto")
    if device.type == "cpu":
        keep_freed_memory()
    return device


@lru_cache
def keep_freed_memory():
    """Let glibc keep large freed blocks: otherwise every batch pays for fresh pages, a third of the time."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library: slower, nothing worse
    mallopt(M_ARENA_MAX, 1)  # a thread's own arena would hand its blocks back
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)


def in_lanes(function, items, device):
    """Yield ``function(item)`` of every item, in order.

    On a CPU several items are worked on at once, each by its share of torch's threads: that keeps the cores busier
    than sharing out every layer of one batch.

    Args:
        function: a network on a batch.
        items: iterable of batches.
        device: torch device of the network.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    lanes = min(threads, MOST_LANES)
    if lanes == 1:
        yield from map(function, items)
        return
    # torch counts threads per thread that asks
    with ThreadPoolExecutor(lanes, initializer=torch.set_num_threads, initargs=(threads // lanes,)) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
