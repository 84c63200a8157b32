"""Device and precision selection, memory settings and parallel streams for the networks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # makes torch request huge pages; read when torch is loaded

import torch

from syncnet.defaults import BFLOAT16, FLOAT32, PRECISIONS
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
GPU_BATCHES = 8  # batches of a CPU that a GPU computes together
# what makes bfloat16 faster than float32 on a CPU: names in ``torch.cpu.get_capabilities``, and in messages
BFLOAT16_INSTRUCTIONS = {"avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX", "bf16": "ARM BF16"}
DTYPES = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16}


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


def check_precision(precision: str, device: torch.device) -> str:
    """Return a precision unchanged if the device computes in it fast.

    Args:
        precision: one of ``defaults.PRECISIONS``.
        device: device of the networks.

    Raises:
        UsageError: the precision is unknown, or slower than float32 on the device.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: not a precision: choose one of {', '.join(PRECISIONS)}")
    if precision == BFLOAT16 and not computes_bfloat16(device):
        machine = "this processor" if device.type == "cpu" else str(device)
        instructions = ", ".join(BFLOAT16_INSTRUCTIONS.values()) if device.type == "cpu" else "for bfloat16"
        raise UsageError(
            f"--precision {BFLOAT16}: {machine} has no such instructions ({instructions}) and would be slower: "
            f"use --precision {FLOAT32}"
        )
    return precision


def computes_bfloat16(device: torch.device) -> bool:
    """Return True if the device has instructions for bfloat16."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in BFLOAT16_INSTRUCTIONS)


def batch_factor(device: torch.device) -> int:
    """Return by how much batches for a device are larger than those for a CPU."""
    return GPU_BATCHES if device.type == "cuda" else 1


class _FullFloat32(contextlib.ContextDecorator):
    """Context in which torch does not round float32 to TF32 or bfloat16, whatever the program around the suite has set.

    The settings are common to all threads: the first to enter saves them, the last to leave restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._saved = [operation.fp32_precision for operation in self._operations()]
                for operation in self._operations():
                    operation.fp32_precision = "ieee"
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for operation, saved in zip(self._operations(), self._saved):
                    operation.fp32_precision = saved

    @staticmethod
    def _operations() -> list[Any]:
        backends: Any = torch.backends  # torch does not type all of them
        return [backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul]


full_float32 = _FullFloat32()


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


def worker_count(device: torch.device) -> int:
    """Return the number of threads that run networks side by side on a device."""
    return min(thread_count(device), MAX_WORKERS)


def thread_count(device: torch.device) -> int:
    """Return the number of torch's threads that the networks of a device may use in all."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def new_pool(device: torch.device) -> ThreadPoolExecutor:
    """Return a pool of ``worker_count`` threads, each with an equal share of torch's threads."""
    workers = worker_count(device)
    # set_num_threads applies to the calling thread only
    return ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(thread_count(device) // workers,))


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
    workers = worker_count(device)
    if workers == 1:
        yield from map(function, items)
        return
    with new_pool(device) as pool:
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
