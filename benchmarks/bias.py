"""Show how published mode moves the lag: the same rendered people, in step, at several frame rates, in both modes.

    python -m benchmarks.bias

For each rate prints the offset of published mode, the lag that its distances have between whole frames, and ``lag_ms``
of direct mode. A lag is positive if the sound is early.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.moved import Case, make, rates
from benchmarks.truth import SAMPLE, rendered
from syncnet import score_video
from syncnet.defaults import DIRECT, PUBLISHED
from syncnet.sync.lag import measure


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", nargs="+", default=list(rates()), choices=list(rates()), help="frame rates")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    print(f"{'fps':>8} {'published offset':>17} {'published lag, ms':>18} {'direct lag_ms':>14}")
    for rate in args.rates:
        with tempfile.TemporaryDirectory() as folder:
            case = Case("", "mp4", "aac", rate=rates()[rate])
            path = make(case, rendered(SAMPLE, case.rate), Path(folder))
            found = {mode: score_video(path, mode=mode) for mode in (PUBLISHED, DIRECT)}
        best = max(found[PUBLISHED].tracks, key=lambda track: track.confidence or 0.0)
        lag = measure(best.dists).ms
        print(f"{rate:>8} {best.offset:17d} {lag:18.0f} {found[DIRECT].lag_ms:14.1f}", flush=True)


if __name__ == "__main__":
    main()
