"""Measure how many windows it takes until confidence tells right pairs from wrong ones.

    python -m benchmarks.few_windows

Pairs are stretches of the scored dialogues of ``benchmarks.speakers``: right ones of a face that speaks all along,
wrong ones of a face while another one speaks. ``reasons.LEAST_WINDOWS`` is the smallest number in the table from which
on at most 5 % of the wrong pairs have a confidence above the median of the right ones, in both kinds of dialogues.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks import speakers
from benchmarks.dialogues import NOBODY
from benchmarks.speakers import Scored
from syncnet.sync import scoring
from syncnet.sync.speakers import CENTRE

COUNTS = 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100  # of windows
LARGEST_SHARE = 0.05  # of wrong pairs above the median of right ones
LEAST_PAIRS = 10


def get_parser(description: str | None = __doc__) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rendered", type=int, default=speakers.RENDERED, help="rendered dialogues (%(default)s)")
    parser.add_argument("--side", type=int, default=speakers.SIDE, help="those side by side (%(default)s)")
    parser.add_argument("--faces", type=speakers.Path, default=speakers.FACES, help="real clips (%(default)s)")
    parser.add_argument("--cache", type=speakers.Path, default=speakers.CACHE, help="scored dialogues (%(default)s)")
    return parser


def groups(args: argparse.Namespace) -> dict[str, list[Scored]]:
    """Return the scored dialogues of both kinds."""
    args.cache.mkdir(parents=True, exist_ok=True)
    found = {"rendered": list(speakers.rendered(args.rendered, args.cache))}
    if args.faces.exists():
        found["side by side"] = list(speakers.side_by_side(args.side, args.cache, args.faces))
    return found


def stretches(group: Sequence[Scored], *, right: bool, shortest: int) -> Iterator[tuple[Scored, np.ndarray]]:
    """Yield the dialogue and the distances of every stretch in which a face speaks, or another one does."""
    for scored in group:
        for face, (first, dists) in enumerate(zip(scored.firsts, scored.dists)):
            speaker = scored.speaker[first + CENTRE : first + CENTRE + len(dists)]
            wanted = speaker == face if right else (speaker != face) & (speaker > NOBODY)
            edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False)).reshape(-1, 2)
            yield from ((scored, dists[start:end]) for start, end in edges if end - start >= shortest)


def confidences(group: Sequence[Scored], count: int, *, right: bool) -> np.ndarray:
    """Return the confidences of all stretches of so many windows that do not overlap."""
    return np.array(
        [
            scoring.score(dists[start : start + count], video_frames=count, audio_frames=count).confidence
            for _, dists in stretches(group, right=right, shortest=count)
            for start in range(0, len(dists) - count + 1, count)
        ]
    )


def rows(group: Sequence[Scored], counts: Sequence[int] = COUNTS) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield numbers of windows, each with the confidences of its right and of its wrong pairs, if there are enough."""
    for count in counts:
        right, wrong = (confidences(group, count, right=side) for side in (True, False))
        if min(len(right), len(wrong)) >= LEAST_PAIRS:
            yield count, right, wrong


def share_above(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the share of wrong pairs whose confidence is above the median of the right ones."""
    return float((wrong > np.median(right)).mean())


def enough(shares: Sequence[dict[int, float]]) -> int | None:
    """Return the smallest number of windows from which on no share of any group is too large; None without one."""
    counts = sorted(set.union(*(set(group) for group in shares)))
    good = [all(group.get(count, 0.0) <= LARGEST_SHARE for group in shares) for count in counts]
    lasting = list(itertools.accumulate(reversed(good), lambda later, here: later and here))[::-1]
    return next((count for count, stays in zip(counts, lasting) if stays), None)


def table(found: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> Iterator[str]:
    """Yield the lines of a table of the confidences by the number of windows."""
    yield "windows  right pairs: number, 5 %, median   wrong pairs: number, median, 95 %   above the right ones' median"
    for count, right, wrong in found:
        low, middle = np.percentile(right, [5, 50])
        median, high = np.percentile(wrong, [50, 95])
        yield (
            f"{count:7} {len(right):20} {low:6.1f} {middle:6.1f} {len(wrong):22} {median:6.1f} {high:6.1f}"
            f" {share_above(right, wrong):24.1%}"
        )


def main(argv: Sequence[str] | None = None, *, print_line: Callable[[str], object] = print) -> int:
    shares = []
    for name, group in groups(get_parser().parse_args(argv)).items():
        found = list(rows(group))
        print_line(f"{name}:")
        for line in table(found):
            print_line(line)
        shares.append({count: share_above(right, wrong) for count, right, wrong in found})
    print_line(f"LEAST_WINDOWS = {enough(shares)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
