"""Time the two networks in one process: the plain formulation against the suite's, in alternation.

    python -m benchmarks.networks [--rounds 7] [--device cpu]

Plain uses the modules as specified: SyncNet on 20 windows, and the detector on one frame, with its boxes decoded and
suppressed one by one. Ours gets a few batches, as the scripts pass them. Both use networks of published size with
random weights. Prints the rates of both, from median times, and their ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks.plain import detect
from detectors.s3fd import Detector
from detectors.s3fd.nets import S3FDNet
from syncnet.defaults import FACEDET_SCALE
from syncnet.faces.detect import CONFIDENCE, batch_size
from syncnet.models.devices import in_parallel, select_device
from syncnet.models.fast import FastS3FD, FastSyncNet
from SyncNetModel import LIP_WINDOW, S

SEED = 0
WINDOWS = 20
BATCHES = 4
FRAME_SIZES = {"540p": (540, 960), "1080p": (1080, 1920)}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    return parser


def time_in_turns(
    plain: Callable[[], object], ours: Callable[[], object], *, rounds: int, device: torch.device
) -> list[float]:
    """Return the median seconds of two functions that are run in turns."""
    times = {plain: [], ours: []}
    for index in range(rounds + 1):
        for function, taken in times.items():
            started = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if index:  # the first round warms up
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in times.values()]


def report(name: str, unit: str, plain: float, ours: float) -> None:
    """Print the rates of both ways, given their seconds per unit, and the ratio."""
    print(f"{name:22} plain {1 / plain:8.1f}  ours {1 / ours:8.1f} {unit}/s   ratio {plain / ours:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    device = select_device(args.device)
    torch.manual_seed(SEED)
    random = np.random.default_rng(SEED)

    net = S().eval().to(device)
    fast = FastSyncNet(S().eval(), device)
    batch = max(1, WINDOWS // fast.group) * fast.group
    _, frames, height, width = LIP_WINDOW
    clip = random.integers(0, 256, (batch + frames - 1, height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(clip).permute(0, 3, 1, 2).float()
    windows = torch.stack([planes[i : i + frames].transpose(0, 1) for i in range(min(WINDOWS, batch))]).to(device)
    audio_windows = random.standard_normal((WINDOWS, 1, 13, 20)).astype(np.float32)

    def plain_score():
        with torch.no_grad():
            net.forward_lip(windows), net.forward_aud(torch.from_numpy(audio_windows[: len(windows)]).to(device))

    def our_score():
        list(in_parallel(fast.video_features, [clip] * BATCHES, device))
        list(in_parallel(fast.audio_features, [audio_windows[:batch]] * BATCHES, device))

    plain, ours = time_in_turns(plain_score, our_score, rounds=args.rounds, device=device)
    report("scoring", "windows", plain / len(windows), ours / batch / BATCHES)

    for name, size in FRAME_SIZES.items():
        frame = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        detector = Detector(FastS3FD(S3FDNet(), device), device)
        plain_net = S3FDNet().eval().to(device)
        images = np.stack([frame] * batch_size(size[0] * size[1], FACEDET_SCALE))

        def our_detect(images, detector=detector):
            return detector.detect_batch(images, conf_th=CONFIDENCE, scales=[FACEDET_SCALE])

        plain, ours = time_in_turns(
            lambda frame=frame, net=plain_net: detect(net, frame, device),
            lambda images=images, detect=our_detect: list(in_parallel(detect, [images] * BATCHES, device)),
            rounds=args.rounds,
            device=device,
        )
        report(f"detection at {name}", "frames", plain, ours / len(images) / BATCHES)


if __name__ == "__main__":
    main()
