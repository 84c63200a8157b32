"""Measure how much faster the filter is than the suite's three scripts, and than itself with one worker.

    python -m benchmarks.filter
    python -m benchmarks.filter --videos 16 --seconds 5 --initial_model data/syncnet_v2.model
    python -m benchmarks.filter --videos 128 --seconds 0.9 --size 320x240 --min_track 10 --min_face_size 30 \\
        --facedet_scale 0.5 --skip_scripts    # videos shorter than one batch

The videos are rendered talking faces. Both ways use the same flags; the scripts run like the README's commands in a
loop, one video after the other. Their offsets and confidences must equal the filter's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from syncnet.filter.local_engine import cores
from syncnet.models.weights import S3FD, SYNCNET, Default

Result = TypeVar("Result")
Scores = Sequence[tuple[int, float]]  # offset and confidence of every track

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("run_pipeline.py", "run_syncnet.py", "run_visualise.py")
TOLERANCE = 1e-3  # of confidences: threads sum in another order


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a video")
    parser.add_argument("--size", default="640x360", help="frame size, WIDTHxHEIGHT")
    parser.add_argument("--input_dir", default="", help="videos to use instead of rendered ones")
    parser.add_argument("--max_workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each; the fastest counts")
    parser.add_argument("--initial_model", default=Default(SYNCNET.published))
    parser.add_argument("--s3fd_weights", default=Default(S3FD.published))
    parser.add_argument("--facedet_scale", type=float, default=0.25)
    parser.add_argument("--min_track", type=int, default=50)
    parser.add_argument("--min_face_size", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scripts_at_a_time", type=int, default=1, help="videos that the scripts process in parallel")
    parser.add_argument("--skip_scripts", action="store_true", help="compare only 1 worker with more")
    parser.add_argument("--skip_one", action="store_true", help="compare only with the scripts")
    return parser


def make_videos(folder: Path, args: argparse.Namespace) -> None:
    """Render the videos into a folder."""
    from training.face.make_sample import write_video
    from training.face.talking_face import render_scene

    width, height = map(int, args.size.split("x"))
    for number in range(args.videos):
        clip = render_scene(number, args.seconds, width=width, height=height, people=1, face_height=height // 3)
        write_video(folder / f"{number:03d}.mp4", clip.frames, clip.audio)


def call(script: str, *flags: object) -> None:
    """Run a script of the suite."""
    subprocess.run([sys.executable, ROOT / script, "--quiet", *map(str, flags)], check=True, stdout=subprocess.DEVNULL)


def tracking(args: argparse.Namespace) -> list:
    """Return the flags of detection and tracking, which both ways share."""
    names = ("facedet_scale", "min_track", "min_face_size")
    return [word for name in names for word in (f"--{name}", getattr(args, name))]


def weights(args: argparse.Namespace, *names: str) -> list:
    """Return the flags of the weights that the user gave."""
    given = {name: getattr(args, name) for name in names}
    return [word for name, path in given.items() if not isinstance(path, Default) for word in (f"--{name}", path)]


def run_scripts(videos: Path, work: Path, args: argparse.Namespace) -> dict[str, Scores]:
    """Return the scores of all videos, by name, from the three scripts."""

    def score(video):
        where = ("--videofile", video, "--reference", video.stem, "--data_dir", work)
        call(SCRIPTS[0], *where, *tracking(args), *weights(args, "s3fd_weights"), "--device", args.device)
        call(SCRIPTS[1], *where, *weights(args, "initial_model"), "--device", args.device)
        call(SCRIPTS[2], *where)
        report = json.loads((work / "pywork" / video.stem / "scores.json").read_text(encoding="utf-8"))
        return video.name, [(track["offset"], track["confidence"]) for track in report["tracks"]]

    with ThreadPoolExecutor(args.scripts_at_a_time) as pool:
        return dict(pool.map(score, sorted(videos.iterdir())))


def run_filter(videos: Path, output: Path, args: argparse.Namespace, *, max_workers: int) -> dict[str, Scores]:
    """Return the scores of all videos, by name, from the filter."""
    folders = ("--input_dir", videos, "--output_dir", output, "--rescore", "always", "--transfer", "none")
    more = (*tracking(args), "--device", args.device, "--max_workers", max_workers)
    call("filter_videos_by_sync_score.py", *folders, *weights(args, "initial_model", "s3fd_weights"), *more)
    results = json.loads((output / "sync_filter_results.json").read_text(encoding="utf-8"))["results"]
    return {r["video_name"]: [(track["offset"], track["confidence"]) for track in r["all_tracks"]] for r in results}


def timed(function: Callable[[], Result], repeat: int) -> tuple[float, Result]:
    """Return the shortest time of ``repeat`` calls in seconds, and the last result."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - started)
    return min(times), result


def check_equal(name: str, expected: Scores, found: Scores, *, tolerance: float = TOLERANCE) -> None:
    """Exit with an error unless two ways gave the same tracks, offsets and, within a tolerance, confidences.

    Args:
        name: Name of the video or step, for the message.
        expected: Offset and confidence of every track.
        found: Offset and confidence of every track, the other way.
        tolerance: Largest difference of confidences.

    Raises:
        SystemExit: They differ.
    """
    equal = [one[0] for one in expected] == [other[0] for other in found]
    if not equal or any(abs(one[1] - other[1]) > tolerance for one, other in zip(expected, found)):
        raise SystemExit(f"{name}: expected offsets and confidences {expected}, found {found}")


def check_all_equal(expected: dict[str, Scores], found: dict[str, Scores]) -> None:
    """Compare the scores of all videos with ``check_equal``."""
    for name, tracks in expected.items():
        check_equal(name, tracks, found[name])


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(args.input_dir or Path(folder) / "videos")
        if not args.input_dir:
            videos.mkdir()
            make_videos(videos, args)
        print(f"{len(list(videos.iterdir()))} videos, {cores()} cores")
        output = Path(folder) / "filtered"
        many, scores = timed(lambda: run_filter(videos, output, args, max_workers=args.max_workers), args.repeat)
        print(f"filter, {args.max_workers} workers: {many:.1f} s   ({sum(map(len, scores.values()))} tracks)")
        if not args.skip_one:
            one, alone = timed(lambda: run_filter(videos, output, args, max_workers=1), args.repeat)
            check_all_equal(alone, scores)
            print(f"filter, 1 worker: {one:.1f} s")
            print(f"{args.max_workers} workers are {one / many:.2f} x as fast as 1")
        if args.skip_scripts:
            return
        scripts, expected = timed(lambda: run_scripts(videos, Path(folder) / "work", args), args.repeat)
        check_all_equal(expected, scores)
        print(f"three scripts, {args.scripts_at_a_time} videos at a time: {scripts:.1f} s")
        print(f"the filter is {scripts / many:.2f} x as fast")


if __name__ == "__main__":
    main()
