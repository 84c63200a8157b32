"""Time the two networks in one process: the plain formulation against the suite's, in alternation.

    python -m benchmarks.networks [--rounds 7] [--device cpu] [--windows 18 ...] [--frames 1 ...]

Plain uses the modules as specified: SyncNet on 20 windows, and the detector on one frame, with its boxes decoded and
suppressed one by one. Ours gets batches of the sizes given, several at a time as the scripts pass them, in float32 and,
where the device has instructions for it, in bfloat16. All use networks of published size with random weights. Frames
and windows are on the device already. Prints the milliseconds per window and per frame, from median times, and their
ratio to plain.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.plain import detect
from detectors.s3fd import Detector
from detectors.s3fd.nets import S3FDNet
from syncnet.cli import positive_int
from syncnet.constants import WINDOW_FRAMES
from syncnet.defaults import FACEDET_SCALE, PRECISIONS
from syncnet.errors import UsageError
from syncnet.faces.detect import CONFIDENCE, batch_size
from syncnet.models.devices import batch_factor, check_precision, full_float32, in_parallel, select_device
from syncnet.models.fast import FastS3FD, FastSyncNet
from SyncNetModel import AUDIO_WINDOW, LIP_WINDOW, S

SEED = 0
PLAIN_WINDOWS = 20
WINDOWS = 18
BATCHES = 4
GPU_FACTORS = (1, 4)  # on its batch size, which is tried beside that of a CPU
FRAME_SIZES = {"540p": (540, 960), "1080p": (1080, 1920)}

Work = Callable[[], object]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--windows", type=positive_int, nargs="+", help="windows per batch")
    parser.add_argument("--frames", type=positive_int, nargs="+", help="frames per batch")
    return parser


def median_times(works: dict[str, Work], *, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each of several functions that are run in turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for index in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if index:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def precisions(device: torch.device) -> list[str]:
    """Return the precisions that the device has, and print why it lacks others."""
    supported = []
    for name in PRECISIONS:
        try:
            supported.append(check_precision(name, device))
        except UsageError as error:
            print(f"{name} skipped: {error}")
    return supported


def batch_sizes(size: int, device: torch.device) -> list[int]:
    """Return the batch sizes to try, given that of a CPU."""
    larger = [] if batch_factor(device) == 1 else [size * batch_factor(device) * factor for factor in GPU_FACTORS]
    return [size, *larger]


def compare(
    name: str, plain: Work, ours: dict[str, Callable[[int], object]], sizes: Sequence[int], *, plain_size: int, **timing
) -> None:
    """Time a network and print a line per batch size.

    Args:
        name: the network and its unit.
        plain: the plain formulation of ``plain_size`` units.
        ours: per precision, a function that processes ``BATCHES`` batches of a size.
        sizes: batch sizes.
        plain_size: units that ``plain`` processes.
        timing: parameters of ``median_times``.
    """
    for size in sizes:
        works = {precision: partial(function, size) for precision, function in ours.items()}
        seconds = median_times({"plain": plain, **works}, **timing)
        base = seconds.pop("plain") / plain_size
        found = {precision: taken / size / BATCHES for precision, taken in seconds.items()}
        columns = [f"{precision} {value * 1000:8.3f} ({base / value:.2f})" for precision, value in found.items()]
        print(f"{name:28} batch {size:4}  plain {base * 1000:8.3f}  {'  '.join(columns)}", flush=True)


def repeated(function: Callable[[torch.Tensor], object], inputs: torch.Tensor, device: torch.device) -> None:
    """Apply a network to the same batch several times."""
    for _ in in_parallel(function, [inputs] * BATCHES, device):
        pass


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    device = select_device(args.device)
    torch.manual_seed(SEED)
    timing = {"rounds": args.rounds, "device": device}
    supported = precisions(device)

    net = S().eval().to(device)
    fast = {precision: FastSyncNet(S().eval(), device, precision=precision) for precision in supported}
    sizes = args.windows or batch_sizes(WINDOWS, device)
    most = max(*sizes, PLAIN_WINDOWS)
    frames = torch.randint(0, 256, (most + WINDOW_FRAMES - 1, *LIP_WINDOW[2:], LIP_WINDOW[0]), dtype=torch.uint8)
    frames = frames.to(device)
    audio = torch.randn(most, *AUDIO_WINDOW, device=device)
    planes = frames[: PLAIN_WINDOWS + WINDOW_FRAMES - 1].permute(0, 3, 1, 2).float()
    windows = torch.stack([planes[i : i + WINDOW_FRAMES].transpose(0, 1) for i in range(PLAIN_WINDOWS)])

    with full_float32, torch.inference_mode():
        compare(
            "lip network, ms/window",
            lambda: net.forward_lip(windows),
            {
                p: lambda size, f=f: repeated(f.video_features, frames[: size + WINDOW_FRAMES - 1], device)
                for p, f in fast.items()
            },
            sizes,
            plain_size=PLAIN_WINDOWS,
            **timing,
        )
        compare(
            "audio network, ms/window",
            lambda: net.forward_aud(audio[:PLAIN_WINDOWS]),
            {p: lambda size, f=f: repeated(f.audio_features, audio[:size], device) for p, f in fast.items()},
            sizes,
            plain_size=PLAIN_WINDOWS,
            **timing,
        )
        plain_net = S3FDNet().eval().to(device)
        detectors = {p: Detector(FastS3FD(S3FDNet(), device, precision=p), device) for p in supported}
        for name, (height, width) in FRAME_SIZES.items():
            sizes = args.frames or batch_sizes(batch_size(height * width, FACEDET_SCALE), device)
            small = (round(height * FACEDET_SCALE), round(width * FACEDET_SCALE), 3)
            image = np.random.default_rng(SEED).integers(0, 256, small, dtype=np.uint8)
            images = torch.from_numpy(image).to(device).expand(max(sizes), *small).contiguous()
            compare(
                f"detector at {name}, ms/frame",
                lambda image=image: detect(plain_net, image, device, scale=1),
                {
                    p: lambda size, d=d, images=images: repeated(
                        partial(d.detect_tensor, conf_th=CONFIDENCE), images[:size], device
                    )
                    for p, d in detectors.items()
                },
                sizes,
                plain_size=1,
                **timing,
            )


if __name__ == "__main__":
    main()
