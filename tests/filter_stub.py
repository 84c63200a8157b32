"""The filter with a scorer that reads a video's score from its name.

    python -m filter_stub --input_dir videos --output_dir filtered        (in the folder tests)

A file a.c7.2.o-3.mp4 has confidence 7.2 and offset -3. Words in a name cause delays or errors: ``slow`` takes 0.1 s
longer, ``hang`` an hour, ``dies`` kills the worker, ``dies-once`` does so the first time, ``raises`` raises an
unexpected error, ``memory`` runs out of memory, ``full`` finds the disk full. The names of all started videos, with the
paths of their sounds, are written to the file STUB_LOG. In direct mode a video has a lag that belongs to its offset.
The code of a reason gives the video, or its most confident track, this reason, and after ``other-`` the other track;
``older`` is a score by a version that looked for none of the newer ones.

To correct a video is to write a file with another content; STUB_LOG has ``correct NAME``. The same words cause delays
and errors if they follow ``correct-``, as in a.c7.o4.correct-dies.mp4; ``correct-refused`` is refused, and with
``correct-touches`` the video is modified meanwhile, the first time. ``lag900`` in a name is a lag that only a
correction finds, with confidence 6, and ``vague`` one with a large error.
"""

import os
import re
import signal
import time
from pathlib import Path

from syncnet import reasons
from syncnet.defaults import DIRECT
from syncnet.errors import DiskFullError, SyncNetError
from syncnet.filter import correction, scorer
from syncnet.filter.correction import Outcome
from syncnet.filter.quality import CODES
from syncnet.filter.scorer import CHECKS, NO_FACES, SUCCESS, VideoScore, timestamp

NUMBERS = re.compile(r"\.c(?P<confidence>-?[\d.]+)\.o(?P<offset>-?\d+)\.")
SECONDS = 0.02
LAG_ERROR_MS = 4.0
OF_VIDEO = (
    *(reasons.DAMAGED, reasons.NOT_SQUARE_PIXELS, reasons.SCENE_CUT_SHORT),
    *(reasons.TRACKS_DISAGREE, reasons.NO_CONFIDENT_TRACK),
)


def track(index, confidence, offset, *, vshift=15):
    """Return the record of a track in scores.json."""
    edge = [{"code": "edge_offset", "text": "at the edge"}] if abs(offset) == vshift else []
    numbers = {"offset": offset, "offset_ms": 40 * offset, "confidence": confidence, "lse_c": confidence}
    place = {"first_frame": 0, "last_frame": 99, "start": 0.0, "end": 4.0, "mean_face_size": 80.0}
    speaking = {"speaking_s": 2.5, "speaking_offset": offset, "speaking_confidence": confidence + 1}
    more = {"min_dist": 8.0, "lse_d": 8.0, "windows": 95, "reasons": edge, **speaking, "speaking_min_dist": 7.5}
    return {"track": index, **place, **numbers, **more}


def named_reasons(words, codes):
    """Return the records of reasons whose codes are among the words, in the order of the words."""
    return [{"code": word, "text": f"about {word}"} for word in words if word in codes]


def corrected(text):
    """Return the content of a corrected file, which has another size."""
    return f"{text}, corrected"


class StubScorer:
    """Stub of ``scorer.Scorer``."""

    def __init__(self, scratch, parameters):
        self.scratch, self.parameters = scratch, parameters

    def __call__(self, path, name, sound=None, order=None):
        if order:
            return self.correct(path, name, order)
        self.scratch.mkdir(parents=True, exist_ok=True)
        with Path(os.environ["STUB_LOG"]).open("a", errors="surrogateescape") as log:
            log.write(f"{name} {sound}\n" if sound else f"{name}\n")
        words = name.partition("correct-")[0]
        time.sleep(SECONDS + 0.1 * ("slow" in words) + 3600 * ("hang." in words))
        self.misbehave(words, name)
        numbers = NUMBERS.search(name)
        now = timestamp()
        times = {"start_time": now, "end_time": now, "processing_time": SECONDS}
        if not numbers:
            found = [*named_reasons(name.split("."), OF_VIDEO), {"code": "no_face", "text": "no face found"}]
            return VideoScore(NO_FACES, reasons=found, **times)
        best = track(0, float(numbers["confidence"]), int(numbers["offset"]))
        other = track(1, best["confidence"] - 1, 9)
        own, _, others = name.partition(".other-")
        best["reasons"] += named_reasons(own.split("."), [code for code in CODES if code not in OF_VIDEO])
        other["reasons"] += named_reasons(others.split("."), CODES)
        direct = self.parameters.mode == DIRECT
        lag = {"lag_ms": best["offset_ms"] - 3.0, "lag_error_ms": 40.0 if "vague" in name else LAG_ERROR_MS}
        if not direct or "lag900." in name or abs(best["offset"]) == 15:
            lag = {}
        turns = {
            "speakers": [{"start": 0.0, "end": 2.5, "track": 0, "confidence": 0.9}],
            "speech_without_face": [{"start": 3.0, "end": 4.0}],
            "min_speaking": self.parameters.min_speaking,
        }
        more = {
            "reasons": named_reasons(own.split("."), OF_VIDEO),
            "checks": None if "older" in name else list(CHECKS),
        }
        return VideoScore(SUCCESS, tracks=[best, other], **more, **lag, **turns, **times)

    def correct(self, path, name, order):
        """Write a file that says that it is corrected."""
        folder = Path(order.folder, f"{self.scratch.name}-corrected")
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"video{Path(path).suffix}"
        file.write_text("half a vid")
        with Path(os.environ["STUB_LOG"]).open("a", errors="surrogateescape") as log:
            log.write(f"correct {name}\n")
        words = name.partition("correct-")[2]
        time.sleep(SECONDS + 0.1 * ("slow" in words) + 3600 * ("hang." in words))
        self.misbehave(words, name)
        numbers = NUMBERS.search(name)
        lag, confidence = 40.0 * int(numbers["offset"]) - 3.0, float(numbers["confidence"])
        if "lag900" in name:
            lag, confidence = 900.0, 6.0
        before = {"lag_before_ms": lag, "lag_error_before_ms": LAG_ERROR_MS, "confidence_before": confidence}
        if "touches" in words and "touched" not in Path(path).read_text():
            Path(path).write_text("touched")
        if "refused" in words or abs(lag) > order.max_lag:
            return Outcome(correction.REFUSED, order.max_lag, **before, error="not corrected: for a reason")
        file.write_text(corrected(Path(path).read_text()))
        after = {"lag_after_ms": 2.0, "lag_error_after_ms": LAG_ERROR_MS, "confidence_after": confidence + 0.2}
        done = {"delay_ms": lag, "rounds": 1, "notes": ("a note",), "file": str(file)}
        return Outcome(correction.CORRECTED, order.max_lag, **before, **after, **done)

    def misbehave(self, words, name):
        once = Path(os.environ["STUB_LOG"]).with_name(f"{Path(name).name}.died")
        if "dies-once" in words and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "dies" in words and "dies-once" not in words:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)  # another thread may take the signal
        if "raises" in words:
            raise RuntimeError("a bug\nof two lines")
        if "memory" in words:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if "full" in words:
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
