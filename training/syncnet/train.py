"""Training of the starter's sync network: S with a width factor, on talking faces whose audio is in sync.

    python -m training.syncnet.train --data FACES --work ~/syncnet --width 0.375 --minutes 90
    python -m training.syncnet.train ... --resume                        # continues from WORK/checkpoint.pt
    python -m training.syncnet.train ... --start data/starter/syncnet.pt        # starts from weights
    python -m training.syncnet.train ... --steps 8000 --device cuda
    python -m training.syncnet.train ... --alignment ~/syncnet/alignment.json   # from training.syncnet.alignment
    python -m training.syncnet.evaluate --data FACES --weights ~/syncnet/syncnet.pt

Writes to WORK: ``checkpoint.pt`` (everything needed to resume), ``syncnet.pt`` (averaged weights in the layout of S,
half precision), ``train.log`` and the decoded clips in ``cache/``. Held-out persons are never trained on.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from syncnet.models.devices import keep_freed_memory
from SyncNetModel import S
from training import common
from training.syncnet.alignment import aligned, read_alignment
from training.syncnet.clips import CLIPS_PER_PERSON, Clip, load_clips, render_clips
from training.syncnet.evaluate import REPORTED_SHIFTS, report, score_clips
from training.syncnet.half_lip import HalfS, full_state, load_full
from training.syncnet.sync_loss import SPAN, Distance, Sample, draw_sample, sync_loss

SMALLEST_CLIP = 25  # windows; shorter clips have too few negatives
PUBLISHED_BOOST = 2.5  # factor on the odds of persons with a published score
FIRST_RENDERED = 100_000  # training uses seeds from here on; those below are for tests and images
WEIGHT_DECAY = 0.02
LARGEST_GRADIENT = 5.0
TYPICAL_DISTANCE = 12.0  # between video and wrong audio, at the start from given weights


class Sampler:
    """Draws persons first and then one of their clips, so that a person with long or many clips does not dominate.

    Args:
        clips: Clips; those out of sync or too short are left out.
        rendered: Rendered clips.
        rendered_share: Share of rendered clips in a batch.
        strength: Strength of the augmentation.

    Raises:
        TrainingError: No clip is left.
    """

    def __init__(
        self, clips: Iterable[Clip], rendered: Iterable[Clip] = (), rendered_share: float = 0.0, strength: float = 1.0
    ) -> None:
        self.clips = [c for c in clips if c.in_place and c.windows >= SMALLEST_CLIP]
        if not self.clips:
            raise common.TrainingError(
                f"no clip in sync has {SMALLEST_CLIP} windows or more; give other clips with --data"
            )
        self.rendered, self.rendered_share = list(rendered), rendered_share if rendered else 0.0
        self.strength = strength
        persons = {}
        for clip in self.clips:
            persons.setdefault(clip.person, []).append(clip)
        self.persons = list(persons.values())
        weights = np.array(
            [
                math.sqrt(min(len(group), CLIPS_PER_PERSON))
                * (PUBLISHED_BOOST if any(c.confidence is not None for c in group) else 1.0)
                for group in self.persons
            ]
        )
        self.odds = weights / weights.sum()

    def choose(self, rng: np.random.Generator, count: int) -> list[Clip]:
        """Draw ``count`` clips."""
        chosen = []
        for group in rng.choice(len(self.persons), size=count, p=self.odds):
            if rng.random() < self.rendered_share:
                chosen.append(self.rendered[int(rng.integers(len(self.rendered)))])
            else:
                chosen.append(self.persons[group][int(rng.integers(len(self.persons[group])))])
        return chosen

    def draw(self, rng: np.random.Generator, clips: int, windows: int) -> list[Sample]:
        """Draw samples of ``clips`` clips with ``windows`` video windows each."""
        return [draw_sample(rng, clip, self.clips, windows, self.strength) for clip in self.choose(rng, clips)]


class Trainer:
    """Network, distance, averaged weights and optimiser of a run.

    Args:
        width: Width factor of the network.
        device: "cpu" or "cuda".
        rate: Highest learning rate.
        seed: Seed of the initial weights and the batches.
        decay: Decay of the averaged weights.
        precision: "bfloat16" or "float32".
    """

    def __init__(self, *, width: float, device: str, rate: float, seed: int, decay: float, precision: str) -> None:
        common.seed_everything(seed)
        self.width, self.device, self.rate, self.seed, self.precision = width, device, rate, seed, precision
        self.net = HalfS(width).to(device)
        self.distance = Distance().to(device)
        self.average = common.Average(torch.nn.ModuleList([self.net, self.distance]), decay)
        parameters = [*self.net.parameters(), *self.distance.parameters()]
        plain = [p for p in parameters if p.ndim < 2]
        kernels = [p for p in parameters if p.ndim >= 2]
        groups = [{"params": kernels, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))

    def start(self, path: str | Path, samples: Sequence[Sample]) -> None:
        """Start from the weights in a file.

        Args:
            path: File in the layout of S.
            samples: Batch to take the statistics of the last batch norms from.
        """
        load_full(self.net, common.load_weights(path, S(width=self.width)))
        windows = torch.cat([s.windows for s in samples]).to(self.device)
        coefficients = torch.cat([s.coefficients for s in samples]).to(self.device)
        net = self.net.eval()
        common.pass_through([net.fclip[-1]], lambda: net.forward_lip(windows))
        common.pass_through([net.fcaud[-1]], lambda: net.forward_aud(coefficients))
        with torch.no_grad():
            typical = torch.cdist(net.forward_lip(windows), net.forward_aud(coefficients)).median()
            self.distance.log_scale.copy_((TYPICAL_DISTANCE / typical).log())
        self.average = common.Average(torch.nn.ModuleList([self.net, self.distance]), self.average.decay)

    def precise(self) -> AbstractContextManager:
        """Return the context of a forward pass, with autocast if the precision is bfloat16."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()

    def step(self, samples: Sequence[Sample], progress: common.Progress) -> tuple[float, dict[str, float]]:
        """Make one update; return the loss and its parts."""
        self.net.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * common.rate_factor(progress.fraction)
        for sample in samples:
            for name in ("windows", "coefficients", "places"):
                setattr(sample, name, getattr(sample, name).to(self.device))
        with self.precise():
            loss, parts = sync_loss(self.net, self.distance, samples)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.net.keep_scales_positive()
        progress.advance()
        self.average.update(torch.nn.ModuleList([self.net, self.distance]), progress.step)
        return float(loss.detach()), parts

    def averaged(self) -> tuple[HalfS, dict[str, float]]:
        """Return the averaged network and its calibration."""
        net, distance = self.average.module
        return net, distance.calibration()

    def state(self, progress: common.Progress) -> dict:
        """Return the checkpoint of the run."""
        return {
            "width": self.width,
            "net": self.net.state_dict(),
            "distance": self.distance.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": progress.step,
            "seconds": progress.seconds,
        }

    def load(self, state: dict) -> None:
        """Load a checkpoint made by ``state``.

        Raises:
            TrainingError: It has another width.
        """
        if state.get("width") != self.width:
            raise common.TrainingError(
                f"the checkpoint has width {state.get('width')}; give --width {state.get('width')}"
            )
        self.net.load_state_dict(state["net"])
        self.distance.load_state_dict(state["distance"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])

    def held_out(self, clips: Sequence[Clip], shifts: Iterable[int] = ()) -> dict[str, int | float]:
        """Return the held-out report of the averaged network."""
        net, calibration = self.averaged()
        with self.precise():
            return report(clips, score_clips(net, clips, self.device, shifts=shifts, **calibration))

    def save(self, work: Path, progress: common.Progress) -> None:
        """Write weights and checkpoint into the folder ``work``."""
        net, calibration = self.averaged()
        common.save_atomically(work / "syncnet.pt", common.half_precision(full_state(_on_cpu(net), **calibration)))
        common.save_atomically(work / "checkpoint.pt", self.state(progress))


def _on_cpu(net):
    copy = HalfS(net.width)
    copy.load_state_dict(net.state_dict())
    return copy


def train(
    trainer: Trainer,
    sampler: Sampler,
    held_out: Sequence[Clip],
    progress: common.Progress,
    *,
    work: Path,
    log: common.Log,
    clips: int,
    windows: int,
    report_minutes: float,
    stop_after: int | None = None,
) -> dict[str, int | float]:
    """Train to the end of a run, saving and reporting at intervals.

    Args:
        trainer: The trainer.
        sampler: Source of the batches.
        held_out: Clips for the reports.
        progress: Position in the run.
        work: Folder for weights and checkpoint.
        log: Takes a line every 50 steps and at every report.
        clips: Clips per batch.
        windows: Video windows per clip.
        report_minutes: Minutes between reports.
        stop_after: Steps after which to stop early, or None.

    Returns:
        The last held-out report.
    """
    shifts = REPORTED_SHIFTS
    last_step = progress.step + stop_after if stop_after else None
    means, last_report, figures = {}, progress.seconds, {}
    log(f"training on {len(sampler.clips)} clips of {len(sampler.persons)} persons and {len(sampler.rendered)} rendered"
        f" ones; {len(held_out)} held out; spans of {SPAN} windows")  # fmt: skip
    bar = tqdm(total=progress.steps, initial=progress.step, unit="step", disable=not sys.stderr.isatty())
    while progress.fraction < 1.0 and progress.step != last_step:
        rng = common.step_generator(trainer.seed, progress.step)
        torch.manual_seed(int(rng.integers(2**62)))  # for dropout
        loss, parts = trainer.step(sampler.draw(rng, clips, windows), progress)
        bar.update()
        for name, value in {"loss": loss, **parts}.items():
            means[name] = value if name not in means else means[name] + 0.02 * (value - means[name])
        if progress.step % 50 == 0:
            log(f"step {progress.step} min {progress.seconds / 60:.1f} " + common.figures_line(means, 3)
                + " | " + common.figures_line(trainer.distance.learned(), 2))  # fmt: skip
        ended = progress.fraction >= 1.0 or progress.step == last_step
        if ended or progress.seconds - last_report > 60 * report_minutes:
            last_report = progress.seconds
            trainer.save(work, progress)
            if held_out:
                figures = trainer.held_out(held_out, shifts)
                log(f"held out at step {progress.step}: {common.figures_line(figures, 3)}")
            progress.pause()
    bar.close()
    return figures


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the sync network of the starter weights.")
    parser.add_argument("--data", required=True, help="folder with index.tsv and clips/")
    parser.add_argument("--work", required=True, help="folder for checkpoint, weights, log and decoded clips")
    parser.add_argument("--cache", help="folder with the decoded clips (default: WORK/cache)")
    parser.add_argument("--alignment", help="file with clip offsets, written by training.syncnet.alignment")
    parser.add_argument("--width", type=float, default=0.25, help="factor on the channels of S")
    parser.add_argument("--minutes", type=float, help="minutes to train")
    parser.add_argument("--steps", type=int, help="updates to make")
    parser.add_argument("--stop_after", type=int, help="stop after this many updates of this call, to be resumed later")
    parser.add_argument("--clips", type=int, default=8, help="clips per batch")
    parser.add_argument("--windows", type=int, default=20, help="video windows per clip")
    parser.add_argument("--rendered", type=int, default=240, help="number of rendered faces to mix in")
    parser.add_argument("--rendered_share", type=float, default=0.15, help="share of rendered faces per batch")
    parser.add_argument("--augmentation", type=float, default=1.0, help="strength of the augmentation, 0..1")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--average", type=float, default=0.998, help="decay of the averaged weights")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: torch's choice)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report_minutes", type=float, default=5.0, help="minutes between held-out reports")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--start", help="weights in the layout of S to start from")
    begin.add_argument("--resume", action="store_true", help="continue from WORK/checkpoint.pt")
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    work = Path(args.work)
    log = common.Log(work / "train.log")
    keep_freed_memory()
    cv2.setNumThreads(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    train_rows, held_out_rows = common.split_by_person(common.read_index(args.data))
    cache = args.cache or work / "cache"
    rendered = render_clips(args.rendered, cache, first_seed=FIRST_RENDERED)
    clips = load_clips(args.data, train_rows, cache)
    if args.alignment:
        clips = aligned(clips, read_alignment(args.alignment))
    sampler = Sampler(clips, rendered, args.rendered_share, args.augmentation)
    held_out = load_clips(args.data, held_out_rows, cache)
    trainer = Trainer(
        width=args.width, device=args.device, rate=args.rate, seed=args.seed, decay=args.average,
        precision=args.precision,
    )  # fmt: skip
    position = {"step": 0, "seconds": 0.0}
    if args.start:
        trainer.start(args.start, sampler.draw(common.step_generator(args.seed, 0), args.clips, args.windows))
    if args.resume:
        position = common.load_checkpoint(work / "checkpoint.pt")
        trainer.load(position)
    progress = common.Progress(
        steps=args.steps, minutes=args.minutes, step=position["step"], seconds=position["seconds"]
    )
    train(trainer, sampler, held_out, progress, work=work, log=log, clips=args.clips, windows=args.windows,
          report_minutes=args.report_minutes, stop_after=args.stop_after)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
