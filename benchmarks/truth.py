"""Measure how far direct mode's ``lag_ms`` is from the truth, in files of many kinds.

    python -m benchmarks.truth
    python -m benchmarks.truth --full --json truth.json
    python -m benchmarks.truth --truth_only                 # only make the files and print where their streams lie

The people are rendered, one picture for the exact time of every frame, and in step by construction: those of
data/sample.mp4, and with --full others. Their sound is moved by known amounts. What is true of a file is measured by
``benchmarks.moved``, without the suite. Real clips, whose own lag nobody knows, have their sound moved in steps, which
must be followed. A lag is positive if the sound is early.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.moved import (
    MOVES_MS,
    Case,
    Source,
    Truth,
    container_cases,
    decoded_source,
    make,
    measure,
    rate_cases,
    sound_cases,
    time_stamp_cases,
    write_sound,
)
from syncnet.constants import MILLISECONDS_PER_FRAME, SAMPLE_RATE
from syncnet.errors import MediaError
from syncnet.media.ffmpeg import ERRORS_ONLY, Ffmpeg
from training.face.make_sample import GRAIN, PAUSE, SHOTS, SIZE
from training.face.person import Person
from training.face.talking_face import render_scene
from training.face.voice import CONTROL_RATE, SHUTTER, Speech, Voice, speak

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT.parent / "shared/media"
REAL = ("doctor.mp4", "two_faces.avi")
STEPS_MS = range(-60, 61, 20)
FOLLOWED_MS = 4.0
MOSTLY_MS, ALWAYS_MS, MOSTLY = 5.0, 12.0, 0.9
SAMPLE = "sample"
PEOPLE = {SAMPLE: SHOTS}
for _seed in (11, 12, 13, 14):  # seed, seconds, persons, index of the speaker, voice, face height, as in SHOTS
    _voice = Voice.random(np.random.default_rng(_seed), feminine=Person.random(_seed).feminine)
    PEOPLE[f"person {_seed}"] = ((_seed, 8.0, (_seed,), 0, _voice, 150),)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more people, and every move at every frame rate")
    parser.add_argument("--kind", help="only the files of this kind")
    parser.add_argument("--truth_only", action="store_true", help="do not score the files")
    parser.add_argument("--list", action="store_true", help="print a line for every file")
    parser.add_argument("--json", type=Path, help="file for all results")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of the real clips (default: %(default)s)")
    return parser


def speak_at(times: np.ndarray, seconds: float, **voice: Any) -> Speech:
    """Synthesise speech whose positions of the mouth are those of frames at some times.

    A frame shows the same moments as one of ``FRAME_RATE`` of the same time would.

    Args:
        times: times of the frames in seconds.
        seconds: length.
        voice: further arguments of ``speak``.
    """
    fine = speak(seconds, frame_rate=CONTROL_RATE, **voice)
    total = np.concatenate(
        [np.zeros((1, fine.articulation.shape[1])), np.cumsum(fine.articulation, axis=0, dtype=float)]
    )
    grid = np.arange(len(total))
    first = times * CONTROL_RATE + (1 - SHUTTER) / 2 * MILLISECONDS_PER_FRAME
    first = np.minimum(first, len(total) - 2.0)
    last = np.minimum(first + SHUTTER * MILLISECONDS_PER_FRAME, len(total) - 1.0)
    part = [(np.interp(last, grid, curve) - np.interp(first, grid, curve)) / (last - first) for curve in total.T]
    return Speech(fine.audio, np.stack(part, axis=1).astype(np.float32))


def render(shots: Sequence[tuple], times: np.ndarray) -> Source:
    """Render shots like ``make_sample.SHOTS``, one frame for each of the given times."""
    frames, sound, start = [], [], 0.0
    for seed, seconds, people, talking, voice, height in shots:
        inside = times[(times >= start) & (times < start + seconds)] - start
        clip = render_scene(
            seed,
            seconds,
            width=SIZE[0],
            height=SIZE[1],
            persons=[Person.random(who) for who in people],
            talking=talking,
            speech=speak_at(inside, seconds, seed=seed, voice=voice, pause=PAUSE),
            face_height=height,
            grain=GRAIN,
            times=inside,
        )
        frames.append(clip.frames)
        sound.append(clip.audio)
        start += seconds
    kept = times[times < start]
    audio = np.concatenate(sound) / (np.iinfo(np.int16).max + 1)
    return Source(np.concatenate(frames), kept, kept, audio, SAMPLE_RATE)


@lru_cache(maxsize=2)
def rendered(person: str, rate: Any) -> Source:
    """Return the source of a name in ``PEOPLE`` at a frame rate; None for a variable rate."""
    shots = PEOPLE[person]
    return render(shots, Case("", rate=rate).times(sum(shot[1] for shot in shots)))


def cases(*, full: bool) -> Iterator[tuple[str, Case]]:
    """Yield the files and the names of the people in them, those of the same source in a row."""
    found: list[tuple[str, Case]] = []
    for index, person in enumerate(PEOPLE if full else [SAMPLE]):
        moves = [move for move in MOVES_MS if move] if full and not index else [MOVES_MS[index], MOVES_MS[-1 - index]]
        files = rate_cases(moves)
        moved = MOVES_MS[(3 * index + 1) % len(MOVES_MS)]
        files += [*container_cases(moved), *sound_cases(-moved // 5 * 5), *time_stamp_cases(75)]
        found += [(person, case) for case in files]
    yield from sorted(found, key=lambda entry: (entry[0], str(entry[1].rate)))


def lag_of(path: Path) -> float | None:
    """Return what direct mode says of a file: milliseconds by which the sound is early, or None."""
    from syncnet import score_video

    return score_video(path, mode="direct").to_dict()["lag_ms"]


def files(*, full: bool, kind: str | None, lag: Callable[[Path], float | None]) -> Iterator[dict[str, Any]]:
    """Make and measure the files, and yield a record of each."""
    own: dict[str, float | None] = {}
    for person, case in cases(full=full):
        if kind not in (None, case.kind):
            continue
        with tempfile.TemporaryDirectory() as folder:
            if person not in own:
                plain = Case("", "mkv", "flac", SAMPLE_RATE)
                own[person] = lag(make(plain, rendered(person, plain.rate), Path(folder), name="own"))
            source = rendered(person, case.rate)
            try:
                path = make(case, source, Path(folder))
            except MediaError as error:  # not every ffmpeg has every encoder
                print(f"{case}: not made: {error}", file=sys.stderr)
                continue
            truth = measure(path, source, stream=case.stream)
            found = lag(path)
        yield record(person, case, truth, found, own[person])


def record(person: str, case: Case, truth: Truth, lag_ms: float | None, own_ms: float | None) -> dict[str, Any]:
    """Return the result of a file; ``own_ms`` is the lag of the same people in an unmoved lossless file."""
    error = None if lag_ms is None else lag_ms - truth.lag_ms
    apart = None if error is None or own_ms is None else error - own_ms
    result = {"person": person, "kind": case.kind, "file": str(case), "lag_ms": lag_ms, "error_ms": error}
    return {**result, "error_without_own_ms": apart, "truth": asdict(truth), "move_ms": case.move_ms}


def steps(path: Path, lag: Callable[[Path], float | None]) -> list[float | None]:
    """Return how far off direct mode follows a clip's sound that is moved by ``STEPS_MS``, in milliseconds."""
    source, found = decoded_source(path), {}
    with tempfile.TemporaryDirectory() as folder:
        for move in STEPS_MS:
            wav = write_sound(Path(folder) / "moved.wav", source, source.sound_rate, move)
            moved = Path(folder) / "moved.mkv"
            maps = ("-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "flac")
            Ffmpeg(["-i", path, "-i", wav, *maps, *ERRORS_ONLY, moved], source=path).finish()
            found[move] = lag(moved)
    zero = found[0]
    return [None if zero is None or value is None else value - zero - move for move, value in found.items()]


def table(records: Sequence[dict[str, Any]], name: str) -> Iterator[str]:
    """Yield the lines of a table of errors by kind, and of all."""
    yield f"{'kind':18} {'files':>5} {'no lag':>6} {'within 5 ms':>11} {'within 12 ms':>12} {'mean':>6} {'largest':>7}"
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in records:
        groups[entry["kind"]].append(entry)
    for kind, entries in [*groups.items(), ("all", list(records))]:
        errors = np.array([entry[name] for entry in entries if entry[name] is not None])
        sizes = np.abs(errors) if len(errors) else np.array([np.nan])
        mostly, always = ((sizes < limit).sum() / len(entries) for limit in (MOSTLY_MS, ALWAYS_MS))
        mean = errors.mean() if len(errors) else np.nan
        yield (
            f"{kind:18} {len(entries):5} {len(entries) - len(errors):6} {mostly:11.0%} {always:12.0%} {mean:6.1f} "
            f"{sizes.max():7.1f}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    lag = (lambda path: None) if args.truth_only else lag_of
    records = []
    for entry in files(full=args.full, kind=args.kind, lag=lag):
        records.append(entry)
        if args.list or args.truth_only:
            truth, error = entry["truth"], entry["error_ms"]
            found = "" if error is None else f", error {error:+.1f}"
            print(
                f"{entry['person']:10} {entry['file']:60} lag {truth['lag_ms']:+7.1f} (moved {entry['move_ms']:+4}; "
                f"sound {truth['sound_ms']:+8.2f}, pictures {truth['picture_ms']:+8.2f} +- {truth['spread_ms']:.2f})"
                f"{found}",
                flush=True,
            )
    real = {}
    if not args.truth_only:
        print("lag_ms against the truth, in milliseconds:", *table(records, "error_ms"), sep="\n")
        print(
            "without the same people's lag in an unmoved lossless file:",
            *table(records, "error_without_own_ms"),
            sep="\n",
        )
        for name in REAL if args.kind is None else ():
            clip = args.clips / name
            if not clip.exists():
                print(f"{clip}: not there, not measured", file=sys.stderr)
                continue
            real[name] = steps(clip, lag)
            print(name, "moved by", *STEPS_MS, "ms: off by", *("-" if e is None else f"{e:+.1f}" for e in real[name]))
    if args.json:
        args.json.write_text(json.dumps({"files": records, "real": real}, indent=1))
    if args.truth_only:
        return 0
    errors = np.array([np.inf if entry["error_ms"] is None else abs(entry["error_ms"]) for entry in records])
    followed = all(e is not None and abs(e) <= FOLLOWED_MS for errors_of in real.values() for e in errors_of)
    reached = (errors <= MOSTLY_MS).mean() >= MOSTLY and errors.max() <= ALWAYS_MS and followed
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
