"""Compare direct mode with published mode on real clips, in step and with their sound moved by some frames.

    python -m benchmarks.agreement
    python -m benchmarks.agreement --clips 40 --detect_every 10

Face crops are pasted on a plain frame, scaled so that faces have many sizes. Published mode runs as run_pipeline and
run_syncnet do, with the filter's lengths; its results are kept in --cache, because they do not change.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.moved import decoded_source, write_sound
from benchmarks.truth import CLIPS, REAL
from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.defaults import DETECT_EVERY, FILTER_MIN_FACE_SIZE, FILTER_MIN_TRACK
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from syncnet.results.layout import Layout

FACES = CLIPS.parent / "faces"
CANVAS = 640, 360
SIDES = 160, 220, 300, 350  # of a pasted crop, in pixels, in turn; its face has about 0.6 of that
MOVES = (0, -4, 4, -9, 9)  # frames by which the sound is early; every clip has the first and one of the others
SURE = 3.0  # confidence from which on an offset means something
VERDICTS = (4.0, 6.0, 8.0)
OFFSET_FRAMES, FAST_OFFSET_FRAMES = 1, 2  # largest difference up to, and above, FRAME_RATE
CORRELATION, SAME_VERDICTS = 0.95, 0.93
FAST = 25.5  # frames per second


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24, help="number of face crops (default: %(default)s)")
    parser.add_argument("--detect_every", type=int, default=DETECT_EVERY)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "syncnet-agreement")
    parser.add_argument("--media", type=Path, default=CLIPS, help="folder of the real clips (default: %(default)s)")
    parser.add_argument("--faces", type=Path, default=FACES, help="folder of the face crops (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print a line for every track")
    return parser


def chosen(faces: Path, count: int) -> list[Path]:
    """Return clips of as many people as possible, long enough for a track, in an order that mixes the sources."""
    with (faces / "index.tsv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if int(row["frames"]) > FILTER_MIN_TRACK]
    rows.sort(key=lambda row: hashlib.sha256(row["clip"].encode()).hexdigest())
    first = {row["person"]: row for row in reversed(rows)}
    return [faces / "clips" / row["clip"] for row in list(first.values())[:count]]


def moved(path: Path, folder: Path, move: int, *, side: int | None) -> Path:
    """Write a clip with its sound made ``move`` frames early; ``side``: paste the clip on a canvas, that large."""
    source = decoded_source(path)
    wav = write_sound(folder / "sound.wav", source, source.sound_rate, move * MILLISECONDS_PER_FRAME)
    width, height = CANVAS
    paste = f"scale={side}:{side},pad={width}:{height}:(ow-iw)/2:(oh-ih)/2:color=gray" if side else "null"
    file = folder / f"{path.stem}{move:+d}.mp4"
    maps = ("-map", "0:v", "-map", "1:a", "-vf", paste, "-crf", "16", "-preset", "veryfast", "-pix_fmt", "yuv420p")
    Ffmpeg(
        ["-i", path, "-i", wav, *maps, "-c:a", "aac", "-ar", "48000", "-shortest", *ERRORS_ONLY, file], source=path
    ).finish()
    return file


def published(file: Path, cache: Path) -> list[dict[str, Any]]:
    """Return the tracks that published mode finds in a file, from the cache if they are there."""
    kept = cache / f"{hashlib.sha256(file.read_bytes()).hexdigest()}.json"
    if not kept.exists():
        from syncnet.steps import pipeline, score

        settings = pipeline.PipelineSettings(min_track=FILTER_MIN_TRACK, min_face_size=FILTER_MIN_FACE_SIZE)
        detector, net = networks()
        with tempfile.TemporaryDirectory() as folder:
            layout = Layout(folder, "clip")
            pipeline.run(file, layout, settings, load_detector=lambda: detector)
            report = score.run(layout, net, print_line=lambda line: None).report
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(report["tracks"]))
    return json.loads(kept.read_text())


_networks: list = []


def networks() -> tuple[Any, Any]:
    """Return the detector and SyncNet, loaded once."""
    if not _networks:
        from detectors import S3FD
        from SyncNetInstance import SyncNetInstance

        net = SyncNetInstance("cpu")
        net.loadParameters()
        _networks.extend((S3FD("cpu"), net))
    return _networks[0], _networks[1]


@dataclass(frozen=True)
class Pair:
    """A track in both modes; ``fast``: the video has more than ``FRAME_RATE`` frames a second."""

    file: str
    published: dict[str, Any]
    direct: dict[str, Any] | None
    fast: bool


def overlap(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Return the number of frames that two tracks share."""
    return min(one["last_frame"], other["last_frame"]) - max(one["first_frame"], other["first_frame"]) + 1


def pairs(args: argparse.Namespace) -> Iterator[Pair]:
    """Yield the scored tracks of published mode, each with the track of direct mode that shares most frames with it.

    Two faces of the same time are told apart by the sizes of their boxes.
    """
    from syncnet import score_video

    media = [(args.media / name, None, MOVES) for name in REAL]
    crops = [
        (path, SIDES[index % len(SIDES)], (MOVES[0], MOVES[1 + index % (len(MOVES) - 1)]))
        for index, path in enumerate(chosen(args.faces, args.clips))
    ]
    for path, side, moves in [*media, *crops]:
        fast = bool(1 / np.median(np.diff(source_times(path))) > FAST)
        for move in moves:
            with tempfile.TemporaryDirectory() as folder:
                file = moved(path, Path(folder), move, side=side)
                expected = published(file, args.cache)
                found = score_video(file, mode="direct", detect_every=args.detect_every).to_dict()["tracks"]
            left = list(found)
            for track in expected:
                best = max(left, default=None, key=lambda other: (overlap(track, other), -size_gap(track, other)))
                if best is not None and overlap(track, best) <= 0:
                    best = None
                if best is not None:
                    left.remove(best)
                if track["offset"] is not None:
                    yield Pair(file.name, track, best, fast)


def size_gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return how different the sizes of two tracks' faces are, in pixels."""
    return abs((one["mean_face_size"] or 0) - (other["mean_face_size"] or 0))


def source_times(path: Path) -> np.ndarray:
    """Return the time stamps of a file's frames, in seconds."""
    import av

    with av.open(str(path)) as container:
        return np.sort([float(p.pts * p.time_base) for p in container.demux(video=0) if p.pts is not None])


def line(pair: Pair) -> str:
    """Return a line about a track in both modes."""
    parts = [f"{pair.file:44}"]
    for track in (pair.published, pair.direct):
        if track is None or track["offset"] is None:
            parts.append("no score")
        else:
            frames = f"{track['first_frame']:4}-{track['last_frame']:4}"
            parts.append(f"{frames} offset {track['offset']:+3} confidence {track['confidence']:6.3f}")
    return "   ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    if not (args.media.is_dir() and args.faces.is_dir()):
        print(f"{args.media}, {args.faces}: not there: name folders of real clips", file=sys.stderr)
        return 1
    found = []
    for pair in pairs(args):
        found.append(pair)
        if args.list:
            print(line(pair), flush=True)
    both = [pair for pair in found if pair.direct is not None and pair.direct["offset"] is not None]
    lost = [pair for pair in found if pair not in both]
    sure = [pair for pair in both if pair.published["confidence"] >= SURE]
    apart = [
        pair
        for pair in sure
        if abs(pair.direct["offset"] - pair.published["offset"]) > (FAST_OFFSET_FRAMES if pair.fast else OFFSET_FRAMES)
    ]
    old, new = (np.array([getattr(p, mode)["confidence"] for p in both]) for mode in ("published", "direct"))
    correlation = np.corrcoef(old, new)[0, 1] if len(both) > 1 else np.nan
    same = {limit: float(((old >= limit) == (new >= limit)).mean()) for limit in VERDICTS}
    ends = [abs(p.direct[end] - p.published[end]) for p in both for end in ("first_frame", "last_frame")]
    far = [
        p
        for p in both
        if max(abs(p.direct[e] - p.published[e]) for e in ("first_frame", "last_frame")) > args.detect_every
    ]
    print(f"{len(found)} tracks in published mode, {len(both)} in both; confidence {SURE:g} or more: {len(sure)}")
    print(f"offset further apart than allowed: {len(apart)}")
    print(f"confidence: correlation {correlation:.3f}, mean difference {(new - old).mean():+.3f}")
    print("same verdict:", ", ".join(f"{share:.1%} at {limit:g}" for limit, share in same.items()))
    print(
        f"ends of tracks: up to {max(ends, default=0)} frames apart, more than {args.detect_every}: {len(far)} tracks"
    )
    for name, entries in (("no track in direct mode", lost), ("offset", apart), ("ends", far)):
        for pair in entries:
            print(f"{name}: {line(pair)}")
    reached = not (lost or apart or far) and correlation >= CORRELATION and min(same.values()) >= SAME_VERDICTS
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
