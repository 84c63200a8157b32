"""Code shared by both trainers: held-out split, checkpoints, averaged weights, log, learning-rate schedule."""

import argparse
import copy
import csv
import functools
import hashlib
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from syncnet.errors import SyncNetError
from syncnet.results.layout import new_file

HELD_OUT_SHARE = 0.2
LONGEST_STEP = 30.0  # seconds; a longer step means a suspended machine or a stopped process


class TrainingError(SyncNetError):
    """A fault in the training data, or in a file of an earlier run."""


def command(function: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
    """Turn ``function(args)`` into the ``main(argv=None)`` of a command.

    The module of ``function`` must define ``get_parser()``. Invalid input becomes one line on stderr and an exit code.

    Args:
        function: Takes the parsed arguments; returns an exit code, or None for 0.

    Returns:
        ``main(argv=None)``, which returns the exit code.
    """

    @functools.wraps(function)
    def main(argv=None):
        module = sys.modules[function.__module__]
        args = module.get_parser().parse_args(argv)
        try:
            return function(args) or 0
        except SyncNetError as error:
            message, code = error, error.exit_code
        except OSError as error:
            message, code = f"{error.filename or 'system'}: {error.strerror or error}", 1
        file = Path(module.__file__)
        print(f"{file.parent.name}.{file.stem}: error: {message}", file=sys.stderr)
        return code

    return main


def read_index(folder: str | Path) -> list[dict[str, str]]:
    """Return the rows of ``folder/index.tsv``.

    Raises:
        TrainingError: The file does not exist.
    """
    path = Path(folder) / "index.tsv"
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; give the folder of talking-face clips with --data")
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def held_out_persons(rows: Sequence[dict[str, str]], *, share: float = HELD_OUT_SHARE, seed: int = 0) -> set[str]:
    """Return the persons to keep out of training.

    Of every source, whole persons are held out, in a hashed order, up to ``share`` of the source's clips. A source with
    one person stays in training. The order depends on the names alone, so both trainers and every later run hold out
    the same people.

    Args:
        rows: Rows of the index, with the columns ``source`` and ``person``.
        share: Share of every source's clips to hold out, 0 to 1.
        seed: Selects another order.
    """
    clips = defaultdict(lambda: defaultdict(int))
    for row in rows:
        clips[row["source"]][row["person"]] += 1
    held_out = set()
    for source in sorted(clips):
        counts = clips[source]
        quota = share * sum(counts.values())
        taken = 0
        for person in sorted(counts, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
            if len(counts) > 1 and taken + counts[person] / 2 <= quota:
                held_out.add(person)
                taken += counts[person]
    return held_out


def split_by_person(
    rows: Sequence[dict[str, str]], *, share: float = HELD_OUT_SHARE, seed: int = 0
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Split rows so that no person is in both parts.

    Args:
        rows: Rows of the index.
        share: See ``held_out_persons``.
        seed: See ``held_out_persons``.

    Returns:
        The training rows and the held-out rows.
    """
    held_out = held_out_persons(rows, share=share, seed=seed)
    return [r for r in rows if r["person"] not in held_out], [r for r in rows if r["person"] in held_out]


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch for the initial weights. Batches are drawn with ``step_generator``."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def step_generator(seed: int, step: int) -> np.random.Generator:
    """Return the generator of one step, so that a resumed run draws the same batches as an uninterrupted one."""
    return np.random.default_rng([seed, step])


class Average:
    """Exponential moving average of a module's parameters and buffers.

    Attributes:
        decay: Share of the average that each update keeps.
        module: The averaged module, in evaluation mode.
    """

    def __init__(self, module: torch.nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        """Move the average towards the weights of ``module`` after update number ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))  # track closely at first, while the weights change fast
        for mine, theirs in zip(self.module.state_dict().values(), module.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(theirs)


@torch.no_grad()
def pass_through(norms: Iterable[torch.nn.Module], run: Callable[[], object]) -> None:
    """Initialise batch norms to the identity, so that training can continue from weights saved without them.

    Args:
        norms: The batch-norm layers, changed in place.
        run: Runs a forward pass in evaluation mode on typical inputs; each layer takes its statistics from that pass.
    """

    def adopt(norm, inputs):
        values = inputs[0].float()
        variance, mean = torch.var_mean(values, [d for d in range(values.ndim) if d != 1], correction=0)
        for statistic, value in (
            (norm.running_mean, mean),
            (norm.running_var, variance),
            (norm.bias, mean),
            (norm.weight, (variance + norm.eps).sqrt()),
        ):
            statistic.copy_(value)

    hooks = [norm.register_forward_pre_hook(adopt) for norm in norms]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()


def load_weights(path: str | Path, net: torch.nn.Module) -> torch.nn.Module:
    """Load a weights file, which may be in half precision, into a network.

    Args:
        path: File with a state dict.
        net: Network, changed in place.

    Returns:
        ``net``.

    Raises:
        TrainingError: The file is missing, damaged, or does not fit the network.
    """
    state = load_checkpoint(path)
    try:
        net.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    except (RuntimeError, AttributeError) as error:
        raise TrainingError(f"{path}: not weights of this network at this --width; give theirs as --width") from error
    return net


def save_atomically(path: str | Path, value: object) -> None:
    """Save with ``torch.save``, without ever leaving a half-written file at ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        torch.save(value, temporary)


def load_checkpoint(path: str | Path) -> dict:
    """Load a dict written by ``save_atomically``, with all tensors on the CPU.

    Raises:
        TrainingError: The file is missing or is not such a dict.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file: give existing weights, or leave out --resume") from None
    except Exception as error:
        kind = type(error).__name__
        raise TrainingError(f"{path}: not a checkpoint or weights file written by a trainer ({kind})") from error


def half_precision(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert the floating-point tensors of a state dict to half precision; integer counters stay integers."""
    return {name: t.half() if t.dtype.is_floating_point else t for name, t in state.items()}


def rate_factor(progress: float, *, warmup: float = 0.01, decay_from: float = 0.5) -> float:
    """Return the factor on the learning rate: a linear rise, a plateau, then a linear fall to zero.

    Args:
        progress: Finished part of the run, 0 to 1.
        warmup: Progress at which the plateau begins.
        decay_from: Progress at which the fall begins.
    """
    if progress < warmup:
        return (progress + 1e-4) / (warmup + 1e-4)
    return min(1.0, max(0.0, (1 - progress) / (1 - decay_from)))


class Progress:
    """Position in a run that is limited by steps, by minutes of training, or by both (whichever ends first).

    Attributes:
        steps: Steps of the whole run, or None.
        minutes: Minutes of training of the whole run, or None.
        step: Steps done.
        seconds: Seconds trained; evaluation does not count.
    """

    def __init__(
        self, *, steps: int | None = None, minutes: float | None = None, step: int = 0, seconds: float = 0.0
    ) -> None:
        if not steps and not minutes:
            raise TrainingError("the run has no end: use --steps, --minutes or both")
        self.steps, self.minutes, self.step, self.seconds = steps, minutes, step, seconds
        self._last = time.perf_counter()

    @property
    def fraction(self) -> float:
        """Finished part of the run, 0 to 1."""
        by_steps = self.step / self.steps if self.steps else 0.0
        by_minutes = self.seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(by_steps, by_minutes))

    def advance(self) -> None:
        """Count a finished step and the time since the last one."""
        now = time.perf_counter()
        self.seconds += min(now - self._last, LONGEST_STEP)
        self._last = now
        self.step += 1

    def pause(self) -> None:
        """Discard the time since the last step, because evaluation is not training."""
        self._last = time.perf_counter()


def figures_line(figures: dict[str, object], digits: int) -> str:
    """Format a dict as ``name value`` pairs on one line."""
    return " ".join(f"{k} {v:.{digits}f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


class Log:
    """Writer of lines to stderr and, when a path is given, to the end of a file."""

    def __init__(self, path: str | Path | None = None, *, quiet: bool = False) -> None:
        self.path, self.quiet = Path(path) if path else None, quiet
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, line: str) -> None:
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(line + "\n")
