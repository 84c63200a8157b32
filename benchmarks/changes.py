"""Measure how often changes of the offset are found, and how often where there is none.

    python -m benchmarks.changes

Tracks are chains of stretches of the scored dialogues of ``benchmarks.speakers``, always the same ones. ``speaker``
speaks all along, ``listener`` never, ``half`` in one half only: they have no change, nor do the dialogues' own tracks.
Jumps and drifts are made by moving the columns of a speaker's distances.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.few_windows import get_parser, groups, stretches
from benchmarks.speakers import Scored
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, WINDOW_FRAMES
from syncnet.sync import changes, speech
from syncnet.sync.changes import Changes

SECONDS = 4, 6, 12, 20, 30, 60
JUMPS = 3, 6, 10  # frames
PLACES = 0.25, 0.5, 0.75  # of jumps in a track
DRIFTS = 1, 2, 3, 5, 10  # milliseconds per second
SHORTEST = 20  # windows of a stretch
TRACKS = 40  # of every kind
PLACE_TOLERANCE = 12  # frames
STEP_TOLERANCE = 1  # frames


def pieces(group: Sequence[Scored], *, right: bool) -> list[np.ndarray]:
    """Return the distances of stretches, moved so that right ones have the offset 0."""
    return [
        np.roll(dists, round(scored.lag_ms / MILLISECONDS_PER_FRAME), axis=1)
        for scored, dists in stretches(group, right=right, shortest=SHORTEST)
    ]


def chain(parts: Sequence[np.ndarray], windows: int, rng: np.random.Generator) -> np.ndarray:
    """Return a track of so many windows of randomly chosen parts."""
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < windows:
        chosen.append(parts[int(rng.integers(len(parts)))])
    return np.concatenate(chosen)[:windows]


def moved(dists: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return distances whose every row is moved by its number of columns, in a circle, linearly interpolated."""
    whole = np.floor(columns).astype(int)
    part = (columns - whole)[:, None]
    places = np.arange(dists.shape[1]) - whole[:, None]
    near, far = (np.take_along_axis(dists, (places - more) % dists.shape[1], axis=1) for more in (0, 1))
    return ((1 - part) * near + part * far).astype(np.float32)


def jump(dists: np.ndarray, *, at: float, frames: int) -> np.ndarray:
    """Return distances whose sound is later by so many frames from a share of the windows on."""
    return moved(dists, np.where(np.arange(len(dists)) < round(at * len(dists)), 0, frames))


def drift(dists: np.ndarray, *, frames: float) -> np.ndarray:
    """Return distances whose sound gets later by so many frames."""
    return moved(dists, np.linspace(-frames / 2, frames / 2, len(dists)))


def find(dists: np.ndarray) -> Changes | None:
    """Find the changes in a track whose sound has speech all along."""
    return changes.find(dists, heard=np.ones(len(dists) + WINDOW_FRAMES, bool))


def is_jump(found: Changes | None, *, at: float, frames: int, windows: int) -> bool:
    """Return True if the jump, and nothing else, is found."""
    if found is None or found.is_drift or len(found.steps) != 1:
        return False
    [step] = found.steps
    near = abs(step.frame - changes.CENTRE - at * windows) <= PLACE_TOLERANCE
    return near and abs(step.before - step.after - frames) <= STEP_TOLERANCE


def shares(group: Sequence[Scored], seconds: int, *, count: int = TRACKS) -> Iterator[tuple[str, float]]:
    """Yield the name of every kind of track of this length, and the share in which a change is found.

    Of jumps only those count whose place and frames are right.
    """
    windows = seconds * FRAME_RATE
    right, wrong = (pieces(group, right=side) for side in (True, False))

    def tracks(*halves: list[np.ndarray]) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seconds)
        for _ in range(count):
            yield np.concatenate([chain(half, windows // len(halves), rng) for half in halves])

    for name, halves in (("speaker", [right]), ("listener", [wrong]), ("half", [right, wrong])):
        yield name, float(np.mean([find(track) is not None for track in tracks(*halves)]))
    for frames in JUMPS:
        for at in PLACES:
            hits = [
                is_jump(find(jump(track, at=at, frames=frames * sign)), at=at, frames=frames * sign, windows=windows)
                for track, sign in zip(tracks(right), [1, -1] * count)
            ]
            yield f"jump of {frames} at {at:.0%}", float(np.mean(hits))
    for speed in DRIFTS:
        total = speed * seconds / MILLISECONDS_PER_FRAME
        found = [find(drift(track, frames=total * sign)) for track, sign in zip(tracks(right), [1, -1] * count)]
        yield f"drift of {speed} ms/s", float(np.mean([one is not None for one in found]))
        yield f"drift of {speed} ms/s, as a drift", float(np.mean([one is not None and one.is_drift for one in found]))


def own_tracks(group: Sequence[Scored]) -> list[Changes | None]:
    """Return what is found in the dialogues' own tracks."""
    found = []
    for scored in group:
        heard = speech.present(speech.measure(scored.audio))
        for first, frames, dists in zip(scored.firsts, scored.frames, scored.dists):
            if len(dists):
                found.append(changes.find(dists, heard=heard[first : first + frames]))
    return found


def main(argv: Sequence[str] | None = None, *, print_line: Callable[[str], object] = print) -> int:
    for name, group in groups(get_parser(__doc__).parse_args(argv)).items():
        own = own_tracks(group)
        print_line(f"{name}: a change in {sum(one is not None for one in own)} of {len(own)} own tracks")
        columns = [dict(shares(group, seconds)) for seconds in SECONDS]
        print_line(f"{'':28}" + "".join(f"{seconds:6} s" for seconds in SECONDS))
        for kind in columns[0]:
            print_line(f"{kind:28}" + "".join(f"{column[kind]:8.0%}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
