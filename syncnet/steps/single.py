"""Score a single clip of one face as it is: no face is looked for, and nothing is converted but frames and audio."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet.defaults import BATCH_SIZE, MIN_SPEAKING, VSHIFT
from syncnet.media.sound import single_channels
from syncnet.results.layout import discard, scratch_audio
from syncnet.results.scores_json import scores_report
from syncnet.steps import doubts, faults, speaking
from syncnet.steps.score import describe, numbers, score_or_reason, scoring_recipe
from syncnet.sync.scoring import SyncScore

if TYPE_CHECKING:
    from syncnet.reasons import Reason
    from syncnet.results.layout import Layout
    from syncnet.steps.score import Net
    from syncnet.sync.speakers import Turns


def run(
    videofile: str | Path,
    layout: Layout,
    net: Net,
    *,
    audio: Path | None = None,
    audio_stream: int | None = None,
    batch_size: int = BATCH_SIZE,
    vshift: int = VSHIFT,
    min_speaking: float = MIN_SPEAKING,
    print_line: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Score a video that is a face crop of any size, in published mode, and leave no files behind.

    A video without audio, or too short to score, is not an error: the reasons of the report say why it has no track.

    Args:
        videofile: path of the video.
        layout: ``Layout``, of which only the folder for temporary files is used.
        net: ``SyncNetInstance`` with loaded weights.
        audio, audio_stream, batch_size, vshift, print_line: as in ``SyncNetInstance.score``.
        min_speaking: shortest time for which the face speaks, in seconds.

    Returns:
        Report in the form of scores.json.

    Raises:
        MediaError: the input cannot be used.
        UsageError: the input is missing, or is in the folder for temporary files.
    """
    for path in (videofile, audio):
        if path:
            layout.check_outside(path)
    messages: list[str] = []
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
            on_fault=messages.append,
        )
        with contextlib.closing(scores):
            [found] = scores
        score = score_or_reason(found, Path(videofile))
        turns = find_turns(score, folder=layout.tmp, min_speaking=min_speaking)
    finally:
        discard(layout.tmp)
    return single_report(
        score,
        net,
        videofile=videofile,
        turns=turns,
        of_input=faults.of_conversion(Path(videofile), other=audio, messages=messages),
        batch_size=batch_size,
        vshift=vshift,
        min_speaking=min_speaking,
        face_crops=True,
        audio=str(audio) if audio else None,
        audio_stream=audio_stream,
    )


def find_turns(score: SyncScore | Reason, *, folder: Path, min_speaking: float = MIN_SPEAKING) -> Turns | None:
    """Find when the face of a single clip speaks; None without a score.

    Args:
        score: ``SyncScore`` of the clip, or the ``Reason`` why it has none.
        folder: folder with the temporary audio of its scoring.
        min_speaking: as in ``run``.
    """
    if not isinstance(score, SyncScore):
        return None
    levels = speaking.levels_of_file(scratch_audio(folder), frames=score.video_frames)
    return speaking.find([score], [(0, score.video_frames)], levels=levels, min_speaking=min_speaking)


def single_report(
    score: SyncScore | Reason,
    net: Net,
    *,
    videofile: str | Path,
    turns: Turns | None,
    batch_size: int,
    vshift: int,
    of_input: Sequence[Reason] = (),
    **further: Any,
) -> dict[str, Any]:
    """Return the report of a single clip, in the form of scores.json.

    Args:
        score: ``SyncScore`` of the clip, or the ``Reason`` why it has none; then the report has no track.
        net: ``SyncNetInstance`` that computed it.
        videofile: path of the clip.
        turns: from ``find_turns``.
        batch_size, vshift: as in ``SyncNetInstance.score``.
        of_input: reasons that concern the whole file.
        further: further entries of the recipe.
    """
    recipe = {**scoring_recipe(net, batch_size=batch_size, vshift=vshift), **further}
    tracks, why = [], [asdict(reason) for reason in of_input]
    if isinstance(score, SyncScore):
        spoken: dict[str, Any] = {}
        found: list[Reason] = []
        if turns:
            spoken = speaking.numbers(score, turns.speaking[0])
            channels = single_channels(further.get("audio") or videofile, stream=further.get("audio_stream"))
            cancelled = doubts.cancelled_channels(turns.heard, [0], channels)
            found = doubts.of_track(score, turns.heard[0], start=0.0, cancelled=cancelled.get(0))
        has_speech = turns is None or turns.has_speech[0]
        scored = numbers(score, vshift=vshift, weights=net.weights, found=found, has_speech=has_speech)
        tracks = [{**describe(None, 0, 0, score), **scored, **spoken}]
    else:
        why.append(asdict(score))
    return scores_report(
        {"videofile": str(videofile), "faces": None, "reasons": why, "recipe": None},
        reference=None,
        tracks=tracks,
        **(speaking.records(turns) if turns else {"speakers": []}),
        recipe=recipe,
    )
