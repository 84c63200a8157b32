"""Speed of the two networks: the plain formulation against the suite's, in one process, turn by turn.

    python -m benchmarks.networks [--rounds 7] [--device cpu]

Plain is the modules as specified: SyncNet on 20 windows, the detector on one frame, its boxes decoded and suppressed
one by one. Ours gets a few batches, as the scripts hand them over. Both get published-size networks with random
weights. Prints medians, ratios, and what each does a second.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from benchmarks.plain import detect
from detectors.s3fd import Detector
from detectors.s3fd.nets import S3FDNet
from syncnet.defaults import FACEDET_SCALE
from syncnet.faces.detect import CONFIDENCE, batch_size
from syncnet.models.devices import in_lanes, select_device
from syncnet.models.fast import FastS3FD, FastSyncNet
from SyncNetModel import LIP_WINDOW, S

SEED = 0
WINDOWS = 20
BATCHES = 4
FRAME_SIZES = {"540p": (540, 960), "1080p": (1080, 1920)}


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    return parser


def race(plain, ours, *, rounds, device):
    """Median seconds of two functions, run in turns."""
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


def report(name, unit, plain, ours):
    print(f"{name:22} plain {1 / plain:8.1f}  ours {1 / ours:8.1f} {unit}/s   ratio {plain / ours:.2f}")


def main(argv=None):
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
    sound = random.standard_normal((WINDOWS, 1, 13, 20)).astype(np.float32)

    def plain_score():
        with torch.no_grad():
            net.forward_lip(windows), net.forward_aud(torch.from_numpy(sound[: len(windows)]).to(device))

    def our_score():
        list(in_lanes(fast.video_features, [clip] * BATCHES, device))
        list(in_lanes(fast.audio_features, [sound[:batch]] * BATCHES, device))

    plain, ours = race(plain_score, our_score, rounds=args.rounds, device=device)
    report("scoring", "windows", plain / len(windows), ours / batch / BATCHES)

    for name, size in FRAME_SIZES.items():
        frame = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        detector = Detector(FastS3FD(S3FDNet(), device), device)
        plain_net = S3FDNet().eval().to(device)
        images = np.stack([frame] * batch_size(size[0] * size[1], FACEDET_SCALE))

        def our_detect(images, detector=detector):
            return detector.detect_batch(images, conf_th=CONFIDENCE, scales=[FACEDET_SCALE])

        plain, ours = race(
            lambda frame=frame, net=plain_net: detect(net, frame, device),
            lambda images=images, detect=our_detect: list(in_lanes(detect, [images] * BATCHES, device)),
            rounds=args.rounds,
            device=device,
        )
        report(f"detection at {name}", "frames", plain, ours / len(images) / BATCHES)


if __name__ == "__main__":
    main()
