"""Frames per second of direct mode on a GPU, and what bounds them.

    python -m benchmarks.device
    python -m benchmarks.device --size 1280x720 --seconds 60

The video is data/sample.mp4, looped and scaled. "decode" is what the decoder gives alone, "prepare" also makes the
small pictures for scene cuts and copies the pictures to the GPU, and the rest is the whole of direct mode, with the
starter weights and with the same padded to the published size.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.direct import SAMPLE, looped
from benchmarks.padding import write_padded
from syncnet import score_video
from syncnet.defaults import PRECISIONS
from syncnet.errors import UsageError
from syncnet.media.grid import Grid
from syncnet.models.devices import select_device
from syncnet.steps.direct_pass import prepare


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--device", default="cuda")
    return parser


def report(name: str, frames: int, work: Callable[[], object]) -> None:
    """Print the frames per second of a piece of work."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    print(f"{name:28} {frames / seconds:8.1f} frames/s  {seconds / frames * 1000:6.2f} ms a frame", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    device = select_device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = looped(folder / "video.mp4", size=args.size, seconds=args.seconds)
        with Grid(video) as grid:
            frames = sum(1 for _ in grid)

        def decode(gpu) -> None:
            with Grid(video) as grid:
                for found in grid:
                    if gpu:
                        prepare(found.picture, gpu)

        report("decode", frames, lambda: decode(None))
        report("prepare", frames, lambda: decode(device))
        padded = dict(zip(("s3fd_weights", "initial_model"), write_padded(folder)))
        for label, weights in (("starter", {}), ("published size", padded)):
            for precision in PRECISIONS:

                def run(path, weights=weights, precision=precision) -> object:
                    return score_video(path, device=args.device, precision=precision, **weights)

                try:
                    run(SAMPLE)  # loads the networks
                except UsageError as error:
                    print(f"{label}, {precision}: {error}")
                    continue
                report(f"{label}, {precision}", frames, lambda run=run: run(video))


if __name__ == "__main__":
    main()
