"""Which videos are good: a verdict by two thresholds, and the statistics of a folder."""

import math
import statistics
from array import array
from dataclasses import dataclass, field

from syncnet import reasons
from syncnet.filter.scorer import FAILED, STATUSES, SUCCESS


@dataclass(frozen=True)
class Thresholds:
    """A video passes with a confidence of at least, and an absolute offset (frames) of at most."""

    min_confidence: float
    max_abs_offset: int


PRESETS = {
    "strict": Thresholds(8.0, 2),
    "high": Thresholds(6.0, 3),
    "medium": Thresholds(4.0, 5),
    "relaxed": Thresholds(2.0, 8),
}
DEFAULT = Thresholds(5.0, 3)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a video.

    Attributes:
        track: record of the most confident track; None without a scored one.
        passes: whether it is good.
        reasons: lines: why not, or why to doubt it.
    """

    track: dict | None
    passes: bool
    reasons: list


def best_track(tracks):
    """The most confident track; None without a scored one."""
    scored = [track for track in tracks if track["confidence"] is not None]
    return max(scored, key=lambda track: track["confidence"], default=None)


def judge(record, thresholds):
    """The ``Verdict`` on one video.

    Args:
        record: its line of the journal.
        thresholds: ``Thresholds``.
    """
    if record["status"] != SUCCESS:
        lines = [reason["text"] for reason in record["reasons"]]
        return Verdict(None, False, lines or [record["error"] or record["status"]])
    track = best_track(record["tracks"])
    confidence, offset = track["confidence"], track["offset"]
    lines = []
    if confidence < thresholds.min_confidence:
        lines.append(f"confidence {confidence:.3f} is below {thresholds.min_confidence:g}")
    if abs(offset) > thresholds.max_abs_offset:
        lines.append(f"offset {offset} is more than {thresholds.max_abs_offset} frames")
    passes = not lines
    lines += [reason["text"] for reason in track["reasons"] if reason["code"] == reasons.EDGE_OFFSET]
    return Verdict(track, passes, lines)


def floats():
    """Room for a million numbers."""
    return array("d")


def integers():
    return array("l")


@dataclass
class Statistics:
    """Counts and scores of a folder, added up video by video.

    Attributes:
        statuses: videos by status.
        good, poor: scored videos that pass, and that do not.
        confidences, min_dists, offsets: of the most confident track of every scored video.
        all_confidences, all_min_dists: of every scored track.
        recipes: scored videos by the digest of their recipe.
    """

    statuses: dict = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    good: int = 0
    poor: int = 0
    confidences: array = field(default_factory=floats)
    min_dists: array = field(default_factory=floats)
    offsets: array = field(default_factory=integers)
    all_confidences: array = field(default_factory=floats)
    all_min_dists: array = field(default_factory=floats)
    recipes: dict = field(default_factory=dict)

    @property
    def failed(self):
        return self.statuses[FAILED]

    @property
    def total(self):
        """Videos with any status."""
        return sum(self.statuses.values())

    def add(self, record, verdict):
        """Count one video."""
        self.statuses[record["status"]] += 1
        if verdict.track is None:
            return
        self.good += verdict.passes
        self.poor += not verdict.passes
        self.confidences.append(verdict.track["confidence"])
        self.min_dists.append(verdict.track["min_dist"])
        self.offsets.append(verdict.track["offset"])
        self.recipes[record["recipe"]] = self.recipes.get(record["recipe"], 0) + 1
        for track in record["tracks"]:
            if track["confidence"] is not None:
                self.all_confidences.append(track["confidence"])
                self.all_min_dists.append(track["min_dist"])

    def counts(self):
        """The counts under the published names, and those of the further statuses."""
        return {
            "successful_processing": self.statuses["success"],
            "good_quality": self.good,
            "poor_quality": self.poor,
            "no_faces_detected": self.statuses["no_faces"],
            "processing_failed": self.failed,
            "no_audio": self.statuses["no_audio"],
            "no_video": self.statuses["no_video"],
        }

    def lse(self):
        """Mean and median LSE-C and LSE-D: the line that a paper's table needs."""
        return {
            "most_confident_track_of_each_video": {
                "videos": len(self.confidences),
                "lse_c": middle(self.confidences),
                "lse_d": middle(self.min_dists),
            },
            "all_tracks": {
                "tracks": len(self.all_confidences),
                "lse_c": middle(self.all_confidences),
                "lse_d": middle(self.all_min_dists),
            },
        }


def middle(values):
    """Mean and median; None of nothing."""
    if not values:
        return {"mean": None, "median": None}
    return {"mean": math.fsum(values) / len(values), "median": statistics.median(values)}
