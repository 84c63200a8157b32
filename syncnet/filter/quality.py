"""Judge videos by two thresholds and the reasons of their scores, and collect the statistics of a folder."""

from __future__ import annotations

import math
import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from syncnet import reasons
from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.errors import UsageError
from syncnet.filter.correction import CORRECTED, UNFINISHED, Correcting
from syncnet.filter.scorer import CHECKS, FAILED, STATUSES, SUCCESS, Record

REJECT_NONE = "none"
REJECT = (reasons.DAMAGED, reasons.SILENT, reasons.FEW_WINDOWS, reasons.OFFSET_CHANGES)
# Codes that a scored video, or its most confident track, can have.
CODES = (
    *CHECKS,
    *(reasons.EDGE_OFFSET, reasons.LOW_CONFIDENCE, reasons.AUDIO_SHORT, reasons.SCENE_CUT_SHORT),
    *(reasons.TRACKS_DISAGREE, reasons.NO_CONFIDENT_TRACK),
)
OF_SEARCH = (reasons.EDGE_OFFSET, reasons.LOW_CONFIDENCE)  # another search may find what the score's did not
UNRELIABLE = (*OF_SEARCH, *CHECKS)  # codes that concern the verdict


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that a video must meet to pass.

    Attributes:
        min_confidence: Lowest confidence that passes.
        max_abs_offset: Largest absolute offset that passes, in frames.
        reject: Codes of reasons that do not pass.
    """

    min_confidence: float
    max_abs_offset: int
    reject: tuple[str, ...] = REJECT


PRESETS = {
    "strict": Thresholds(8.0, 2),
    "high": Thresholds(6.0, 3),
    "medium": Thresholds(4.0, 5),
    "relaxed": Thresholds(2.0, 8),
}
DEFAULT = Thresholds(5.0, 3)


@dataclass(frozen=True)
class Verdict:
    """Verdict on a video.

    Attributes:
        track: Record of the most confident track; None if no track has a score.
        passes: True if the video is good.
        reasons: Lines of text: why the video does not pass, and warnings about its score.
        corrected: True if the quality folders have its corrected file.
        pending: True if the video is yet to be corrected to pass.
        unfinished: True if its correction did not finish.
        found: Texts of the reasons of the video and of ``track``, by code.
    """

    track: Record | None
    passes: bool
    reasons: list[str]
    corrected: bool = False
    pending: bool = False
    unfinished: bool = False
    found: dict[str, str] = field(default_factory=dict)


def codes_of(text: str) -> tuple[str, ...]:
    """Return the codes of a flag's value, a list with commas or ``REJECT_NONE``.

    Raises:
        UsageError: Some are no codes of a scored video.
    """
    if text.strip() == REJECT_NONE:
        return ()
    codes = tuple(dict.fromkeys(code.strip() for code in text.split(",")))
    unknown = [code for code in codes if code not in CODES]
    if unknown:
        raise UsageError(
            f"--reject {text}: no reason of a scored video: {', '.join(map(repr, unknown))}: choose from "
            f"{', '.join(CODES)}, or {REJECT_NONE} alone"
        )
    return codes


def best_track(tracks: list[Record]) -> Record | None:
    """Return the record of the most confident track; None if no track has a score."""
    scored = [track for track in tracks if track["confidence"] is not None]
    return max(scored, key=lambda track: track["confidence"], default=None)


def judge(record: Record, thresholds: Thresholds, correcting: Correcting | None = None) -> Verdict:
    """Judge one video.

    Args:
        record: The video's line of the journal.
        thresholds: Thresholds to apply.
        correcting: How videos are corrected; None if they are taken as they are.

    Returns:
        The verdict.
    """
    if record["status"] != SUCCESS:
        lines = [reason["text"] for reason in record["reasons"]]
        return Verdict(None, False, lines or [record["error"] or record["status"]], found=texts_of(record))
    track = best_track(record["tracks"])
    assert track is not None, "a video with the status SUCCESS has a scored track"
    if correcting:
        return judge_corrected(record, track, thresholds, correcting)
    confidence, offset, found = track["confidence"], track["offset"], texts_of(record, track)
    lines = []
    if confidence < thresholds.min_confidence:
        lines.append(f"confidence {confidence:.3f} is below {thresholds.min_confidence:g}")
    if abs(offset) > thresholds.max_abs_offset:
        lines.append(f"offset {offset} is more than {thresholds.max_abs_offset} frames")
    lines += rejections(found, thresholds)
    return Verdict(track, not lines, lines + warnings(found, thresholds), found=found)


def judge_corrected(record: Record, track: Record, thresholds: Thresholds, correcting: Correcting) -> Verdict:
    """Judge a scored video by what is left of its lag once it is corrected.

    Args:
        record: The video's line of the journal.
        track: Record of its most confident track.
        thresholds: Thresholds to apply.
        correcting: How videos are corrected.
    """
    from syncnet.steps.correct import IN_STEP_MS, LARGEST_ERROR_MS

    found, texts = correcting.outcome(record) or {}, texts_of(record, track)
    corrected = found.get("state") == CORRECTED and correcting.is_there(record)
    measured = found.get("lag_before_ms") is not None
    lag, error = (found["lag_before_ms"], found["lag_error_before_ms"]) if measured else known_lag(record)
    confidence = found["confidence_before"] if measured else track["confidence"]
    offset = round(lag / MILLISECONDS_PER_FRAME) if measured and lag is not None else track["offset"]
    lines, pending = [], ""
    if confidence < thresholds.min_confidence:
        lines.append(f"confidence {confidence:.3f} is below {thresholds.min_confidence:g}")
    confident, rejected = not lines, rejections(texts, thresholds)
    lines += rejected
    if not found and not rejected and correcting.must_measure(record, track, confident=confident):
        lines, pending = [], f"not yet corrected: its lag is looked for up to {correcting.max_lag:g} ms"
    elif lag is None:
        lines.append(found.get("error") or "; ".join(r["text"] for r in record["reasons"]) or "the lag is unknown")
    elif abs(lag) > correcting.max_lag:
        lines.append(f"lag {lag:.0f} ms is more than --max_lag {correcting.max_lag:g} ms")
    elif error > LARGEST_ERROR_MS:
        lines.append(f"lag {lag:.0f} ms is known to {error:.0f} ms only, not to {LARGEST_ERROR_MS} ms")
    elif corrected:
        offset = round(found["lag_after_ms"] / MILLISECONDS_PER_FRAME)
    elif abs(lag) > IN_STEP_MS and found.get("error"):
        lines.append(found["error"])
    elif abs(lag) > IN_STEP_MS and not lines:
        pending = f"not yet corrected: lag {lag:.0f} ms"
    if not lines and not pending and abs(offset) > thresholds.max_abs_offset:
        lines.append(f"offset {offset} is more than {thresholds.max_abs_offset} frames")
    passes = not lines and not pending
    lines += warnings(texts, thresholds, stale=OF_SEARCH if measured or pending else ())
    lines += [pending] if pending else []
    unfinished = found.get("state") == UNFINISHED
    states = {"corrected": corrected, "pending": bool(pending), "unfinished": unfinished}
    return Verdict(track, passes, lines, **states, found=texts)


def known_lag(record: Record) -> tuple[float | None, float]:
    """Return the lag of a video by its score, None if unknown, and the half-width of its 95 % interval."""
    return record.get("lag_ms"), record.get("lag_error_ms") or 0.0


def texts_of(record: Record, track: Record | None = None) -> dict[str, str]:
    """Return the texts of the reasons of a video and of one of its tracks, by code."""
    found = [*record["reasons"], *(track["reasons"] if track else [])]
    return {reason["code"]: reason["text"] for reason in found}


def named(code: str, text: str) -> str:
    """Return the text of a reason with its code, which some texts begin with."""
    return f"{code}: {text.removeprefix(f'{code}: ')}"


def rejections(found: dict[str, str], thresholds: Thresholds) -> list[str]:
    """Return a line for each of the reasons, with texts by code, that does not pass."""
    return [f"rejected: {named(code, text)}" for code, text in found.items() if code in thresholds.reject]


def warnings(found: dict[str, str], thresholds: Thresholds, *, stale: tuple[str, ...] = ()) -> list[str]:
    """Return the texts of the reasons why a score is not reliable.

    Args:
        found: Texts by code.
        thresholds: Thresholds, whose ``rejections`` are left out.
        stale: Codes that do not hold any more.
    """
    left_out = (*thresholds.reject, *stale)
    return [text for code, text in found.items() if code in UNRELIABLE and code not in left_out]


def floats() -> array[float]:
    """Return an empty array of float64, which needs less memory than a list."""
    return array("d")


def integers() -> array[int]:
    """Return an empty array of integers."""
    return array("l")


@dataclass
class Statistics:
    """Counts and scores of a folder, all by one recipe, updated video by video.

    Attributes:
        statuses: Number of videos by status.
        good: Number of scored videos that pass.
        poor: Number of scored videos that do not pass.
        corrected: Number of videos that pass because they are corrected.
        pending: Number of videos that are yet to be corrected to pass, which count as poor.
        unfinished: Number of videos whose correction did not finish, which count as poor.
        reasons: Number of videos by code of a reason of the video or of its most confident track.
        not_checked: Number of scored videos by code that they were not checked for, by earlier versions.
        confidences: Confidence of the most confident track of every scored video.
        min_dists: Minimum distance of the same tracks.
        offsets: Offset of the same tracks, in frames.
        all_confidences: Confidence of every scored track.
        all_min_dists: Minimum distance of every scored track.
    """

    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    good: int = 0
    poor: int = 0
    corrected: int = 0
    pending: int = 0
    unfinished: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    not_checked: Counter[str] = field(default_factory=Counter)
    confidences: array[float] = field(default_factory=floats)
    min_dists: array[float] = field(default_factory=floats)
    offsets: array[int] = field(default_factory=integers)
    all_confidences: array[float] = field(default_factory=floats)
    all_min_dists: array[float] = field(default_factory=floats)

    @property
    def failed(self) -> int:
        """Number of videos that failed."""
        return self.statuses[FAILED]

    @property
    def total(self) -> int:
        """Number of videos with any status."""
        return sum(self.statuses.values())

    def add(self, record: Record, verdict: Verdict) -> None:
        """Add one video.

        Args:
            record: The video's line of the journal.
            verdict: Verdict on the video.
        """
        self.statuses[record["status"]] += 1
        self.reasons.update(verdict.found.keys())
        if verdict.track is None:
            return
        checks = record.get("checks") or ()  # lines of earlier versions lack it
        self.not_checked.update(code for code in CHECKS if code not in checks)
        self.good += verdict.passes
        self.poor += not verdict.passes
        self.corrected += verdict.passes and verdict.corrected
        self.pending += verdict.pending
        self.unfinished += verdict.unfinished
        self.confidences.append(verdict.track["confidence"])
        self.min_dists.append(verdict.track["min_dist"])
        self.offsets.append(verdict.track["offset"])
        for track in record["tracks"]:
            if track["confidence"] is not None:
                self.all_confidences.append(track["confidence"])
                self.all_min_dists.append(track["min_dist"])

    def counts(self) -> dict[str, int]:
        """Return the counts with the keys of the published suite, and those of the other statuses."""
        return {
            "successful_processing": self.statuses["success"],
            "good_quality": self.good,
            "poor_quality": self.poor,
            "no_faces_detected": self.statuses["no_faces"],
            "processing_failed": self.failed,
            "no_audio": self.statuses["no_audio"],
            "no_video": self.statuses["no_video"],
        }

    def lse(self, *, reportable: bool) -> dict[str, dict[str, Any]]:
        """Return mean and median of confidence and minimum distance, and of LSE-C and LSE-D as papers report them.

        Args:
            reportable: True if the scores are LSE-C and LSE-D, which are otherwise None.
        """
        return {
            "most_confident_track_of_each_video": {
                "videos": len(self.confidences),
                **middles(self.confidences, self.min_dists, reportable=reportable),
            },
            "all_tracks": {
                "tracks": len(self.all_confidences),
                **middles(self.all_confidences, self.all_min_dists, reportable=reportable),
            },
        }


def middles(confidences: array[float], min_dists: array[float], *, reportable: bool) -> dict[str, Any]:
    """Return the ``middle`` of confidences and minimum distances; ``reportable`` as for ``Statistics.lse``."""
    found = {"confidence": middle(confidences), "min_dist": middle(min_dists)}
    none = middle(floats())
    return {
        **found,
        "lse_c": found["confidence"] if reportable else none,
        "lse_d": found["min_dist"] if reportable else none,
    }


def middle(values: array[float]) -> dict[str, float | None]:
    """Return mean and median, each None if there are no values."""
    if not values:
        return {"mean": None, "median": None}
    return {"mean": math.fsum(values) / len(values), "median": statistics.median(values)}
