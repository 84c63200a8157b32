"""run_syncnet's work: score every face track of a video, and say who speaks."""

import contextlib
import logging
from dataclasses import dataclass

import numpy as np

from syncnet import reasons
from syncnet.defaults import BATCH_SIZE, SPEAKER_THRESHOLD, VSHIFT
from syncnet.errors import MediaError, SyncNetError
from syncnet.progress import silent
from syncnet.results.layout import crop_number, discard, make_folder, new_file
from syncnet.results.scores_json import (
    empty_record,
    score_record,
    scores_report,
    span_record,
    track_record,
    weights_record,
)
from syncnet.results.step_files import load_pipeline, save_json, save_pickle
from syncnet.steps.versions import versions
from syncnet.sync.framewise import speaking_confidence
from syncnet.sync.scoring import SyncScore
from syncnet.sync.speakers import spans, speaking_tracks

logger = logging.getLogger("syncnet")

UNSCORABLE = (reasons.TOO_SHORT, reasons.NO_AUDIO)


@dataclass(frozen=True)
class SyncResult:
    """What ``run`` found.

    Attributes:
        scores: per track its ``SyncScore``, or the ``Reason`` why there is none.
        speakers: list of ``Span``.
        report: what scores.json holds.
    """

    scores: list
    speakers: list
    report: dict


def run(
    layout,
    net,
    *,
    batch_size=BATCH_SIZE,
    vshift=VSHIFT,
    speaker_threshold=SPEAKER_THRESHOLD,
    print_line=print,
    progress=silent,
):
    """Score the face tracks that run_pipeline cut out; write activesd.pckl, offsets.txt and scores.json.

    Args:
        layout: ``Layout``.
        net: ``SyncNetInstance`` with its parameters loaded.
        batch_size, vshift: as in ``SyncNetInstance.score``.
        speaker_threshold: confidence that a speaking face is above.
        print_line: takes the lines that the published suite prints.
        progress: as in ``syncnet.progress``.

    Returns:
        ``SyncResult``; no track is no error.

    Raises:
        SyncNetError: there is nothing from run_pipeline, or a crop is damaged.
    """
    if not layout.crops.is_dir():
        raise SyncNetError(
            f"{layout.crops}: not there: run run_pipeline.py with the same --data_dir and --reference first"
        )
    pipeline = load_pipeline(layout.pipeline) if layout.pipeline.exists() else None
    files = layout.crop_files()
    if pipeline and len(files) < len(pipeline["tracks"]):
        there = f"{len(files)} of {len(pipeline['tracks'])} face tracks are there"
        raise SyncNetError(f"{layout.crops}: {there}: run run_pipeline.py again")
    if not (pipeline or files):
        raise SyncNetError(f"{layout.crops}: no face tracks in it: run run_pipeline.py first")
    if not layout.distances.parent.exists():  # crops from elsewhere
        make_folder(layout.distances.parent)
    for old in (layout.distances, layout.offsets, layout.scores):
        old.unlink(missing_ok=True)
    try:
        options = {"batch_size": batch_size, "vshift": vshift, "print_line": print_line}
        with contextlib.closing(net.score_all(files, folder=layout.tmp, **options)) as found:
            bar = progress(found, total=len(files), desc="tracks")
            scores = [score_or_reason(score, file) for score, file in zip(bar, files)]
    finally:
        discard(layout.tmp)
    records = [
        {**describe(pipeline, index, crop_number(file), score), **numbers(score, vshift=vshift)}
        for index, (file, score) in enumerate(zip(files, scores))
    ]
    found = speakers(scores, [record["first_frame"] for record in records], threshold=speaker_threshold)
    recipe = {**scoring_recipe(net, batch_size=batch_size, vshift=vshift), "speaker_threshold": speaker_threshold}
    spans_found = list(map(span_record, found))
    report = scores_report(pipeline, reference=layout.reference, tracks=records, speakers=spans_found, recipe=recipe)
    save_pickle([distances(score, vshift=vshift) for score in scores], layout.distances)
    with new_file(layout.offsets) as aside:
        aside.write_text("".join(offset_lines(scores)), encoding="utf-8")
    save_json(report, layout.scores)
    return SyncResult(scores=scores, speakers=found, report=report)


def score_or_reason(found, file):
    """The ``SyncScore`` of a clip, or the ``Reason`` why it has none, which does not name the file.

    Raises:
        MediaError: the clip is damaged.
    """
    if not isinstance(found, MediaError):
        return found
    if found.code not in UNSCORABLE:
        raise found
    return reasons.Reason(found.code, str(found).removeprefix(f"{file}: "))


def numbers(score, *, vshift):
    return score_record(score, vshift=vshift) if isinstance(score, SyncScore) else empty_record(score)


def describe(pipeline, index, number, score):
    """The ``track_record`` of a clip; without run_pipeline's word on it, times count from the clip's start."""
    tracks = pipeline["tracks"] if pipeline else []
    if number is not None and number < len(tracks):
        track = tracks[number]
        return track_record(index, track["first_frame"], track["last_frame"], track["mean_face_size"])
    frames = score.video_frames if isinstance(score, SyncScore) else 0
    return track_record(index, 0, frames - 1, None)


def speakers(scores, starts, *, threshold):
    """Spans of one speaker; a track without a score never speaks."""
    confidences = [speaking_confidence(s.dists) if isinstance(s, SyncScore) else np.zeros(0) for s in scores]
    return spans(speaking_tracks(starts, confidences, threshold=threshold))


def distances(score, *, vshift):
    """The distances of a clip, none without a score: activesd.pckl keeps the tracks' order."""
    return score.dists if isinstance(score, SyncScore) else np.zeros((0, 2 * vshift + 1), np.float32)


def offset_lines(scores):
    for index, score in enumerate(scores):
        if isinstance(score, SyncScore):
            yield f"TRACK {index}: OFFSET {score.offset}, CONF {score.confidence:.3f}\n"


def scoring_recipe(net, *, batch_size, vshift):
    """Everything on this side of run_pipeline that a score depends on."""
    return {
        "initial_model": weights_record(net.weights),
        "batch_size": batch_size,
        "vshift": vshift,
        "device": str(net.device),
        "versions": versions(),
    }


def single_report(score, net, *, videofile, batch_size, vshift):
    """What scores.json would hold of one clip that did not come from run_pipeline."""
    record = {**describe(None, 0, 0, score), **numbers(score, vshift=vshift)}
    recipe = scoring_recipe(net, batch_size=batch_size, vshift=vshift)
    report = scores_report(None, reference=None, tracks=[record], speakers=[], recipe=recipe)
    return {**report, "videofile": str(videofile)}


def warnings(result):
    """Lines on what is doubtful: of the whole video and of every track."""
    for reason in result.report["reasons"]:
        yield reason["text"]
    for record in result.report["tracks"]:
        for reason in record["reasons"]:
            yield f"track {record['track']}: {reason['text']}"
