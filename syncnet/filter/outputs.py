"""What the filter makes of its journal: sync_filter_results.json, results.csv and the summary."""

import csv
import json
import math
from dataclasses import asdict

from syncnet.constants import MILLISECONDS_PER_FRAME
from syncnet.filter.inputs import Video
from syncnet.filter.quality import Statistics, judge
from syncnet.filter.recipe import footnote
from syncnet.filter.scorer import timestamp
from syncnet.results.layout import new_file

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
)
TRACK_COLUMNS = ("offset", "offset_ms", "confidence", "min_dist", "lse_c", "lse_d", "mean_face_size")
DETECTION_SETTINGS = ("min_face_size", "min_track")  # those of ``filter_settings`` that need new scores
BAR_WIDTH = 40
MOST_BARS = 31  # offsets of 15 frames either way, one by one
ALL, SOME, NONE = "*", "+", " "  # of a bar's videos pass


def result(record, verdict):
    """What sync_filter_results.json has of one video, from its line of the journal."""
    track = verdict.track or {}
    return {
        "video_name": record["video_name"],
        "video_path": record["video_path"],
        "status": record["status"],
        "offset": track.get("offset"),
        "confidence": track.get("confidence"),
        "all_tracks": record["tracks"],
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
    }


def row(record, verdict):
    """What results.csv has of one video."""
    track = verdict.track or {}
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
    }


def write_results(records, filter_layout, *, settings, thresholds, total, recipes):
    """Judge every video and write the JSON and the table, each complete or not at all.

    Args:
        records: iterable of the journal's lines, in the order that the results have.
        filter_layout: ``FilterLayout``.
        settings: what ``filter_settings`` holds; its ``DETECTION_SETTINGS`` become those that most scores were made by.
        thresholds: ``Thresholds``.
        total: videos of this run, scored or not.
        recipes: recipes by digest.

    Returns:
        ``Statistics``, and per video a pair: the ``Video`` as it was scored, and whether it passes (None: no score).
    """
    found, verdicts = Statistics(), []
    with (
        new_file(filter_layout.results) as results,
        new_file(filter_layout.table) as table,
        results.open("w", encoding="utf-8") as lines,
        # a name that is no Unicode is kept as it is
        table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as rows,
    ):
        writer = csv.writer(rows)
        writer.writerow(COLUMNS)
        lines.write('{\n"results": [')
        for index, record in enumerate(records):
            verdict = judge(record, thresholds)
            found.add(record, verdict)
            verdicts.append((scored_video(record), verdict.passes if verdict.track else None))
            lines.write(("," if index else "") + "\n" + json.dumps(result(record, verdict)))
            of_video = row(record, verdict)
            writer.writerow([of_video[column] for column in COLUMNS])
        lines.write("\n],\n")
        end = {
            "filter_settings": {**settings, **detection_settings(found, recipes)},
            "total_videos": total,
            **found.counts(),
            "not_scored": total - found.total,
            "timestamp": timestamp(),
            "lse": found.lse(),
            "recipes": used_recipes(found, recipes),
        }
        lines.write(json.dumps(end, indent=1)[2:] + "\n")
    return found, verdicts


def scored_video(record):
    """The ``Video`` of a line of the journal."""
    return Video(record["video_path"], record["name"], record["size"], record["mtime_ns"])


def detection_settings(found, recipes):
    """The ``DETECTION_SETTINGS`` of the most frequent recipe; nothing where that is not known."""
    known = [used["parameters"] for used in used_recipes(found, recipes)[:1] if used["parameters"]]
    return {name: parameters[name] for parameters in known for name in DETECTION_SETTINGS}


def used_recipes(found, recipes):
    """Which recipes the scores were made by, most frequent first."""
    counts = sorted(found.recipes.items(), key=lambda item: -item[1])
    return [{"recipe": digest, "videos": count, "parameters": recipes.get(digest)} for digest, count in counts]


def summary(found, *, total, thresholds, recipes):
    """Lines for people: counts, distributions of the scores, and a paper's line."""
    counts = found.counts()
    yield (
        f"{total} videos: {found.good} good, {found.poor} poor, {counts['no_faces_detected']} without faces, "
        f"{counts['no_audio']} without audio, {counts['no_video']} without video, {found.failed} failed, "
        f"{total - found.total} not scored"
    )
    if not found.confidences:
        return
    yield ""
    least, most = thresholds.min_confidence, thresholds.max_abs_offset
    yield f"confidence of the most confident track ({ALL} at least {least:g}, {SOME} in part)"
    yield from histogram(found.confidences, passes=lambda value: value >= least)
    yield ""
    yield f"offset in frames of {MILLISECONDS_PER_FRAME} ms ({ALL} at most {most} either way, {SOME} in part)"
    yield from histogram(found.offsets, passes=lambda value: abs(value) <= most, whole=True)
    yield ""
    lse = found.lse()
    by_video, by_track = lse["most_confident_track_of_each_video"], lse["all_tracks"]
    yield f"most confident track of each of {by_video['videos']} videos: {lse_line(by_video)}"
    yield f"all {by_track['tracks']} tracks: {lse_line(by_track)}"
    for used in used_recipes(found, recipes):
        parameters = used["parameters"]
        yield f"recipe of {used['videos']} videos: {footnote(parameters) if parameters else used['recipe']}"
        if parameters and not parameters["initial_model"]["published"]:
            yield "not the published SyncNet weights: these are no LSE-C and LSE-D to report"
    if len(found.recipes) > 1:
        yield "scores of different recipes cannot be compared: --rescore changed makes them alike"


def lse_line(part):
    texts = (
        f"{name} mean {part[key]['mean']:.3f} median {part[key]['median']:.3f}"
        for name, key in (("LSE-C", "lse_c"), ("LSE-D", "lse_d"))
    )
    return ", ".join(texts)


def histogram(values, *, passes, whole=False):
    """Lines of a histogram of at most ``MOST_BARS`` bars.

    Args:
        values: numbers, at least one.
        passes: whether a value is good enough: bars are marked by it.
        whole: whether the values are whole numbers.
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
        if not count:  # the mark shows where the threshold lies
            good[index] = count = passes(low) and passes(high - 1 if whole else low)
        mark = NONE if not good[index] else ALL if good[index] == count else SOME
        yield f"{label:>12} {mark} {bar:<{BAR_WIDTH}} {counts[index]}"


def span(values, width):
    """Bins of a width that hold all values: the first, and the one after the last."""
    return math.floor(min(values) / width), math.floor(max(values) / width) + 1


def settings_record(thresholds, parameters):
    """``filter_settings``: the four published numbers."""
    return {
        **asdict(thresholds),
        **{name: getattr(parameters, name) for name in DETECTION_SETTINGS},
    }
