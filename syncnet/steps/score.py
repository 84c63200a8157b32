"""The step run_syncnet: score the face tracks of a video and find the speaking face."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from syncnet import reasons
from syncnet.defaults import BATCH_SIZE, MIN_SPEAKING, PUBLISHED, SPEAKER_THRESHOLD, VSHIFT
from syncnet.errors import MediaError, SyncNetError
from syncnet.media.sound import Sound, SoundInMemory, single_channels
from syncnet.progress import Progress, silent
from syncnet.reasons import Reason
from syncnet.results.layout import Layout, crop_number, discard, make_folder, new_file
from syncnet.results.scores_json import (
    empty_record,
    score_record,
    scores_report,
    track_record,
    weights_record,
)
from syncnet.results.step_files import load_pipeline, save_json, save_pickle
from syncnet.steps import doubts, speaking
from syncnet.steps.versions import versions
from syncnet.sync.scoring import SyncScore
from syncnet.sync.speakers import Span, Turns
from syncnet.sync.stream import levels_of

if TYPE_CHECKING:
    import torch

    from syncnet.results.protocols import Weights

logger = logging.getLogger("syncnet")

UNSCORABLE = (reasons.TOO_SHORT, reasons.NO_AUDIO)


class Net(Protocol):
    """Interface of ``SyncNetInstance``, which steps may not import.

    Attributes:
        device: torch device that runs the network.
        weights: weights in use.
    """

    @property
    def device(self) -> torch.device: ...

    @property
    def weights(self) -> Weights | None: ...

    def score_all(
        self,
        videofiles: Iterable[str | Path],
        *,
        folder: Path,
        batch_size: int = BATCH_SIZE,
        vshift: int = VSHIFT,
        face_crops: bool = False,
        audio: Path | None = None,
        audio_stream: int | None = None,
        print_line: Callable[[str], object] = print,
        on_fault: Callable[[str], object] = lambda fault: None,
    ) -> Generator[SyncScore | MediaError, None, None]:
        """Score several clips."""


@dataclass(frozen=True)
class SyncResult:
    """Result of ``run``.

    Attributes:
        scores: per track its ``SyncScore``, or the ``Reason`` why it has none.
        speakers: when each track's face speaks.
        report: content of scores.json.
    """

    scores: list[SyncScore | Reason]
    speakers: list[Span]
    report: dict[str, Any]


def run(
    layout: Layout,
    net: Net,
    *,
    batch_size: int = BATCH_SIZE,
    vshift: int = VSHIFT,
    speaker_threshold: float = SPEAKER_THRESHOLD,
    min_speaking: float = MIN_SPEAKING,
    print_line: Callable[[str], object] = print,
    progress: Progress = silent,
) -> SyncResult:
    """Score the face tracks from run_pipeline, and write activesd.pckl, offsets.txt and scores.json.

    A video without a track is not an error.

    Args:
        layout: ``Layout``.
        net: ``SyncNetInstance`` with loaded weights.
        batch_size, vshift: as in ``SyncNetInstance.score``.
        speaker_threshold: only recorded: run_visualise tags a face by it.
        min_speaking: shortest time for which a face speaks, in seconds.
        print_line: called with the lines that the published suite prints.
        progress: as in ``syncnet.progress``.

    Raises:
        SyncNetError: results of run_pipeline are missing or damaged.
    """
    if not layout.crops.is_dir():
        raise SyncNetError(
            f"{layout.crops}: does not exist: run run_pipeline.py with the same --data_dir and --reference first"
        )
    pipeline = load_pipeline(layout.pipeline) if layout.pipeline.exists() else None
    files = layout.crop_files()
    if pipeline and len(files) < len(pipeline["tracks"]):
        count = f"only {len(files)} of {len(pipeline['tracks'])} face tracks found"
        raise SyncNetError(f"{layout.crops}: {count}: run run_pipeline.py again")
    if not (pipeline or files):
        raise SyncNetError(f"{layout.crops}: no face tracks in it: run run_pipeline.py first")
    if not layout.distances.parent.exists():  # another program made the crops
        make_folder(layout.distances.parent)
    for old in (layout.distances, layout.offsets, layout.scores):
        old.unlink(missing_ok=True)
    try:
        found = net.score_all(files, folder=layout.tmp, batch_size=batch_size, vshift=vshift, print_line=print_line)
        with contextlib.closing(found) as results:
            bar = progress(results, total=len(files), desc="tracks")
            scores = [score_or_reason(score, file) for score, file in zip(bar, files)]
    finally:
        discard(layout.tmp)
    places = [describe(pipeline, index, crop_number(f), s) for index, (f, s) in enumerate(zip(files, scores))]
    turns = find_turns(scores, places, files, layout=layout, pipeline=pipeline, min_speaking=min_speaking)
    cancelled = doubts.cancelled_channels(
        turns.heard, [place["first_frame"] for place in places], source_channels(pipeline)
    )
    records = [
        {
            **place,
            **numbers(
                score,
                vshift=vshift,
                weights=net.weights,
                found=doubts.of_track(score, heard, start=place["start"], cancelled=cancelled.get(index)),
                has_speech=turns.has_speech[index],
            ),
            **speaking.numbers(score, spoken),
        }
        for index, (place, score, spoken, heard) in enumerate(zip(places, scores, turns.speaking, turns.heard))
    ]
    recipe = {
        **scoring_recipe(net, batch_size=batch_size, vshift=vshift),
        "speaker_threshold": speaker_threshold,
        "min_speaking": min_speaking,
    }
    report = scores_report(
        pipeline, reference=layout.reference, tracks=records, **speaking.records(turns), recipe=recipe
    )
    save_pickle([distances(score, vshift=vshift) for score in scores], layout.distances)
    with new_file(layout.offsets) as temporary:
        temporary.write_text("".join(offset_lines(scores)), encoding="utf-8")
    save_json(report, layout.scores)
    return SyncResult(scores=scores, speakers=turns.spans, report=report)


def score_or_reason(found: SyncScore | MediaError, file: Path) -> SyncScore | Reason:
    """Return the score of a clip, or the ``Reason`` why it has none, whose text does not name the file.

    Args:
        found: ``SyncScore`` or ``MediaError``, from ``SyncNetInstance.score_all``.
        file: path of the clip.

    Raises:
        MediaError: the clip is damaged.
    """
    if not isinstance(found, MediaError):
        return found
    if found.code not in UNSCORABLE:
        raise found
    return Reason(found.code, str(found).removeprefix(f"{file}: "))


def source_channels(pipeline: dict[str, Any] | None) -> Iterator[Sound]:
    """Yield the sound of every channel of the file that run_pipeline read, if it is still there.

    Args:
        pipeline: content of pipeline.json, or None.
    """
    recipe = (pipeline or {}).get("recipe") or {}
    source = recipe.get("audio") or (pipeline or {}).get("videofile")
    if source and Path(source).is_file():
        yield from single_channels(source, stream=recipe.get("audio_stream"))


def numbers(
    score: SyncScore | Reason,
    *,
    vshift: int,
    weights: Weights | None,
    found: Sequence[Reason] = (),
    has_speech: bool = True,
) -> dict[str, Any]:
    """Return the ``score_record`` of a ``SyncScore``, or the ``empty_record`` of a ``Reason``."""
    if not isinstance(score, SyncScore):
        return empty_record(score)
    return score_record(score, vshift=vshift, weights=weights, found=found, has_speech=has_speech)


def describe(
    pipeline: dict[str, Any] | None, index: int, number: int | None, score: SyncScore | Reason
) -> dict[str, Any]:
    """Return the ``track_record`` of a clip; if pipeline.json does not describe it, times start at the clip's start.

    Args:
        pipeline: content of pipeline.json, or None.
        index: index of the clip among the scored ones.
        number: number of the track in run_pipeline, from the clip's file name; None if it has another name.
        score: ``SyncScore`` or ``Reason`` of the clip.
    """
    tracks = pipeline["tracks"] if pipeline else []
    if number is not None and number < len(tracks):
        track = tracks[number]
        # pipeline.json of older versions has no box
        return track_record(
            index, track["first_frame"], track["last_frame"], track["mean_face_size"], box=track.get("box")
        )
    frames = score.video_frames if isinstance(score, SyncScore) else 0
    return track_record(index, 0, frames - 1, None)


def find_turns(
    scores: Sequence[SyncScore | Reason],
    places: Sequence[dict[str, Any]],
    files: Sequence[Path],
    *,
    layout: Layout,
    pipeline: dict[str, Any] | None,
    min_speaking: float,
) -> Turns:
    """Find who speaks when. Clips of another program, of which nothing else is known, are each a video of its own.

    Args:
        scores: per track its ``SyncScore`` or ``Reason``.
        places: per track its ``track_record``.
        files: clips of the tracks.
        layout: ``Layout``.
        pipeline: content of pipeline.json, or None.
        min_speaking: as in ``run``.
    """
    inside = [(place["first_frame"], place["last_frame"] + 1 - place["first_frame"]) for place in places]
    length = max((first + count for first, count in inside), default=0)

    def of_clip(file: Path, count: int) -> np.ndarray:
        return speaking.levels_of_file(file, frames=count)

    def placed(frames: int) -> np.ndarray:
        """Return the levels that the clips have, for a video whose audio file was removed."""
        levels = levels_of(SoundInMemory(np.zeros(0, np.int16)), frames)
        for file, (first, count) in zip(files, inside):
            levels[first : first + count] = of_clip(file, count)
        return levels

    if pipeline:
        frames = max(length, pipeline["faces"]["frames"] if pipeline["faces"] else 0)
        cuts = [scene["start"] for scene in pipeline.get("scenes", [])][1:]
        levels = speaking.levels_of_file(layout.audio, frames=frames) if layout.audio.exists() else placed(frames)
        return speaking.find(scores, inside, levels=levels, cuts=cuts, min_speaking=min_speaking)
    found = [
        speaking.find([score], [(0, count)], levels=of_clip(file, count), min_speaking=min_speaking)
        for score, file, (_, count) in zip(scores, files, inside)
    ]
    return Turns(
        spans=[replace(span, track=index) for index, turns in enumerate(found) for span in turns.spans],
        without_face=[],
        speaking=[turns.speaking[0] for turns in found],
        heard=[turns.heard[0] for turns in found],
        has_speech=[turns.has_speech[0] for turns in found],
    )


def distances(score: SyncScore | Reason, *, vshift: int) -> np.ndarray:
    """Return the distances of a clip, windows x shifts; without a score, 0 rows, so that activesd.pckl stays in order.

    Args:
        score: ``SyncScore`` or ``Reason`` of the clip.
        vshift: largest offset that was tried, in frames.
    """
    return score.dists if isinstance(score, SyncScore) else np.zeros((0, 2 * vshift + 1), np.float32)


def offset_lines(scores: Sequence[SyncScore | Reason]) -> Iterator[str]:
    """Yield the lines of offsets.txt."""
    for index, score in enumerate(scores):
        if isinstance(score, SyncScore):
            yield f"TRACK {index}: OFFSET {score.offset}, CONF {score.confidence:.3f}\n"


def scoring_recipe(net: Net, *, batch_size: int, vshift: int, mode: str = PUBLISHED) -> dict[str, Any]:
    """Return the recipe of run_syncnet: everything in this step that a score depends on."""
    return {
        "initial_model": weights_record(net.weights),
        "batch_size": batch_size,
        "vshift": vshift,
        "device": str(net.device),
        "versions": versions(mode),
    }


def warnings(result: SyncResult) -> Iterator[str]:
    """Yield the texts of all reasons in a ``SyncResult``, of the video and then of every track."""
    for reason in result.report["reasons"]:
        yield reason["text"]
    for record in result.report["tracks"]:
        for reason in record["reasons"]:
            yield f"track {record['track']}: {reason['text']}"
