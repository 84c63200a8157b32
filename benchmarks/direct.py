"""Time direct mode against published mode, as whole processes in alternation.

    python -m benchmarks.direct
    python -m benchmarks.direct --rounds 3 --skip_filter
    python -m benchmarks.direct --detect_every 10 --sizes 1920x1080

The video is data/sample.mp4, looped and scaled. The networks are the starter weights and the starter weights padded to
the published size (``benchmarks.padding``), which find the same faces. The filter's videos are rendered talking faces.
Glue is the time per frame in which no network runs; it is measured in this process, because it needs a stopwatch.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.filter import make_videos
from benchmarks.padding import write_padded
from benchmarks.stages import Stopwatch
from syncnet.constants import FRAME_RATE
from syncnet.defaults import BFLOAT16, DETECT_EVERY, DIRECT, FLOAT32, PUBLISHED
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from syncnet.models.weights import ROOT, S3FD, SYNCNET

SAMPLE = ROOT / "data/sample.mp4"
STARTER, PADDED = "starter", "published size"
GLUE_LIMIT_MS = 6.0  # per frame
# factor by which direct mode has to be faster, by networks, precision and height of the video
WANTED = {
    (PADDED, BFLOAT16, 1080): 5.0,
    (PADDED, BFLOAT16, 540): 3.5,
    (PADDED, FLOAT32, 1080): 3.5,
    (PADDED, FLOAT32, 540): 2.5,
    (STARTER, FLOAT32, 1080): 2.5,
    (STARTER, FLOAT32, 540): 2.5,
}
WANTED_FILTER = 2.5


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the video")
    parser.add_argument("--sizes", nargs="+", default=["1920x1080", "960x540"], help="frame sizes, WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, in alternation; the median counts")
    parser.add_argument("--precision", nargs="+", default=[FLOAT32, BFLOAT16], choices=[FLOAT32, BFLOAT16])
    parser.add_argument("--detect_every", type=int, default=DETECT_EVERY)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--videos", type=int, default=16, help="videos for the filter")
    parser.add_argument("--max_workers", type=int, default=2, help="of the filter")
    parser.add_argument("--skip_padded", action="store_true", help="only the starter weights")
    parser.add_argument("--skip_filter", action="store_true")
    parser.add_argument("--skip_glue", action="store_true")
    return parser


def looped(path: Path, *, size: str, seconds: float) -> Path:
    """Write ``SAMPLE``, looped and scaled, and return the path."""
    scale = f"scale={size.replace('x', ':')},setsar=1"
    loop = ["-stream_loop", "-1", "-i", SAMPLE, "-t", seconds, "-vf", scale, "-preset", "veryfast"]
    Ffmpeg([*loop, *ERRORS_ONLY, path], source=SAMPLE).finish()
    return path


def seconds_of(*command: object) -> float | None:
    """Run a Python program; return its seconds, or None, with its last line printed, if it refused its flags."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    taken = time.perf_counter() - started
    if done.returncode:
        print(f"{command[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    return taken


def alternated(runs: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each run by name; those that failed are missing."""
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds = run()
            if seconds is not None:
                taken.setdefault(name, []).append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def compare(label: str, taken: dict[str, float], wanted: dict[str, float]) -> bool:
    """Print how much faster than published mode the other runs were; return whether all were fast enough."""
    fast = True
    for name, seconds in taken.items():
        if name == PUBLISHED or PUBLISHED not in taken:
            continue
        ratio, least = taken[PUBLISHED] / seconds, wanted.get(name, 1.0)
        fast &= ratio >= least
        print(
            f"{label:32} {name:9} {seconds:6.1f} s, published {taken[PUBLISHED]:6.1f} s: {ratio:5.2f} x "
            f"(at least {least:g})",
            flush=True,
        )
    return fast


def compare_videos(args: argparse.Namespace, folder: Path) -> bool:
    """Compare both modes of score_video on the looped sample; return whether direct mode was fast enough."""
    networks = {STARTER: (ROOT / S3FD.starter, ROOT / SYNCNET.starter)}
    if not args.skip_padded:
        networks[PADDED] = write_padded(folder)
    fast = True
    for size in args.sizes:
        video, height = looped(folder / f"{size}.mp4", size=size, seconds=args.seconds), int(size.split("x")[1])
        for name, (s3fd, syncnet) in networks.items():
            flags = ("--videofile", video, "--s3fd_weights", s3fd, "--initial_model", syncnet)
            flags = ("score_video.py", *flags, "--device", args.device, "--quiet", "--mode")
            runs: dict[str, Callable[[], float | None]] = {PUBLISHED: lambda flags=flags: seconds_of(*flags, PUBLISHED)}
            for precision in args.precision:
                more = (DIRECT, "--precision", precision, "--detect_every", args.detect_every)
                runs[precision] = lambda flags=flags, more=more: seconds_of(*flags, *more)
            wanted = {p: WANTED.get((name, p, height), 1.0) for p in args.precision}
            fast &= compare(f"{args.seconds:g} s of {size}, {name}", alternated(runs, args.rounds), wanted)
    return fast


def compare_filter(args: argparse.Namespace, folder: Path) -> bool:
    """Compare both modes of the filter on videos of 5 s; return whether direct mode was fast enough."""
    videos = folder / "videos"
    videos.mkdir()
    make_videos(videos, Namespace(videos=args.videos, seconds=5.0, size="640x360"))
    flags = ("filter_videos_by_sync_score.py", "--input_dir", videos, "--rescore", "always", "--transfer", "none")
    flags += ("--device", args.device, "--max_workers", args.max_workers, "--quiet")

    def run(mode: str, *more: object) -> Callable[[], float | None]:
        return lambda: seconds_of(*flags, "--output_dir", folder / f"filtered-{mode}", "--mode", mode, *more)

    runs = {PUBLISHED: run(PUBLISHED), DIRECT: run(DIRECT, "--detect_every", args.detect_every)}
    return compare(f"filter, {args.videos} videos of 5 s", alternated(runs, args.rounds), {DIRECT: WANTED_FILTER})


def glue(args: argparse.Namespace, folder: Path) -> bool:
    """Print the milliseconds per frame in which no network runs, at the first size; return whether they are few."""
    from syncnet import score_video
    from syncnet.models.fast import FastS3FD, FastSyncNet

    networks = Stopwatch()
    networks.watch(FastS3FD, "forward")
    for name in ("video_features", "audio_features", "lip_features"):
        networks.watch(FastSyncNet, name)
    video = looped(folder / "glue.mp4", size=args.sizes[0], seconds=args.seconds)
    score_video(SAMPLE, mode=DIRECT, device=args.device)  # loads the networks
    networks.seconds, started = 0.0, time.perf_counter()
    score_video(video, mode=DIRECT, device=args.device, detect_every=args.detect_every)
    wall = time.perf_counter() - started
    outside = (wall - networks.seconds) / (args.seconds * FRAME_RATE) * 1000
    print(f"glue: {outside:.1f} ms a frame at {args.sizes[0]} (at most {GLUE_LIMIT_MS:g})")
    return outside <= GLUE_LIMIT_MS


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reached = compare_videos(args, folder)
        if not args.skip_filter:
            reached &= compare_filter(args, folder)
        if not args.skip_glue:
            reached &= glue(args, folder)
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
