"""Train a small S3FD on frames with boxes.

    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --resume
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --start data/starter/s3fd.pt
    python -m training.s3fd.train --data FACES --output runs/s3fd --steps 20000 --device cuda
    python -m training.s3fd.train --data FACES --output runs/s3fd --minutes 60 --resume --score_shift 1.0

``FACES`` is a folder as described in frames.py. OUTPUT gets ``checkpoint.pt``, ``log.txt`` and, at every
evaluation, ``s3fd.pt``: the averaged weights in half precision with batch norm folded into the convolutions.

Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017: the three background scores of the finest
map (section 3.3), hard negatives and losses (3.4); for matching see ``face_batches``. Not from there: batch norm while
training, averaged weights, a start from random weights, cuts of several sizes.
"""

import argparse
import copy
import sys
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
from training.s3fd.evaluate import evaluate, faceless_pictures, false_detections
from training.s3fd.face_batches import BACKGROUND, FACE, Batches
from training.s3fd.frames import load_frames, rendered_frames

STARTER_WIDTH = 0.25
RENDERED_TEST_SEED = 10**6  # rendered people that no training sees
RENDERED_TESTS, FACELESS_TESTS = 24, 200  # pictures in every evaluation
NEGATIVES_PER_FACE, FEWEST_NEGATIVES = 3, 64
LEARNING_RATE, WEIGHT_DECAY, GRADIENT_NORM = 2e-3, 1e-2, 10.0


def add_batch_norm(net):
    """Put batch norm behind every convolution of the trunk and the extra layers, in place."""
    for layers in (net.vgg, net.extras):
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Conv2d):
                layers[index] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
    return net


@torch.no_grad()
def fold_batch_norm(net):
    """A copy of the network without batch norm that computes the same in eval mode."""
    net = copy.deepcopy(net).eval()
    for layers in (net.vgg, net.extras):
        for index, layer in enumerate(layers):
            if isinstance(layer, nn.Sequential):
                layers[index] = torch.nn.utils.fusion.fuse_conv_bn_eval(*layer)
    return net


def detection_loss(net, pixels, labels, offsets):
    """Sum of the two losses per matched prior (section 3.4); the hardest negatives of the whole batch are taken."""
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
    """Network, its average, optimiser and course of one run.

    Args:
        batches: Batches.
        width: of the network.
        steps, minutes: length of the run (see ``common.Progress``).
        bfloat16: compute in bfloat16 where torch deems it safe.
        start: path of weights in S3FD's layout to begin with, instead of random ones.
        rate: highest learning rate.
    """

    def __init__(
        self,
        batches,
        *,
        width=STARTER_WIDTH,
        steps=None,
        minutes=None,
        device="cpu",
        seed=0,
        bfloat16=False,
        start=None,
        rate=LEARNING_RATE,
    ):
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

    def step(self):
        """One step; the losses of classes and places."""
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

    def weights(self, score_shift=0.0):
        """Averaged weights in half precision, S3FD's layout; ``score_shift`` is added to the log odds of a face."""
        net = fold_batch_norm(self.average.module).cpu()
        with torch.no_grad():
            for head in net.conf:
                head.bias[-1] += score_shift
        return common.half_precision(net.state_dict())

    def save(self, path):
        common.save_aside(
            path,
            {
                "net": self.net.state_dict(),
                "average": self.average.module.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.progress.step,
                "seconds": self.progress.seconds,
            },
        )

    def resume(self, path):
        state = common.load_checkpoint(path)
        self.net.load_state_dict(state["net"])
        self.average.module.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress.step, self.progress.seconds = state["step"], state["seconds"]


def held_out_score(state, frames, rendered, faceless):
    """A line with the held-out figures of weights (a state dict in half precision)."""
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


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with frames/, boxes.jsonl and index.tsv")
    parser.add_argument("--output", required=True, help="folder for checkpoint.pt, s3fd.pt and log.txt")
    parser.add_argument("--minutes", type=float, help="train so long (evaluation not counted)")
    parser.add_argument("--steps", type=int, help="train so many steps; with both, whichever comes first")
    parser.add_argument("--rendered", type=int, default=200, help="so many rendered frames too (default: %(default)s)")
    parser.add_argument("--width", type=float, default=STARTER_WIDTH, help="of the layers (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--bfloat16", action="store_true", help="compute in bfloat16 (fast where there is hardware)")
    parser.add_argument(
        "--rate", type=float, default=LEARNING_RATE, help="highest learning rate (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument(
        "--score_shift",
        type=float,
        default=0.0,
        help="added to the log odds of a face in s3fd.pt, so that 0.9 is the right threshold (default: %(default)s)",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--start", help="weights in S3FD's layout to begin with")
    begin.add_argument("--resume", action="store_true", help="go on from OUTPUT/checkpoint.pt")
    parser.add_argument("--log_every", type=int, default=50, help="steps between two lines (default: %(default)s)")
    parser.add_argument("--evaluate_every", type=int, default=500, help="steps (default: %(default)s)")
    return parser


@common.command
def main(args):
    output = Path(args.output)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    keep_freed_memory()
    log = common.Log(output / "log.txt")
    frames, held_out = load_frames(args.data)
    faceless = list(faceless_pictures(held_out, count=FACELESS_TESTS))
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
        common.save_aside(output / "s3fd.pt", weights)
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
