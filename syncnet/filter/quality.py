"""Judge videos by two thresholds, and collect the statistics of a folder."""

from __future__ import annotations

import math
import statistics
from array import array
from dataclasses import dataclass, field
from typing import Any

from syncnet import reasons
from syncnet.filter.scorer import FAILED, STATUSES, SUCCESS, Record


@dataclass(frozen=True)
class Thresholds:
    """Thresholds that a video must meet to pass.

    Attributes:
        min_confidence: Lowest confidence that passes.
        max_abs_offset: Largest absolute offset that passes, in frames.
    """

    min_confidence: float
    max_abs_offset: int


PRESETS = {
    "strict": Thresholds(8.0, 2),
    "high": Thresholds(6.0, 3),
    "medium": Thresholds(4.0, 5),
    "relaxed": Thresholds(2.0, 8),
}
DEFAULT = Thresholds(5.0, 3)
UNRELIABLE = (reasons.EDGE_OFFSET, reasons.LOW_CONFIDENCE)  # reasons of a track that concern the verdict


@dataclass(frozen=True)
class Verdict:
    """Verdict on a video.

    Attributes:
        track: Record of the most confident track; None if no track has a score.
        passes: True if the video is good.
        reasons: Lines of text: why the video does not pass, and warnings about its score.
    """

    track: Record | None
    passes: bool
    reasons: list[str]


def best_track(tracks: list[Record]) -> Record | None:
    """Return the record of the most confident track; None if no track has a score."""
    scored = [track for track in tracks if track["confidence"] is not None]
    return max(scored, key=lambda track: track["confidence"], default=None)


def judge(record: Record, thresholds: Thresholds) -> Verdict:
    """Judge one video.

    Args:
        record: The video's line of the journal.
        thresholds: Thresholds to apply.

    Returns:
        The verdict.
    """
    if record["status"] != SUCCESS:
        lines = [reason["text"] for reason in record["reasons"]]
        return Verdict(None, False, lines or [record["error"] or record["status"]])
    track = best_track(record["tracks"])
    assert track is not None, "a video with the status SUCCESS has a scored track"
    confidence, offset = track["confidence"], track["offset"]
    lines = []
    if confidence < thresholds.min_confidence:
        lines.append(f"confidence {confidence:.3f} is below {thresholds.min_confidence:g}")
    if abs(offset) > thresholds.max_abs_offset:
        lines.append(f"offset {offset} is more than {thresholds.max_abs_offset} frames")
    passes = not lines
    lines += [reason["text"] for reason in track["reasons"] if reason["code"] in UNRELIABLE]
    return Verdict(track, passes, lines)


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
        confidences: Confidence of the most confident track of every scored video.
        min_dists: Minimum distance of the same tracks.
        offsets: Offset of the same tracks, in frames.
        all_confidences: Confidence of every scored track.
        all_min_dists: Minimum distance of every scored track.
    """

    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    good: int = 0
    poor: int = 0
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
        if verdict.track is None:
            return
        self.good += verdict.passes
        self.poor += not verdict.passes
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
