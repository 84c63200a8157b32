"""How often the error of the lag holds: rendered people whose sound is moved by known amounts.

    python -m benchmarks.lag_error --persons 12 --takes 4

Every person speaks several times, with another voice and other pauses each time. Each take is cut into stretches, and
the lag of each is compared with the mean of the person's takes: what differs from person to person is not part of the
error. Prints a table by length of the stretches; 95 % should be covered.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME, SAMPLE_RATE
from syncnet.defaults import VSHIFT
from syncnet.sync import lag, scoring
from SyncNetInstance import SyncNetInstance
from training.face.talking_face import Person, Voice, render_clip, speak
from training.syncnet.clips import delayed
from training.syncnet.lag_zero import audio_features, video_features

FIRST_PERSON = 9100
TAKE_SECONDS = 20.0
STRETCHES = (2, 3, 5, 10)  # seconds
PAUSES = ((0.25, 0.8), (0.06, 0.2), (0.4, 1.5), (0.1, 0.5))  # seconds, by take


class Stretch(NamedTuple):
    """A stretch of a take: its length in seconds, and error and half-width of the interval in milliseconds."""

    seconds: int
    error: float
    half_width: float


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=12)
    parser.add_argument("--first_person", type=int, default=FIRST_PERSON, metavar="SEED")
    parser.add_argument("--takes", type=int, default=4, help="takes of every person")
    parser.add_argument("--seconds", type=float, default=TAKE_SECONDS, help="length of a take")
    parser.add_argument("--initial_model", help="SyncNet's weights (default: as run_syncnet)")
    return parser


def take_distances(net: SyncNetInstance, seed: int, take: int, *, seconds: float) -> tuple[np.ndarray, float]:
    """Render a take of a person; return the distances of its windows, and by how many ms its sound was made early."""
    rng = np.random.default_rng([seed, take])
    person = Person.random(seed)
    voice = Voice.random(rng, feminine=person.feminine)
    speech = speak(seconds, seed=100 * seed + take, voice=voice, pause=PAUSES[take % len(PAUSES)])
    clip = render_clip(100 * seed + take, seconds, person=person, speech=speech)
    early_ms = int(rng.integers(-MILLISECONDS_PER_FRAME, MILLISECONDS_PER_FRAME))
    audio = audio_features(net, delayed(clip.audio, -early_ms * SAMPLE_RATE // 1000))
    video = video_features(net, clip.frames)[: len(audio)]
    return scoring.distances(video, audio, vshift=VSHIFT), early_ms


def stretches(takes: Sequence[tuple[np.ndarray, float]]) -> list[Stretch]:
    """Compare the stretches of a person's takes with their mean.

    Args:
        takes: from ``take_distances``.
    """

    def measured(dists: np.ndarray, early_ms: float, start: int, stop: int) -> tuple[float, float]:
        found = lag.measure(dists[start:stop], audio=range(-start, len(dists) - start))
        return found.ms - early_ms, found.error_ms

    mean = np.mean([measured(*take, 0, len(take[0]))[0] for take in takes])
    found = []
    for seconds in STRETCHES:
        length = seconds * FRAME_RATE
        for dists, early_ms in takes:
            for start in range(0, len(dists) - length + 1, length):
                ms, half_width = measured(dists, early_ms, start, start + length)
                found.append(Stretch(seconds, ms - mean, half_width))
    return found


def table(found: Sequence[Stretch]) -> list[str]:
    """Return the lines of the table of coverage."""
    lines = ["seconds  stretches  covered  error rms  half-width median"]
    for seconds in (*STRETCHES, None):
        some = np.array([s for s in found if seconds in (s.seconds, None)])
        if len(some):
            covered = (np.abs(some[:, 1]) <= some[:, 2]).mean()
            rms, half_width = np.sqrt((some[:, 1] ** 2).mean()), np.median(some[:, 2])
            lines.append(
                f"{seconds or 'all':>7}  {len(some):>9}  {covered:>7.1%}  {rms:>6.2f} ms  {half_width:>15.2f} ms"
            )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    net = SyncNetInstance()
    net.loadParameters(args.initial_model)
    found: list[Stretch] = []
    for seed in range(args.first_person, args.first_person + args.persons):
        found += stretches([take_distances(net, seed, take, seconds=args.seconds) for take in range(args.takes)])
        print(f"person {seed} done", file=sys.stderr)
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
