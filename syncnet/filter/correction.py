"""What ``--transfer correct`` does to a video, as workers are told to do it and as the journal keeps it.

The correction of a video is part of its line of the journal: a corrected video has a second line, with its score and
this record. Lines of earlier versions, and of videos that were never corrected, lack it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from syncnet import reasons
from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.filter.inputs import Video

Record = dict[str, Any]

CORRECTION = "correction"  # key of a line of the journal
CORRECTED = "corrected"  # there is a new file
IN_STEP = "in_step"  # measured anew: there is no lag to take out
REFUSED = "refused"  # it cannot be corrected, or the result is not in step: the error says why
UNFINISHED = "failed"  # the correction did not finish
STATES = (CORRECTED, IN_STEP, REFUSED, UNFINISHED)
PENDING = "pending"  # in results.csv: passes once it is corrected


@dataclass(frozen=True)
class Order:
    """How to correct a video.

    Attributes:
        max_lag: Largest lag to take out, in milliseconds.
        score: JSON of the tracks and reasons of the video's score, whose lag is taken out; None to measure it anew.
        folder: Folder for the new file, on the disk of the output folder.
    """

    max_lag: float
    score: str | None
    folder: str


@dataclass(frozen=True, slots=True)
class Uncorrected(Video):
    """A video to correct instead of to score.

    Attributes:
        order: How to correct it.
    """

    order: Order | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a correction.

    Attributes:
        state: One of ``STATES``.
        max_lag: As in ``Order``.
        lag_before_ms: Lag of the video, in milliseconds; None if it is not known.
        lag_error_before_ms: Half-width of its 95 % interval.
        confidence_before: Confidence of the video.
        lag_after_ms: Lag that is left; like the others of the new file, None without one.
        lag_error_after_ms: Half-width of its 95 % interval.
        confidence_after: Confidence of the new file.
        delay_ms: Milliseconds by which the sound was delayed, negative if it was moved to an earlier time.
        rounds: How often the sound was moved.
        notes: What could not be kept, one line each.
        error: One line that says why there is no new file; None for ``CORRECTED`` and ``IN_STEP``.
        processing_time: Duration of the correction, in seconds.
        file: Path of the new file, empty without one; not part of the journal.
    """

    state: str
    max_lag: float
    lag_before_ms: float | None = None
    lag_error_before_ms: float | None = None
    confidence_before: float | None = None
    lag_after_ms: float | None = None
    lag_error_after_ms: float | None = None
    confidence_after: float | None = None
    delay_ms: float | None = None
    rounds: int = 0
    notes: tuple[str, ...] = ()
    error: str | None = None
    processing_time: float = 0.0
    file: str = ""

    def record(self) -> Record:
        """Return the record for the journal."""
        return {key: value for key, value in asdict(self).items() if key != "file"}


@dataclass(frozen=True)
class Correcting:
    """Settings for judging videos that are to be corrected.

    Attributes:
        max_lag: Largest lag to take out, in milliseconds.
        vshift: Largest shift that was tried for the scores, in frames.
        is_there: Returns True for a line of the journal whose video has its corrected file in the quality folders.
    """

    max_lag: float
    vshift: int
    is_there: Callable[[Record], bool]

    def outcome(self, record: Record) -> Record | None:
        """Return the record of a video's correction; None without one that still holds.

        A lag that was not found is looked for again if ``max_lag`` has become larger.
        """
        found = record.get(CORRECTION)
        if found and found["state"] == REFUSED and found["max_lag"] < self.max_lag:
            return None
        return found

    def must_measure(self, record: Record, track: Record, *, confident: bool) -> bool:
        """Return True if a video may have a lag that its score did not look for.

        Args:
            record: The video's line of the journal.
            track: Record of its most confident track.
            confident: True if the confidence of this track passes.
        """
        unknown = record.get("lag_ms") is None
        if confident and not unknown:
            return False
        at_edge = confident and reasons.TRACKS_DISAGREE not in codes(record) and reasons.EDGE_OFFSET in codes(track)
        return self.max_lag > (self.vshift - at_edge) * MILLISECONDS_PER_FRAME


def codes(record: Record) -> list[str]:
    """Return the codes of the reasons of a video or track."""
    return [reason["code"] for reason in record["reasons"]]


def check_correction(found: Record) -> None:
    """Raise an error if results cannot be derived from the record of a correction.

    Raises:
        ValueError: The record is damaged.
        KeyError: The record is damaged.
        TypeError: The record is damaged.
    """
    numbers = ("lag_before_ms", "lag_error_before_ms", "confidence_before", "lag_after_ms", "confidence_after")
    for name in (*numbers, "delay_ms", "max_lag"):
        if found[name] is not None:
            float(found[name])
    "; ".join(found["notes"])
    if found["state"] not in STATES or (found["state"] == CORRECTED and found["lag_after_ms"] is None):
        raise ValueError("state does not match the numbers")
