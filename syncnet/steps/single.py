"""Score a single clip of one face as it is: no face is looked for, and nothing is converted but frames and audio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet.defaults import BATCH_SIZE, SPEAKER_THRESHOLD, VSHIFT
from syncnet.results.layout import discard
from syncnet.results.scores_json import scores_report, span_record
from syncnet.steps.score import describe, numbers, score_or_reason, scoring_recipe, speakers
from syncnet.sync.scoring import SyncScore

if TYPE_CHECKING:
    from syncnet.reasons import Reason
    from syncnet.results.layout import Layout
    from syncnet.steps.score import Net
    from syncnet.sync.speakers import Span


def run(
    videofile: str | Path,
    layout: Layout,
    net: Net,
    *,
    audio: Path | None = None,
    audio_stream: int | None = None,
    batch_size: int = BATCH_SIZE,
    vshift: int = VSHIFT,
    speaker_threshold: float = SPEAKER_THRESHOLD,
    print_line: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Score a video that is a face crop of any size, in published mode, and leave no files behind.

    A video without audio, or too short to score, is not an error: the reasons of the report say why it has no track.

    Args:
        videofile: path of the video.
        layout: ``Layout``, of which only the folder for temporary files is used.
        net: ``SyncNetInstance`` with loaded weights.
        audio, audio_stream, batch_size, vshift, print_line: as in ``SyncNetInstance.score``.
        speaker_threshold: the framewise confidence of a speaking face is above this.

    Returns:
        Report in the form of scores.json.

    Raises:
        MediaError: the input cannot be used.
        UsageError: the input is missing, or is in the folder for temporary files.
    """
    for path in (videofile, audio):
        if path:
            layout.check_outside(path)
    try:
        scores = net.score_all(
            [videofile],
            folder=layout.tmp,
            batch_size=batch_size,
            vshift=vshift,
            face_crops=True,
            audio=audio,
            audio_stream=audio_stream,
            print_line=print_line,
        )
        with contextlib.closing(scores):
            [found] = scores
    finally:
        discard(layout.tmp)
    score = score_or_reason(found, Path(videofile))
    return single_report(
        score,
        net,
        videofile=videofile,
        speaking=speakers([score], [0], threshold=speaker_threshold),
        batch_size=batch_size,
        vshift=vshift,
        speaker_threshold=speaker_threshold,
        face_crops=True,
        audio=str(audio) if audio else None,
        audio_stream=audio_stream,
    )


def single_report(
    score: SyncScore | Reason,
    net: Net,
    *,
    videofile: str | Path,
    speaking: Sequence[Span] = (),
    batch_size: int,
    vshift: int,
    **further: Any,
) -> dict[str, Any]:
    """Return the report of a single clip, in the form of scores.json.

    Args:
        score: ``SyncScore`` of the clip, or the ``Reason`` why it has none; then the report has no track.
        net: ``SyncNetInstance`` that computed it.
        videofile: path of the clip.
        speaking: when the face speaks.
        batch_size, vshift: as in ``SyncNetInstance.score``.
        further: further entries of the recipe.
    """
    recipe = {**scoring_recipe(net, batch_size=batch_size, vshift=vshift), **further}
    tracks, why = [], []
    if isinstance(score, SyncScore):
        tracks = [{**describe(None, 0, 0, score), **numbers(score, vshift=vshift, weights=net.weights)}]
    else:
        why = [asdict(score)]
    return scores_report(
        {"videofile": str(videofile), "faces": None, "reasons": why, "recipe": None},
        reference=None,
        tracks=tracks,
        speakers=list(map(span_record, speaking)),
        recipe=recipe,
    )
