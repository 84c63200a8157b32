"""Training of a small S3FD on frames with boxes.

    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --resume
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --start data/starter/s3fd.pt
    python -m training.s3fd.train --data FACES --output runs/s3fd --steps 20000 --device cuda
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --resume --score_shift 1.0

FACES is a folder as described in frames.py. Writes to OUTPUT: ``checkpoint.pt``, ``log.txt`` and, at every evaluation,
``s3fd.pt``: the averaged weights in half precision with batch norm folded into the convolutions.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017: the three background scores of the finest
map (section 3.3), hard negatives and losses (3.4); for matching see face_batches.py. Not from the paper: batch norm
while training, averaged weights, training from random weights, crops of several sizes.
"""

import argparse
import copy
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from detectors.s3fd import Detector
from detectors.s3fd.nets import S3FDNet
from syncnet.models.devices import keep_freed_memory
from training import common
from training.s3fd.evaluate import evaluate, faceless_images, false_detections
from training.s3fd.face_batches import BACKGROUND, FACE, Batches
from training.s3fd.frames import Frame, load_frames, rendered_frames

STARTER_WIDTH = 0.25
RENDERED_TEST_SEED = 10**6  # rendered people that are never trained on
RENDERED_TESTS, FACELESS_TESTS = 24, 200  # images per evaluation
NEGATIVES_PER_FACE, FEWEST_NEGATIVES = 3, 64
LEARNING_RATE, WEIGHT_DECAY, GRADIENT_NORM = 2e-3, 1e-2, 10.0


def add_batch_norm(net: S3FDNet) -> S3FDNet:
    """Add a batch norm behind every convolution of the trunk and the extra layers, in place."""
    for layers in (net.vgg, net.extras):
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d):
                layers[index] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
    return net


@torch.no_grad()
def fold_batch_norm(net: S3FDNet) -> S3FDNet:
    """Return a copy without batch norm that computes the same in evaluation mode."""
    net = copy.deepcopy(net).eval()
    for layers in (net.vgg, net.extras):
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Sequential):
                layers[index] = torch.nn.utils.fusion.fuse_conv_bn_eval(*layer)
    return net


def detection_loss(
    net: S3FDNet, pixels: torch.Tensor, labels: torch.Tensor, offsets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the classification and the localisation loss per matched prior (section 3.4).

    Hard negatives are taken from the whole batch.

    Args:
        net: The network.
        pixels: N x 3 x H x W, minus the pixel means.
        labels: N x P.
        offsets: N x P x 4.
    """
    predicted, odds = zip(*((loc, odds.flatten(1)) for loc, odds in net.heads(pixels)))
    predicted, odds = torch.cat(predicted, dim=1).float(), torch.cat(odds, dim=1).float()
    faces = labels == FACE
    count = faces.sum().clamp(min=1)
    hard = F.softplus(odds[labels == BACKGROUND])
    wanted = max(FEWEST_NEGATIVES, NEGATIVES_PER_FACE * int(faces.sum()))
    hard = hard.topk(min(wanted, len(hard))).values
    classes = F.softplus(-odds[faces]).sum() + hard.sum()
    places = F.smooth_l1_loss(predicted[faces], offsets[faces], reduction="sum")
    return classes / count, places / count


class Trainer:
    """Network, averaged weights, optimiser and progress of a run.

    Args:
        batches: Source of the batches.
        width: Width factor of the network.
        steps: Length of the run, see ``common.Progress``.
        minutes: Likewise.
        device: "cpu" or "cuda".
        seed: Seed of the initial weights.
        bfloat16: Compute in bfloat16 where torch considers it safe.
        start: Path of weights in the layout of S3FD to start from; None for random ones.
        rate: Highest learning rate.
    """

    def __init__(
        self,
        batches: Batches,
        *,
        width: float = STARTER_WIDTH,
        steps: int | None = None,
        minutes: float | None = None,
        device: str = "cpu",
        seed: int = 0,
        bfloat16: bool = False,
        start: str | Path | None = None,
        rate: float = LEARNING_RATE,
    ) -> None:
        common.seed_everything(seed)
        self.batches, self.device, self.bfloat16, self.width = batches, torch.device(device), bfloat16, width
        self.rate = rate
        net = S3FDNet(width)
        if start:
            common.load_weights(start, net)
        self.net = add_batch_norm(net).to(self.device, memory_format=torch.channels_last)
        if start:
            pixels = batches.draw(0)[0].to(self.device)
            norms = [layer for layer in self.net.modules() if isinstance(layer, nn.BatchNorm2d)]
            common.pass_through(norms, lambda: self.net.eval()(pixels))
        self.average = common.Average(self.net)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        self.progress = common.Progress(steps=steps, minutes=minutes)

    def step(self) -> tuple[float, float]:
        """Make one update; return the classification and the localisation loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * common.rate_factor(self.progress.fraction)
        pixels, labels, offsets = self.batches.draw(self.progress.step)
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        self.net.train()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            classes, places = detection_loss(self.net, pixels, labels.to(self.device), offsets.to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        (classes + places).backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), GRADIENT_NORM)
        self.optimiser.step()
        self.average.update(self.net, self.progress.step)
        self.progress.advance()
        return float(classes.detach()), float(places.detach())

    def weights(self, score_shift: float = 0.0) -> dict[str, torch.Tensor]:
        """Return the averaged weights in half precision, in the layout of S3FD.

        Args:
            score_shift: Added to the log odds of a face.
        """
        net = fold_batch_norm(self.average.module).cpu()
        with torch.no_grad():
            for head in net.conf:
                head.bias[-1] += score_shift
        return common.half_precision(net.state_dict())

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""
        common.save_atomically(
            path,
            {
                "net": self.net.state_dict(),
                "average": self.average.module.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.progress.step,
                "seconds": self.progress.seconds,
            },
        )

    def resume(self, path: str | Path) -> None:
        """Continue from a checkpoint that ``save`` wrote."""
        state = common.load_checkpoint(path)
        self.net.load_state_dict(state["net"])
        self.average.module.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress.step, self.progress.seconds = state["step"], state["seconds"]


def held_out_score(
    state: dict[str, torch.Tensor], frames: Iterable[Frame], rendered: Iterable[Frame], faceless: Sequence[np.ndarray]
) -> str:
    """Return one line with the held-out results of a network.

    Args:
        state: State dict in half precision, in the layout of S3FD.
        frames: Held-out frames.
        rendered: Rendered frames that are not trained on.
        faceless: Images without a face.
    """
    net = S3FDNet(state["vgg.0.weight"].shape[0] / S3FDNet().vgg[0].out_channels)
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    detector = Detector(net.eval(), torch.device("cpu"))
    result = evaluate(detector, frames)
    wrong = len(false_detections(detector, faceless))
    own = evaluate(detector, rendered)
    return (
        f"recall {result['recall']:.4f} precision {result['precision']:.4f} IoU {result['iou']:.3f} small strays "
        f"{result['wrong_small']} of {result['faces']} faces; rendered recall {own['recall']:.3f} precision "
        f"{own['precision']:.3f} IoU {own['iou']:.3f}; false detections {wrong} of {len(faceless)}"
    )


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with frames/, boxes.jsonl and index.tsv")
    parser.add_argument("--output", required=True, help="folder for checkpoint.pt, s3fd.pt and log.txt")
    parser.add_argument("--minutes", type=float, help="minutes to train (evaluation not counted)")
    parser.add_argument("--steps", type=int, help="steps to train; with --minutes, whichever ends first")
    parser.add_argument("--rendered", type=int, default=200, help="rendered frames to mix in (default: %(default)s)")
    parser.add_argument(
        "--width", type=float, default=STARTER_WIDTH, help="factor on the channels of S3FD (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--bfloat16", action="store_true", help="compute in bfloat16 (faster on CPUs and GPUs that support it)"
    )
    parser.add_argument(
        "--rate", type=float, default=LEARNING_RATE, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default: %(default)s)")
    parser.add_argument(
        "--score_shift",
        type=float,
        default=0.0,
        help="added to the log odds of a face in s3fd.pt, so that 0.9 is the right threshold (default: %(default)s)",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--start", help="weights in the layout of S3FD to start from")
    begin.add_argument("--resume", action="store_true", help="continue from OUTPUT/checkpoint.pt")
    parser.add_argument(
        "--log_every", type=int, default=50, help="steps between lines of the log (default: %(default)s)"
    )
    parser.add_argument(
        "--evaluate_every", type=int, default=500, help="steps between evaluations (default: %(default)s)"
    )
    return parser


@common.command
def main(args: argparse.Namespace) -> None:
    output = Path(args.output)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    keep_freed_memory()
    log = common.Log(output / "log.txt")
    frames, held_out = load_frames(args.data)
    faceless = list(faceless_images(held_out, count=FACELESS_TESTS))
    rendered = rendered_frames(args.rendered, seed=1000 * args.seed)
    test_rendered = rendered_frames(RENDERED_TESTS, seed=RENDERED_TEST_SEED)
    batches = Batches(frames, seed=args.seed, rendered=rendered)
    trainer = Trainer(
        batches,
        width=args.width,
        steps=args.steps,
        minutes=args.minutes,
        device=args.device,
        seed=args.seed,
        bfloat16=args.bfloat16,
        start=args.start,
        rate=args.rate,
    )
    if args.resume:
        trainer.resume(output / "checkpoint.pt")
    log(f"{len(frames)} frames to train on, {len(held_out)} held out, {len(batches.persons)} persons")
    losses = []

    def finish_round():
        weights = trainer.weights(args.score_shift)
        common.save_atomically(output / "s3fd.pt", weights)
        trainer.save(output / "checkpoint.pt")
        score = held_out_score(weights, held_out, test_rendered, faceless)
        log(f"step {trainer.progress.step} shift {args.score_shift} held out: {score}")

    while trainer.progress.fraction < 1:
        losses.append(trainer.step())
        step, done = trainer.progress.step, trainer.progress.fraction >= 1
        if step % args.log_every == 0 or done:
            classes, places = np.mean(losses, axis=0)
            minutes = trainer.progress.seconds / 60
            log(f"step {step} minutes {minutes:.1f} classes {classes:.4f} places {places:.4f}")
            losses = []
        if step % args.evaluate_every == 0 and not done:
            finish_round()
            trainer.progress.pause()
    finish_round()


if __name__ == "__main__":
    sys.exit(main())
