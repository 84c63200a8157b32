"""Results derived from the journal: sync_filter_results.json, results.csv and the summary."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from syncnet import reasons
from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.defaults import PUBLISHED
from syncnet.filter.correction import CORRECTION, PENDING, Correcting
from syncnet.filter.inputs import Video
from syncnet.filter.layout import FilterLayout
from syncnet.filter.quality import Statistics, Thresholds, Verdict, judge, named
from syncnet.filter.recipe import Parameters, Recipe, footnote, gives_lse, mode_of
from syncnet.filter.scorer import Record, timestamp
from syncnet.results.layout import new_file
from syncnet.results.scores_json import SPEAKING_KEYS

CORRECTION_NUMBERS = ("lag_before_ms", "lag_after_ms", "confidence_after", "delay_ms")
COLUMNS = (
    "name",
    "video_path",
    "status",
    "passes_quality",
    "offset",
    "offset_ms",
    "confidence",
    "min_dist",
    "lse_c",
    "lse_d",
    "tracks",
    "mean_face_size",
    "seconds_of_track",
    "quality_reasons",
    "error",
    "processing_time",
    "mode",
    "weights",
    "lag_ms",
    "lag_error_ms",
    *SPEAKING_KEYS,
    CORRECTION,
    *CORRECTION_NUMBERS,
    "correction_notes",
    "codes",
)
TRACK_COLUMNS = ("offset", "offset_ms", "confidence", "min_dist", "lse_c", "lse_d", "mean_face_size", *SPEAKING_KEYS)
# Of the whole video; lines of earlier versions lack them.
LAG_KEYS = ("lag_ms", "lag_error_ms")
TURNS_KEYS = ("speakers", "speech_without_face", "min_speaking")
CHECKS_KEY = "checks"
DETECTION_SETTINGS = ("min_face_size", "min_track")  # entries of ``filter_settings`` that affect scores
BAR_WIDTH = 40
MOST_BARS = 31  # one bar per offset from -15 to 15
ALL, SOME, NONE = "*", "+", " "  # marks of a bar: all, some or none of its videos pass


@dataclass(frozen=True)
class Judged:
    """The recipe whose scores are judged.

    Attributes:
        digest: Digest of the recipe.
        recipe: The recipe; None if it is unknown.
        others: Record of every other recipe in the journal, with the number of its videos.
    """

    digest: str
    recipe: Recipe | None
    others: list[Record]

    @cached_property
    def lse(self) -> bool:
        """True if the scores are LSE-C and LSE-D."""
        return gives_lse(self.recipe)

    @cached_property
    def mode(self) -> str | None:
        """Mode of the scores."""
        return mode_of(self.recipe) if self.recipe else None

    @cached_property
    def weights(self) -> str | None:
        """Name of SyncNet's weights."""
        return self.recipe["initial_model"]["name"] if self.recipe else None


def with_lse(track: Record, *, lse: bool) -> Record:
    """Return the record of a track with LSE-C and LSE-D, or with None for them.

    The line of a video that an earlier version scored has numbers there, whatever weights they come from.
    """
    return {**track, "lse_c": track["confidence"] if lse else None, "lse_d": track["min_dist"] if lse else None}


def result(record: Record, verdict: Verdict, judged: Judged) -> Record:
    """Return the record of one video in sync_filter_results.json.

    Args:
        record: The video's line of the journal.
        verdict: Verdict on the video.
        judged: The recipe of the score.
    """
    track = verdict.track or {}
    return {
        "video_name": record["video_name"],
        "video_path": record["video_path"],
        "status": record["status"],
        "offset": track.get("offset"),
        "confidence": track.get("confidence"),
        "all_tracks": [with_lse(each, lse=judged.lse) for each in record["tracks"]],
        "passes_quality": verdict.passes,
        "quality_reasons": verdict.reasons,
        "error": record["error"],
        "start_time": record["start_time"],
        "end_time": record["end_time"],
        "processing_time": record["processing_time"],
        "name": record["name"],
        "min_dist": track.get("min_dist"),
        "best_track": track.get("track"),
        "faces": record["faces"],
        "reasons": record["reasons"],
        "recipe": record["recipe"],
        "mode": judged.mode,
        **{name: record.get(name) for name in LAG_KEYS},
        "sound": record.get("sound"),
        **{name: record.get(name) for name in TURNS_KEYS},
        CORRECTION: record.get(CORRECTION),
        "codes": list(verdict.found),
        CHECKS_KEY: record.get(CHECKS_KEY),
    }


def row(record: Record, verdict: Verdict, judged: Judged) -> Record:
    """Return the row of one video in results.csv, by column; arguments as for ``result``."""
    track = with_lse(verdict.track, lse=judged.lse) if verdict.track else {}
    return {
        **{name: track.get(name) for name in TRACK_COLUMNS},
        "name": record["name"],
        "video_path": record["video_path"],
        "status": record["status"],
        "passes_quality": verdict.passes,
        "tracks": len(record["tracks"]),
        "seconds_of_track": round(track["end"] - track["start"], 3) if track else None,
        "quality_reasons": "; ".join(verdict.reasons),
        "error": record["error"],
        "processing_time": record["processing_time"],
        "mode": judged.mode,
        "weights": judged.weights,
        **{name: record.get(name) for name in LAG_KEYS},
        **correction_columns(record.get(CORRECTION) or {}, pending=verdict.pending),
        "codes": "; ".join(verdict.found),
    }


def correction_columns(found: Record, *, pending: bool) -> Record:
    """Return the columns about the correction of a video.

    Args:
        found: Record of the correction; an empty dict without one.
        pending: True if the video is yet to be corrected.
    """
    return {
        CORRECTION: PENDING if pending else found.get("state"),
        **{name: found.get(name) for name in CORRECTION_NUMBERS},
        "correction_notes": "; ".join(found.get("notes", ())),
    }


@dataclass(frozen=True, slots=True)
class Decided:
    """What the results say of a video.

    Attributes:
        video: The video as it was scored.
        passes: True if it passes; None without a score.
        corrected: As in ``Verdict``.
        pending: Why it is yet to be corrected; empty otherwise.
        damage: What is damaged, if it passes nevertheless; empty otherwise.
    """

    video: Video
    passes: bool | None
    corrected: bool
    pending: str
    damage: str


def write_results(
    records: Iterable[Record],
    filter_layout: FilterLayout,
    *,
    settings: Record,
    thresholds: Thresholds,
    total: int,
    judged: Judged,
    correcting: Correcting | None = None,
) -> tuple[Statistics, list[Decided]]:
    """Judge every video and write the JSON and the table, each completely or not at all.

    Args:
        records: Lines of the journal, in the order of the results.
        filter_layout: Paths of the output folder.
        settings: Record of ``filter_settings``; its ``DETECTION_SETTINGS`` are replaced by those of the scores.
        thresholds: Thresholds to judge by.
        total: Number of videos of this run, with and without score.
        judged: The recipe of the scores.
        correcting: As for ``judge``.

    Returns:
        The statistics, and what was decided of every video.

    Raises:
        DiskFullError: The disk is full.
        SyncNetError: A file cannot be written for another reason.
    """
    found = Statistics()
    decided: list[Decided] = []
    with (
        new_file(filter_layout.results) as results,
        new_file(filter_layout.table) as table,
        results.open("w", encoding="utf-8") as lines,
        # names that are not valid Unicode keep their bytes
        table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as rows,
    ):
        writer = csv.DictWriter(rows, COLUMNS)
        writer.writeheader()
        lines.write('{\n"results": [')
        for index, record in enumerate(records):
            verdict = judge(record, thresholds, correcting)
            found.add(record, verdict)
            passes = verdict.passes if verdict.track else None
            pending = verdict.reasons[-1] if verdict.pending else ""
            damage = verdict.found.get(reasons.DAMAGED) if passes else None
            damage = named(reasons.DAMAGED, damage) if damage is not None else ""
            decided.append(Decided(scored_video(record), passes, verdict.corrected, pending, damage))
            lines.write(("," if index else "") + "\n" + json.dumps(result(record, verdict, judged)))
            writer.writerow(row(record, verdict, judged))
        lines.write("\n],\n")
        end = {
            "filter_settings": {**settings, **detection_settings(judged)},
            "total_videos": total,
            **found.counts(),
            **({"corrected": found.corrected, "not_yet_corrected": found.pending} if correcting else {}),
            "not_scored": total - found.total,
            "reason_counts": dict(found.reasons.most_common()),
            "not_checked": dict(found.not_checked),
            "timestamp": timestamp(),
            "lse": found.lse(reportable=judged.lse),
            "recipes": [{"recipe": judged.digest, "videos": len(found.confidences), "parameters": judged.recipe}],
            "other_recipes": judged.others,
        }
        lines.write(json.dumps(end, indent=1)[2:] + "\n")
    return found, decided


def scored_video(record: Record) -> Video:
    """Return the video of a line of the journal, as it was when it was scored."""
    return Video(record["video_path"], record["name"], record["size"], record["mtime_ns"])


def detection_settings(judged: Judged) -> Record:
    """Return the ``DETECTION_SETTINGS`` of a recipe; an empty dict if the recipe is unknown."""
    return {name: judged.recipe[name] for name in DETECTION_SETTINGS} if judged.recipe else {}


def summary(found: Statistics, *, total: int, thresholds: Thresholds, judged: Judged) -> Iterator[str]:
    """Write the summary for the user: counts, histograms of the scores, and the figures that papers report.

    Args:
        found: Statistics of the videos.
        total: Number of videos of this run, with and without score.
        thresholds: Thresholds that the videos were judged by.
        judged: The recipe of the scores.

    Yields:
        One line at a time.
    """
    counts = found.counts()
    yield (
        f"{total} videos: {found.good} good, {found.poor} poor, {counts['no_faces_detected']} without faces, "
        f"{counts['no_audio']} without audio, {counts['no_video']} without video, {found.failed} failed, "
        f"{total - found.total} not scored"
    )
    if found.corrected or found.pending:
        later = f", {found.pending} of the poor ones are not yet corrected" if found.pending else ""
        yield f"{found.corrected} of the good ones are corrected{later}"
    yield from reason_lines(found, thresholds=thresholds)
    if found.confidences:
        yield from distributions(found, thresholds=thresholds)
        yield from figures(found, judged)
    if judged.others:
        videos = sum(other["videos"] for other in judged.others)
        recipes = "1 other recipe" if len(judged.others) == 1 else f"{len(judged.others)} other recipes"
        yield f"not judged: {videos} scores by {recipes}, not comparable: give their flags to judge them"


def reason_lines(found: Statistics, *, thresholds: Thresholds) -> Iterator[str]:
    """Yield the lines that count the codes of reasons; arguments as for ``summary``."""
    if found.reasons:
        reject = thresholds.reject
        counts = (f"{n} {code}{' (rejected)' * (code in reject)}" for code, n in found.reasons.most_common())
        yield f"reasons: {', '.join(counts)}"
    concern = dict.fromkeys((reasons.DAMAGED, *thresholds.reject))  # damage is said even where it passes
    missing = {code: found.not_checked[code] for code in concern if found.not_checked[code]}
    if missing:
        yield (
            f"{max(missing.values())} scored by an older version: not checked for {', '.join(missing)} "
            "(--rescore always scores them again)"
        )


def distributions(found: Statistics, *, thresholds: Thresholds) -> Iterator[str]:
    """Draw the histograms of confidences and offsets; arguments as for ``summary``."""
    yield ""
    least, most = thresholds.min_confidence, thresholds.max_abs_offset
    yield f"confidence of the most confident track ({ALL} at least {least:g}, {SOME} in part)"
    yield from histogram(found.confidences, passes=lambda value: value >= least)
    yield ""
    yield f"offset in frames of {MILLISECONDS_PER_FRAME} ms ({ALL} at most {most} either way, {SOME} in part)"
    yield from histogram(found.offsets, passes=lambda value: abs(value) <= most, whole=True)
    yield ""


def figures(found: Statistics, judged: Judged) -> Iterator[str]:
    """Yield the lines with the figures that papers report, and with the recipe; arguments as for ``summary``."""
    lse = found.lse(reportable=judged.lse)
    by_video, by_track = lse["most_confident_track_of_each_video"], lse["all_tracks"]
    names = {"lse_c": "LSE-C", "lse_d": "LSE-D"} if judged.lse else {"confidence": "confidence", "min_dist": "min dist"}
    yield f"most confident track of each of {by_video['videos']} videos: {middle_line(by_video, names)}"
    yield f"all {by_track['tracks']} tracks: {middle_line(by_track, names)}"
    recipe = judged.recipe
    yield f"recipe of {by_video['videos']} videos: {footnote(recipe) if recipe else judged.digest}"
    if recipe and not judged.lse:
        why = "not the published SyncNet weights" if judged.mode == PUBLISHED else f"{judged.mode} mode"
        yield f"{why}: do not report these numbers as LSE-C and LSE-D"


def middle_line(part: dict[str, Any], names: dict[str, str]) -> str:
    """Return the text of a part of ``Statistics.lse``.

    Args:
        part: The part.
        names: Names of the numbers to show, by their keys.
    """
    return ", ".join(
        f"{name} mean {part[key]['mean']:.3f} median {part[key]['median']:.3f}" for key, name in names.items()
    )


def histogram(values: Sequence[float], *, passes: Callable[[float], bool], whole: bool = False) -> Iterator[str]:
    """Draw a histogram of at most ``MOST_BARS`` bars.

    Args:
        values: Numbers, at least one.
        passes: Returns True for a value that meets the threshold; bars are marked accordingly.
        whole: True if the values are integers.

    Yields:
        One line per bar.
    """
    width = 1
    while span(values, width)[1] - span(values, width)[0] > MOST_BARS:
        width *= 2
    first, end = span(values, width)
    counts, good = [0] * (end - first), [0] * (end - first)
    for value in values:
        index = math.floor(value / width) - first
        counts[index] += 1
        good[index] += passes(value)
    for index, count in enumerate(counts):
        low = (first + index) * width
        high = low + width
        label = f"{low}" if whole and width == 1 else f"{low} to {high - 1 if whole else high}"
        bar = "#" * math.ceil(count * BAR_WIDTH / max(counts))
        if not count:  # empty bars are marked too, to show where the threshold lies
            good[index] = count = passes(low) and passes(high - 1 if whole else low)
        mark = NONE if not good[index] else ALL if good[index] == count else SOME
        yield f"{label:>12} {mark} {bar:<{BAR_WIDTH}} {counts[index]}"


def span(values: Sequence[float], width: int) -> tuple[int, int]:
    """Return the index of the first bin of the given width that contains a value, and of the last one plus 1."""
    return math.floor(min(values) / width), math.floor(max(values) / width) + 1


def settings_record(thresholds: Thresholds, parameters: Parameters, *, max_lag: float | None = None) -> Record:
    """Return the record of ``filter_settings``: the four numbers of the published suite, and what it lacks.

    Args:
        thresholds: Thresholds to judge by.
        parameters: Parameters of the recipe.
        max_lag: Largest lag to take out, in milliseconds; None if no videos are corrected.
    """
    return {
        **asdict(thresholds),
        **{name: getattr(parameters, name) for name in DETECTION_SETTINGS},
        **({} if max_lag is None else {"max_lag": max_lag}),
    }
