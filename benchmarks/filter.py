"""How much faster the filter is than the suite's own three scripts, one video after the other; and 2 workers than 1.

    python -m benchmarks.filter
    python -m benchmarks.filter --videos 16 --seconds 5 --initial_model data/syncnet_v2.model
    python -m benchmarks.filter --videos 128 --seconds 0.9 --size 320x240 --min_track 10 --min_face_size 30 \\
        --facedet_scale 0.5 --skip_scripts    # videos that are less than one batch

Videos are made for it: rendered talking faces. Both ways use the same flags, and the scripts work as the
README's commands in a loop do, one video at a time. Their offsets and confidences must be the filter's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from syncnet.filter.local_engine import cores
from syncnet.models.weights import S3FD, SYNCNET, Default

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("run_pipeline.py", "run_syncnet.py", "run_visualise.py")
TOLERANCE = 1e-3  # of confidences: threads add up in another order


def get_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a video")
    parser.add_argument("--size", default="640x360", help="of the pictures")
    parser.add_argument("--input_dir", default="", help="videos to use instead of rendered ones")
    parser.add_argument("--max_workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="runs of each, of which the fastest counts")
    parser.add_argument("--initial_model", default=Default(SYNCNET.published))
    parser.add_argument("--s3fd_weights", default=Default(S3FD.published))
    parser.add_argument("--facedet_scale", type=float, default=0.25)
    parser.add_argument("--min_track", type=int, default=50)
    parser.add_argument("--min_face_size", type=int, default=50)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scripts_at_a_time", type=int, default=1, help="chains of the three scripts")
    parser.add_argument("--skip_scripts", action="store_true", help="only compare 1 worker with more")
    parser.add_argument("--skip_one", action="store_true", help="only compare with the scripts")
    return parser


def make_videos(folder, args):
    from training.face.make_sample import write_video
    from training.face.talking_face import render_scene

    width, height = map(int, args.size.split("x"))
    for number in range(args.videos):
        clip = render_scene(number, args.seconds, width=width, height=height, people=1, face_height=height // 3)
        write_video(folder / f"{number:03d}.mp4", clip.frames, clip.audio)


def call(script, *flags):
    subprocess.run([sys.executable, ROOT / script, "--quiet", *map(str, flags)], check=True, stdout=subprocess.DEVNULL)


def tracking(args):
    """Flags of what is found, which both ways share."""
    names = ("facedet_scale", "min_track", "min_face_size")
    return [word for name in names for word in (f"--{name}", getattr(args, name))]


def weights(args, *names):
    """Flags of the weights that the user named."""
    given = {name: getattr(args, name) for name in names}
    return [word for name, path in given.items() if not isinstance(path, Default) for word in (f"--{name}", path)]


def run_scripts(videos, work, args):
    """The scores of all videos by the three scripts."""

    def score(video):
        where = ("--videofile", video, "--reference", video.stem, "--data_dir", work)
        call(SCRIPTS[0], *where, *tracking(args), *weights(args, "s3fd_weights"), "--device", args.device)
        call(SCRIPTS[1], *where, *weights(args, "initial_model"), "--device", args.device)
        call(SCRIPTS[2], *where)
        report = json.loads((work / "pywork" / video.stem / "scores.json").read_text(encoding="utf-8"))
        return video.name, [(track["offset"], track["confidence"]) for track in report["tracks"]]

    with ThreadPoolExecutor(args.scripts_at_a_time) as pool:
        return dict(pool.map(score, sorted(videos.iterdir())))


def run_filter(videos, output, args, *, max_workers):
    """The scores of all videos by the filter."""
    folders = ("--input_dir", videos, "--output_dir", output, "--rescore", "always", "--transfer", "none")
    more = (*tracking(args), "--device", args.device, "--max_workers", max_workers)
    call("filter_videos_by_sync_score.py", *folders, *weights(args, "initial_model", "s3fd_weights"), *more)
    results = json.loads((output / "sync_filter_results.json").read_text(encoding="utf-8"))["results"]
    return {r["video_name"]: [(track["offset"], track["confidence"]) for track in r["all_tracks"]] for r in results}


def timed(function, repeat):
    """Shortest time of some runs in seconds, and what the last returned."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - started)
    return min(times), result


def check_equal(scores, others):
    """Whether two ways gave the same."""
    for name, tracks in scores.items():
        for (offset, confidence), (other_offset, other_confidence) in zip(tracks, others[name], strict=True):
            if offset != other_offset or abs(confidence - other_confidence) > TOLERANCE:
                raise SystemExit(
                    f"{name}: offset {offset}, confidence {confidence}; {other_offset}, {other_confidence}"
                )


def main(argv=None):
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
            check_equal(alone, scores)
            print(f"filter, 1 worker: {one:.1f} s")
            print(f"{args.max_workers} workers are {one / many:.2f} x as fast as 1")
        if args.skip_scripts:
            return
        scripts, expected = timed(lambda: run_scripts(videos, Path(folder) / "work", args), args.repeat)
        check_equal(expected, scores)
        print(f"three scripts, {args.scripts_at_a_time} videos at a time: {scripts:.1f} s")
        print(f"the filter is {scripts / many:.2f} x as fast")


if __name__ == "__main__":
    main()
