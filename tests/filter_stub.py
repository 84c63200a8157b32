"""The filter with a scorer that reads a video's score from its name.

    python -m filter_stub --input_dir videos --output_dir filtered        (in the folder tests)

A file a.c7.2.o-3.mp4 has confidence 7.2 and offset -3. Words in a name cause delays or errors: ``slow`` takes 0.1 s
longer, ``hang`` an hour, ``dies`` kills the worker, ``dies-once`` does so the first time, ``raises`` raises an
unexpected error, ``memory`` runs out of memory, ``full`` finds the disk full. The names of all started videos, with the
paths of their sounds, are written to the file STUB_LOG. In direct mode a video has a lag that belongs to its offset.
"""

import os
import re
import signal
import time
from pathlib import Path

from syncnet.defaults import DIRECT
from syncnet.errors import DiskFullError, SyncNetError
from syncnet.filter import scorer
from syncnet.filter.scorer import NO_FACES, SUCCESS, VideoScore, timestamp

NUMBERS = re.compile(r"\.c(?P<confidence>-?[\d.]+)\.o(?P<offset>-?\d+)\.")
SECONDS = 0.02
LAG_ERROR_MS = 4.0


def track(index, confidence, offset, *, vshift=15):
    """Return the record of a track in scores.json."""
    edge = [{"code": "edge_offset", "text": "at the edge"}] if abs(offset) == vshift else []
    numbers = {"offset": offset, "offset_ms": 40 * offset, "confidence": confidence, "lse_c": confidence}
    place = {"first_frame": 0, "last_frame": 99, "start": 0.0, "end": 4.0, "mean_face_size": 80.0}
    speaking = {"speaking_s": 2.5, "speaking_offset": offset, "speaking_confidence": confidence + 1}
    more = {"min_dist": 8.0, "lse_d": 8.0, "windows": 95, "reasons": edge, **speaking, "speaking_min_dist": 7.5}
    return {"track": index, **place, **numbers, **more}


class StubScorer:
    """Stub of ``scorer.Scorer``."""

    def __init__(self, scratch, parameters):
        self.scratch, self.parameters = scratch, parameters

    def __call__(self, path, name, sound=None):
        self.scratch.mkdir(parents=True, exist_ok=True)
        with Path(os.environ["STUB_LOG"]).open("a", errors="surrogateescape") as log:
            log.write(f"{name} {sound}\n" if sound else f"{name}\n")
        time.sleep(SECONDS + 0.1 * ("slow" in name) + 3600 * ("hang" in name))
        self.misbehave(name)
        numbers = NUMBERS.search(name)
        now = timestamp()
        times = {"start_time": now, "end_time": now, "processing_time": SECONDS}
        if not numbers:
            return VideoScore(NO_FACES, reasons=[{"code": "no_face", "text": "no face found"}], **times)
        best = track(0, float(numbers["confidence"]), int(numbers["offset"]))
        direct = self.parameters.mode == DIRECT
        lag = {"lag_ms": best["offset_ms"] - 3.0, "lag_error_ms": LAG_ERROR_MS} if direct else {}
        turns = {
            "speakers": [{"start": 0.0, "end": 2.5, "track": 0, "confidence": 0.9}],
            "speech_without_face": [{"start": 3.0, "end": 4.0}],
            "min_speaking": self.parameters.min_speaking,
        }
        return VideoScore(SUCCESS, tracks=[best, track(1, best["confidence"] - 1, 9)], **lag, **turns, **times)

    def misbehave(self, name):
        once = Path(os.environ["STUB_LOG"]).with_name(f"{Path(name).name}.died")
        if "dies-once" in name and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "dies" in name and "dies-once" not in name:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)  # another thread may take the signal
        if "raises" in name:
            raise RuntimeError("a bug\nof two lines")
        if "memory" in name:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if "full" in name:
            raise DiskFullError("no space left")


def load_scorer(parameters, *, output_dir, scratch, index, threads):
    """Stub of ``scorer.load_scorer``."""
    if parameters.device == "broken":
        raise SyncNetError("--device broken: not a device")
    if parameters.device == "dead":
        os._exit(9)
    return StubScorer(scratch, parameters)


def install():
    scorer.load_scorer = load_scorer


if __name__ == "__main__":
    import filter_stub

    import filter_videos_by_sync_score
    from syncnet import cli

    filter_stub.install()
    cli.run(filter_videos_by_sync_score.main)
