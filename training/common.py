"""What both trainers share: who is held out, checkpoints, averaged weights, a log, the learning rate's course."""

import copy
import csv
import functools
import hashlib
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from syncnet.errors import SyncNetError
from syncnet.results.layout import new_file

HELD_OUT_SHARE = 0.2
LONGEST_STEP = 30.0  # seconds; what is beyond was the machine asleep or the process stopped


class TrainingError(SyncNetError):
    """A fault of the training material, or of a file of an earlier run."""


def command(function):
    """Make ``function(args)`` the ``main(argv=None)`` of a command: a wrong input is one line on stderr and a code."""

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


def read_index(folder):
    """Rows of ``folder/index.tsv`` as dicts of strings."""
    path = Path(folder) / "index.tsv"
    if not path.is_file():
        raise TrainingError(f"{path}: no such file; give the folder of talking faces with --data")
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def held_out_persons(rows, *, share=HELD_OUT_SHARE, seed=0):
    """Persons kept out of training: of every source, whole persons in a hashed order up to ``share`` of its clips.

    A source with one person stays in training. The order depends on the names alone, so that both trainers
    and every later run hold out the same people.
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


def split_by_person(rows, *, share=HELD_OUT_SHARE, seed=0):
    """(training rows, held-out rows): no person is in both."""
    held_out = held_out_persons(rows, share=share, seed=seed)
    return [r for r in rows if r["person"] not in held_out], [r for r in rows if r["person"] in held_out]


def seed_everything(seed):
    """Seed Python, numpy and torch, for the initial weights. Batches are drawn by ``step_generator``."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def step_generator(seed, step):
    """numpy generator of one step: a resumed run draws what the uninterrupted one would have drawn."""
    return np.random.default_rng([seed, step])


class Average:
    """Exponential moving average of a module's parameters and buffers; ``.module`` holds it, in eval mode."""

    def __init__(self, module, decay=0.998):
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module, step):
        decay = min(self.decay, (1 + step) / (10 + step))  # follow closely at first, when the weights still run away
        for mine, theirs in zip(self.module.state_dict().values(), module.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs.to(mine.dtype), 1 - decay)
            else:
                mine.copy_(theirs)


@torch.no_grad()
def pass_through(norms, run):
    """Make batch norms hand on what they get, so that weights saved without them train on with them.

    Args:
        norms: the layers.
        run: a forward pass in evaluation mode on typical inputs: each layer's statistics are taken from it.
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


def load_weights(path, net):
    """Load a weights file (half precision will do) into a network."""
    state = load_checkpoint(path)
    try:
        net.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    except (RuntimeError, AttributeError) as error:
        raise TrainingError(f"{path}: not weights of this network at this --width") from error
    return net


def save_aside(path, value):
    """``torch.save`` that never leaves a half-written file under ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as aside:
        torch.save(value, aside)


def load_checkpoint(path):
    """Dict written by ``save_aside``, on the CPU.

    Raises:
        TrainingError: missing, or something else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file: name weights, or leave out --resume to start anew") from None
    except Exception as error:
        kind = type(error).__name__
        raise TrainingError(f"{path}: not a checkpoint or weights that a trainer wrote ({kind})") from error


def half_precision(state):
    """State dict with floating-point tensors in half precision (counters stay integers)."""
    return {name: t.half() if t.dtype.is_floating_point else t for name, t in state.items()}


def rate_factor(progress, *, warmup=0.01, decay_from=0.5):
    """Factor on the learning rate at ``progress`` 0..1: linear rise, plateau, linear fall to zero."""
    if progress < warmup:
        return (progress + 1e-4) / (warmup + 1e-4)
    return min(1.0, max(0.0, (1 - progress) / (1 - decay_from)))


class Progress:
    """How far a run is: by steps, by minutes of training, or whichever of both is further."""

    def __init__(self, *, steps=None, minutes=None, step=0, seconds=0.0):
        if not steps and not minutes:
            raise TrainingError("no end given: use --steps, --minutes or both")
        self.steps, self.minutes, self.step, self.seconds = steps, minutes, step, seconds
        self._last = time.perf_counter()

    @property
    def fraction(self):
        by_steps = self.step / self.steps if self.steps else 0.0
        by_minutes = self.seconds / 60 / self.minutes if self.minutes else 0.0
        return min(1.0, max(by_steps, by_minutes))

    def advance(self):
        now = time.perf_counter()
        self.seconds += min(now - self._last, LONGEST_STEP)
        self._last = now
        self.step += 1

    def pause(self):
        """Forget the time since the last step (evaluation is not training)."""
        self._last = time.perf_counter()


def figures_line(figures, digits):
    """``name value`` pairs of a dict in one line."""
    return " ".join(f"{k} {v:.{digits}f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())


class Log:
    """Lines to stderr and, when a path is given, to the end of a file."""

    def __init__(self, path=None, *, quiet=False):
        self.path, self.quiet = Path(path) if path else None, quiet
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, line):
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(line + "\n")
