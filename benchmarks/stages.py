"""Measure peak memory and the share of wall time that run_pipeline and run_syncnet spend outside the networks.

    python -m benchmarks.stages [--seconds 60] [--size 1920x1080] [--width 1.0] [--video data/sample.mp4]

The video is looped and scaled to the given length and size. The networks have published size (or ``--width`` times
that) and random weights: the detector runs, but its detections are replaced by one face in the middle.
"""

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from detectors import S3FD
from detectors.s3fd.nets import S3FDNet
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from syncnet.models.fast import FastS3FD, FastSyncNet
from syncnet.results.layout import Layout
from syncnet.steps import pipeline
from syncnet.steps import score as score_step
from SyncNetInstance import SyncNetInstance
from SyncNetModel import S

Result = TypeVar("Result")

SEED = 0
FACE_CONFIDENCE = 0.99
ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 1024  # kilobytes, the unit of getrusage


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--video", default=str(ROOT / "data/sample.mp4"))
    return parser


class OneFace(S3FD):
    """Detector that runs its network but returns one face in the middle of every frame."""

    def detect_batch(
        self, images: np.ndarray, conf_th: float = 0.8, scales: Sequence[float] = (1,)
    ) -> list[np.ndarray]:
        """Run the detector on N x H x W x 3 frames; return one row of x1, y1, x2, y2, score per frame."""
        super().detect_batch(images, conf_th=conf_th, scales=scales)
        height, width = images.shape[1:3]
        half = height / 6
        box = [width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half, FACE_CONFIDENCE]
        return [torch.tensor([box]).numpy()] * len(images)


class Stopwatch:
    """Sum of the time in which at least one thread runs one of the watched methods.

    Attributes:
        seconds: The sum so far.
    """

    def __init__(self) -> None:
        self.seconds, self.inside, self.started = 0.0, 0, 0.0
        self.lock = threading.Lock()

    def count(self, step: int) -> None:
        """Count a thread that enters (1) or leaves (-1) a watched method."""
        with self.lock:
            if not self.inside:
                self.started = time.perf_counter()
            self.inside += step
            if not self.inside:
                self.seconds += time.perf_counter() - self.started

    def watch(self, owner: type, name: str) -> None:
        """Watch a method of a class, replacing it by a wrapper."""
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self.count(1)
            try:
                return function(*args, **kwargs)
            finally:
                self.count(-1)

        setattr(owner, name, timed)


def measure(name: str, function: Callable[[], Result], networks: Stopwatch) -> Result:
    """Run a step; print its time, the share outside the networks and the peak memory."""
    inside, started = networks.seconds, time.perf_counter()
    result = function()
    wall, inside = time.perf_counter() - started, networks.seconds - inside
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
    print(f"{name:13} {wall:7.1f} s, networks {inside:7.1f} s, outside {1 - inside / wall:6.1%}, peak {peak:6.0f} MB")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    networks = Stopwatch()
    networks.watch(FastS3FD, "forward")
    networks.watch(FastSyncNet, "video_features")
    networks.watch(FastSyncNet, "audio_features")
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clip, s3fd, syncnet = folder / "clip.mp4", folder / "s3fd.pt", folder / "syncnet.pt"
        scale = args.size.replace("x", ":")
        loop = ["-stream_loop", "-1", "-i", args.video, "-t", args.seconds]
        loop += ["-vf", f"scale={scale},setsar=1", "-r", "25"]
        Ffmpeg([*loop, "-preset", "ultrafast", *ERRORS_ONLY, clip], source=args.video).finish()
        torch.save(S3FDNet(args.width).state_dict(), s3fd)
        torch.save(S(width=args.width).state_dict(), syncnet)
        print(f"{args.seconds:g} s of {args.size}")
        layout = Layout(folder / "work", "clip")

        def run_pipeline():
            settings = pipeline.PipelineSettings(scene_threshold=1e9)
            return pipeline.run(clip, layout, settings, load_detector=lambda: OneFace("cpu", weights=s3fd))

        def run_syncnet():
            net = SyncNetInstance("cpu")
            net.loadParameters(syncnet)
            return score_step.run(layout, net, print_line=lambda line: None)

        measure("run_pipeline", run_pipeline, networks)
        measure("run_syncnet", run_syncnet, networks)


if __name__ == "__main__":
    main()
