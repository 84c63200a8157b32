"""Measure what is left of a lag after it was taken out, in files of many containers.

    python -m benchmarks.correction
    python -m benchmarks.correction --full --list --json correction.json

Rendered people, who are in step by construction, and two real clips have their sound moved by known amounts, in its
samples or by its time stamps, and are corrected by ``syncnet.correct_offset``. What is left is measured by
``benchmarks.moved``, without the suite, twice: by time stamps, and as a reader without them does, who counts frames at
the nominal rate and samples from 0. Of rendered people the whole rest counts; of a real clip, whose own lag nobody
knows, what differs from the lag of the unmoved clip. A lag is positive if the sound is early.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from scipy.signal import fftconvolve, resample_poly

from benchmarks.moved import MILLISECONDS, Case, Source, decoded_source, delay, make, measure, read_sound, regular
from benchmarks.truth import CLIPS, PAUSE, REAL, lag_of, rendered
from syncnet.constants import FRAME_RATE, SAMPLE_RATE
from syncnet.errors import SyncNetError
from syncnet.media.resync import move_sound
from syncnet.steps.correct import Correction
from training.face.make_sample import GRAIN
from training.face.person import Person
from training.face.talking_face import render_scene
from training.face.voice import Voice, speak

MOVES_MS = (-800, -370, -120, -45, 30, 90, 240, 480)
SEARCHED_MS, WIDE_MS = 560, 1000  # a larger lag needs the wider search
KINDS = SAMPLES, TIME_STAMPS = "samples", "time stamps"
CONTAINERS: dict[str, dict[str, Any]] = {
    "mp4, AAC": {"extension": "mp4", "audio": "aac"},
    "mkv, FLAC": {"extension": "mkv", "audio": "flac"},
    "mkv, Opus": {"extension": "mkv", "audio": "libopus"},
    "mov, PCM": {"extension": "mov", "audio": "pcm_s16le"},
    "webm, Opus": {"extension": "webm", "audio": "libopus", "video": "libvpx"},
    "ts, AAC": {"extension": "ts", "audio": "aac"},
}
DRIFTING = ("mp4, AAC", "mkv, FLAC")
SUBTITLES = {"mp4": "mov_text", "mov": "mov_text", "mkv": "srt"}
HAVE_CHAPTERS = (*SUBTITLES, "webm")
TITLE = "Moved on purpose"
NOTHING_SAID = b"\0\0"  # fills the time between subtitles in mp4 and mov
SAID = "1\n00:00:01,000 --> 00:00:02,000\nFirst\n\n2\n00:00:03,000 --> 00:00:04,500\nSecond\n"
CHAPTERS = "".join(
    f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={end}\ntitle={title}\n"
    for start, end, title in ((0, 2500, "Begin"), (2500, 5000, "End"))
)
SAME_TIME_MS = 2.0  # of subtitles, chapters and pictures, relative to the first picture
RATES = {"person 11": FRAME_RATE, "person 12": Fraction(30000, 1001)}
FURTHER_RATES = {"person 13": 24, "person 14": 50}  # with --full
MOSTLY_MS, ALWAYS_MS, MOSTLY = 6.0, 12.0, 0.9
IRREGULAR_MS = 2.0  # by which time stamps of pictures are not those of the nominal rate, on average
TIME_ALLOWANCE = 1.1  # the same work takes that much longer now and then

DRIFT_S, DRIFT_SEED = 60.0, 21
DRIFT_SIZE, DRIFT_FACE = (256, 192), 110  # small frames: only the length matters
DRIFT = Fraction(1, 1000)
DRIFT_MOVES_MS = (90, -120)
DRIFT_LEFT_MS = 20.0
END_S = 5.0  # of each end
DRIFTS = np.linspace(-2e-3, 2e-3, 17)  # that an end may have: without it, it is like the source nowhere

Record = dict[str, Any]


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every move in every container, and more people")
    parser.add_argument("--only", default="", help="only the files whose container has this in its name")
    parser.add_argument("--list", action="store_true", help="print a line for every file")
    parser.add_argument("--json", type=Path, help="file for all results")
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of the real clips (default: %(default)s)")
    return parser


@dataclass(frozen=True)
class Contents:
    """What a correction must keep.

    Attributes:
        packets: hash of every packet of the pictures.
        times: their time stamps after the first one's, in milliseconds.
        subtitles: start in milliseconds, and content.
        chapters: start in milliseconds, and title.
        title: the tag.
    """

    packets: list[str]
    times: list[float]
    subtitles: list[tuple[float, bytes]]
    chapters: list[tuple[float, str]]
    title: str | None

    def differs(self, other: Contents) -> list[str]:
        """Return the names of what is not the same in another file."""
        found = [name for name in ("packets", "title") if getattr(self, name) != getattr(other, name)]
        if not close(self.times, other.times):
            found.append("times")
        for name in ("subtitles", "chapters"):
            ours, theirs = getattr(self, name), getattr(other, name)
            same = [text for _, text in ours] == [text for _, text in theirs]
            if not same or not close([at for at, _ in ours], [at for at, _ in theirs]):
                found.append(name)
        return found


def close(times: Sequence[float], others: Sequence[float]) -> bool:
    """Tell whether times in milliseconds are the same."""
    return len(times) == len(others) and bool(np.allclose(times, others, rtol=0, atol=SAME_TIME_MS))


def contents(path: Path) -> Contents:
    """Read what a correction must keep; times are relative to the first picture."""
    packets, times, subtitles = [], [], []
    with av.open(str(path)) as container:
        for packet in container.demux():
            if not packet.size or packet.pts is None:
                continue
            at = float(packet.pts * packet.time_base) * MILLISECONDS
            if packet.stream.type == "video":
                packets.append(hashlib.sha256(bytes(packet)).hexdigest())
                times.append(at)
            elif packet.stream.type == "subtitle" and bytes(packet) != NOTHING_SAID:
                subtitles.append((at, bytes(packet)))
        chapters = [
            (float(entry["start"] * entry["time_base"]) * MILLISECONDS, entry["metadata"].get("title", ""))
            for entry in container.chapters()
        ]
        title = container.metadata.get("title")
    zero = min(times)
    return Contents(
        packets,
        [at - zero for at in sorted(times)],
        [(at - zero, text) for at, text in subtitles],
        [(max(0.0, at - zero), text) for at, text in chapters],
        title,
    )


def new_case(name: str, move_ms: int, kind: str, rate: Fraction, folder: Path) -> Case:
    """Return the case of a container, with the subtitles, chapters and tags that it holds."""
    form = CONTAINERS[name]
    extension = form["extension"]
    late = {"late_sound": -move_ms / MILLISECONDS} if kind == TIME_STAMPS else {"move_ms": move_ms}
    flags = ["-deadline", "realtime"] if form.get("video") == "libvpx" else []
    flags += ["-metadata", f"title={TITLE}"]
    others = []
    if extension in HAVE_CHAPTERS:
        others.append(folder / "chapters.txt")
        others[-1].write_text(f";FFMETADATA1\n{CHAPTERS}", encoding="utf-8")
        flags += ["-map_chapters", "2"]
    if extension in SUBTITLES:
        others.append(folder / "said.srt")
        others[-1].write_text(SAID, encoding="utf-8")
        flags += ["-map", "3:s", "-c:s", SUBTITLES[extension]]
    return Case(kind, **form, **late, rate=rate, flags=flags, others=others)


@dataclass(frozen=True)
class Subject:
    """Whom a file shows.

    Attributes:
        name: of the person or the clip.
        source: makes the pictures and the sound.
        rate: frames per second.
        real: whether it is a real clip.
    """

    name: str
    source: Callable[[], Source]
    rate: Fraction
    real: bool = False


def subjects(clips: Path, *, full: bool) -> list[Subject]:
    """Return the rendered people, and the real clips that are there."""
    rates = {**RATES, **(FURTHER_RATES if full else {})}
    found = [
        Subject(name, lambda name=name, rate=rate: rendered(name, Fraction(rate)), Fraction(rate))
        for name, rate in rates.items()
    ]
    for name in REAL:
        if not (clips / name).exists():
            print(f"{clips / name}: not there, not measured", file=sys.stderr)
            continue
        with av.open(str(clips / name)) as container:
            rate = container.streams.video[0].average_rate
        found.append(Subject(name, lambda path=clips / name: decoded_source(path), rate, real=True))
    return found


def plan(people: Sequence[Subject], *, full: bool) -> Iterator[tuple[Subject, str, int, str]]:
    """Yield whom each file shows, its container, move and kind; the files of a subject in a row."""
    names = list(CONTAINERS)
    shown = [who for who in people if not who.real]
    found = []
    for index, (name, kind) in enumerate((name, kind) for name in names for kind in KINDS):
        moves = MOVES_MS if full else MOVES_MS[(3 * index) % len(MOVES_MS) :][:1]
        found += [(shown[(index + at) % len(shown)], name, move, kind) for at, move in enumerate(moves)]
    for place, (who, kind) in enumerate((who, kind) for who in people if who.real for kind in KINDS):
        moves = MOVES_MS if full else MOVES_MS[(3 * place + 1) % len(MOVES_MS) :][:1]
        found += [(who, names[(place + at) % len(names)], move, kind) for at, move in enumerate(moves)]
    yield from sorted(found, key=lambda entry: people.index(entry[0]))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return a result and the seconds that it took."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def correct(path: Path, output: Path, *, lag_ms: float) -> tuple[Correction, str | None]:
    """Correct a file, and return what was done, and why it was refused: then it is moved by ``lag_ms`` all the same."""
    from syncnet import correct_offset

    search = {"max_lag": WIDE_MS} if abs(lag_ms) > SEARCHED_MS else {}
    try:
        return correct_offset(path, output, **search), None
    except SyncNetError as error:
        return correct_offset(path, output, delay_audio=lag_ms), str(error)


def record(who: Subject, name: str, move_ms: int, kind: str, *, own_ms: float, folder: Path, again: bool) -> Record:
    """Make a file, correct it, and return what is left of its lag.

    Args:
        who: whom it shows.
        name: of its container.
        move_ms: milliseconds by which its sound is early.
        kind: one of ``KINDS``.
        own_ms: lag that is measured of the same subject in an unmoved lossless file.
        folder: folder for the files.
        again: correct the result once more.
    """
    source = who.source()
    path = make(new_case(name, move_ms, kind, who.rate, folder), source, folder)
    output, copy, second = (path.with_stem(stem) for stem in ("corrected", "copy", "second"))
    before = measure(path, source)
    _, direct_s = timed(lambda: lag_of(path))
    (done, refused), seconds = timed(lambda: correct(path, output, lag_ms=before.lag_ms + own_ms))
    _, copy_s = timed(lambda: move_sound(path, copy, shift=done.shift))
    rest, known = measure(output, source).lag_ms, contents(path)
    found = {
        "who": who.name,
        "container": name,
        "kind": kind,
        "move_ms": move_ms,
        "lag_ms": before.lag_ms,
        "own_ms": own_ms,
        "refused": refused,
        "rounds": done.rounds,
        "notes": done.notes,
        "rest_ms": rest,
        "rest_without_own_ms": rest + own_ms,
        "left_ms": rest + own_ms if who.real else rest,
        "counted_ms": measure(output, source, count=True).lag_ms + (own_ms if who.real else 0),
        "irregular": irregular(known.times, who.rate),
        "changed": known.differs(contents(output)),
        "direct_s": direct_s,
        "correct_s": seconds,
        "copy_s": copy_s,
    }
    if again and refused is None:
        found["again"] = not correct(output, second, lag_ms=rest + own_ms)[0].written and not second.exists()
    return found


def irregular(times: Sequence[float], rate: Fraction) -> bool:
    """Return True if time stamps of pictures, in milliseconds, do not lie where a reader that counts puts them."""
    return bool(abs(np.mean(times - np.arange(len(times)) * float(MILLISECONDS / rate))) > IRREGULAR_MS)


def records(people: Sequence[Subject], *, full: bool, only: str) -> Iterator[Record]:
    """Make and correct the files, and yield the record of each."""
    own: dict[str, float] = {}
    seen = set()
    for who, name, move, kind in plan(people, full=full):
        if only not in name:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if who.name not in own:
                plain = Case("", "mkv", "flac", SAMPLE_RATE, rate=who.rate)
                own[who.name] = lag_of(make(plain, who.source(), folder, name="own")) or 0.0
            try:
                yield record(who, name, move, kind, own_ms=own[who.name], folder=folder, again=name not in seen)
            except SyncNetError as error:
                yield {"who": who.name, "container": name, "kind": kind, "move_ms": move, "failed": str(error)}
        seen.add(name)


@lru_cache(maxsize=1)
def long_source() -> Source:
    """Return a minute of a person who talks."""
    clip = render_scene(
        DRIFT_SEED,
        DRIFT_S,
        width=DRIFT_SIZE[0],
        height=DRIFT_SIZE[1],
        persons=[Person.random(DRIFT_SEED)],
        speech=speak(DRIFT_S, seed=DRIFT_SEED, voice=Voice(), pause=PAUSE),
        face_height=DRIFT_FACE,
        grain=GRAIN,
    )
    times = regular(Fraction(FRAME_RATE), DRIFT_S)
    return Source(clip.frames, times, times, clip.audio / (np.iinfo(np.int16).max + 1), SAMPLE_RATE)


def drift(name: str, move_ms: int, folder: Path) -> Record:
    """Correct a file whose lag grows, and return the lags at both ends, before and after."""
    from syncnet import correct_offset

    source = long_source()
    faster = DRIFT.denominator, DRIFT.denominator + DRIFT.numerator
    moved = replace(source, sound=resample_poly(source.sound, *faster))
    path = make(new_case(name, move_ms, SAMPLES, Fraction(FRAME_RATE), folder), moved, folder)
    output = path.with_stem("corrected")
    done, seconds = timed(lambda: correct_offset(path, output, fix_drift=True))
    found = {"container": name, "move_ms": move_ms, "rounds": done.rounds, "correct_s": seconds}
    return {**found, "before_ms": ends(path, source), "left_ms": ends(output, source)}


def ends(path: Path, source: Source) -> list[float]:
    """Return the lag in the middle of the first and of the last ``END_S`` seconds of a file, in milliseconds."""
    start, sound, rate = read_sound(path)
    picture_ms = measure(path, source).picture_ms
    found, length = [], round(END_S * rate)
    for first in (0, len(sound) - length):
        piece = resample_poly(sound[first : first + length], source.sound_rate, rate)
        samples = np.arange(len(piece)) - len(piece) / 2
        even = [np.interp(samples * (1 + rest), samples, piece) for rest in DRIFTS]
        best = max(even, key=lambda moved: fftconvolve(source.sound, moved[::-1]).max())
        moved = start + first / rate - delay(source.sound, best) / source.sound_rate
        found.append(picture_ms - moved * MILLISECONDS)
    return found


def table(found: Sequence[Record], name: str) -> Iterator[str]:
    """Yield the lines of a table of what is left by container, and of all."""
    yield (
        f"{'container':12} {'files':>5} {'within 6 ms':>11} {'within 12 ms':>12} {'mean':>6} {'largest':>7} "
        f"{'changed':>7}"
    )
    groups: dict[str, list[Record]] = defaultdict(list)
    for entry in found:
        groups[entry["container"]].append(entry)
    for container, entries in [*groups.items(), ("all", list(found))]:
        left = np.array([entry[name] for entry in entries])
        mostly, always = ((np.abs(left) <= limit).mean() for limit in (MOSTLY_MS, ALWAYS_MS))
        changed = sum(bool(entry["changed"]) for entry in entries)
        yield (
            f"{container:12} {len(left):5} {mostly:11.0%} {always:12.0%} {left.mean():6.1f} {np.abs(left).max():7.1f} "
            f"{changed:7}"
        )


def within(left: Sequence[float]) -> bool:
    """Tell whether what is left is as little as it must be."""
    sizes = np.abs(left)
    return not len(sizes) or ((sizes <= MOSTLY_MS).mean() >= MOSTLY and bool(sizes.max() <= ALWAYS_MS))


def line(entry: Record) -> str:
    """Return the line of a file."""
    name = f"{entry['who']:13} {entry['container']:10} {entry['kind']:11} {entry['move_ms']:+4} ms: "
    if "failed" in entry:
        return f"{name}FAILED: {entry['failed']}"
    return (
        f"{name}lag {entry['lag_ms']:+7.1f} (own {entry['own_ms']:+.1f}), left {entry['left_ms']:+6.1f}, "
        f"counted {entry['counted_ms']:+7.1f}{' (irregular)' if entry['irregular'] else ''}, "
        f"{entry['correct_s']:.1f} s, direct {entry['direct_s']:.1f} s, {entry['rounds']} rounds"
        + "".join(f", changed: {what}" for what in entry["changed"])
        + ("" if entry["refused"] is None else f"; refused: {entry['refused']}")
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    found, failed = [], []
    for entry in records(subjects(args.clips, full=args.full), full=args.full, only=args.only):
        (failed if "failed" in entry else found).append(entry)
        if args.list or "failed" in entry:
            print(line(entry), flush=True)
    trusted, refused = ([e for e in found if (e["refused"] is not None) == value] for value in (False, True))
    counted, excused = ([e for e in trusted if e["irregular"] == value] for value in (False, True))
    for title, entries, name in (
        ("left by time stamps, in milliseconds", trusted, "left_ms"),
        ("... without the same people's lag in an unmoved lossless file", trusted, "rest_without_own_ms"),
        ("left for a reader that counts", counted, "counted_ms"),
        ("... where pictures do not lie at the nominal rate", excused, "counted_ms"),
        ("refused, and moved by the known lag all the same: left by time stamps", refused, "left_ms"),
    ):
        if entries:
            print(f"{title}:", *table(entries, name), sep="\n")
    ratio = sum(e["correct_s"] for e in trusted) / sum(allowed_s(e) for e in trusted)
    direct = sum(e["correct_s"] for e in trusted) / sum(e["direct_s"] for e in trusted)
    print(f"time: {direct:.2f} direct scorings, {ratio:.2f} of what is allowed")
    again = [e["again"] for e in found if "again" in e]
    print(f"corrected twice: nothing to do the second time in {sum(again)} of {len(again)}")
    drifts = []
    for name, move in zip(DRIFTING, DRIFT_MOVES_MS if args.full else DRIFT_MOVES_MS[:1]):
        if args.only in name:
            with tempfile.TemporaryDirectory() as folder:
                drifts.append(drift(name, move, Path(folder)))
            before, left = (" to ".join(f"{ms:+.1f}" for ms in drifts[-1][key]) for key in ("before_ms", "left_ms"))
            print(f"drift, {name}: lag {before} ms, left {left} ms", flush=True)
    if args.json:
        args.json.write_text(json.dumps({"files": [*found, *failed], "drift": drifts}, indent=1), encoding="utf-8")
    reached = (
        not failed
        and within([e["left_ms"] for e in trusted])
        and within([e["counted_ms"] for e in counted])
        and not any(e["changed"] for e in found)
        and all(e["who"] in REAL for e in refused)  # of which the weights may be too unsure
        and all(again)
        and ratio <= TIME_ALLOWANCE
        and all(abs(ms) <= DRIFT_LEFT_MS for entry in drifts for ms in entry["left_ms"])
    )
    print("reached" if reached else "NOT reached")
    return 0 if reached else 1


def allowed_s(entry: Record) -> float:
    """Return the seconds that a correction may take: to score the file before and after every move, and to move it."""
    rounds = entry["rounds"]
    return (1 + rounds) * entry["direct_s"] + rounds * entry["copy_s"]


if __name__ == "__main__":
    sys.exit(main())
