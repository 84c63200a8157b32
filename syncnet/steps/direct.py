"""The direct pass: score the faces of a video from what the decoder gives, in one pass, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet import defaults
from syncnet.faces.detect import Detector, Summary
from syncnet.progress import Progress, silent
from syncnet.reasons import Reason

if TYPE_CHECKING:
    from syncnet.steps.score import Net


@dataclass(frozen=True)
class DirectSettings:
    """Settings of the direct pass, named like the flags; their fields are also keys of the recipe.

    Attributes:
        facedet_scale, crop_scale, min_track, num_failed_det, min_face_size, scene_threshold: as in
            ``PipelineSettings``; lengths are in frames, whatever ``detect_every`` is.
        detect_every: faces are looked for in every n-th frame.
        face_crops: every frame is a face crop already; it is resized, and no face is looked for.
        vshift: largest offset to try in both directions, in frames.
        batch_size: windows per batch.
    """

    facedet_scale: float = defaults.FACEDET_SCALE
    crop_scale: float = defaults.CROP_SCALE
    min_track: int = defaults.FILTER_MIN_TRACK
    num_failed_det: int = defaults.NUM_FAILED_DET
    min_face_size: int = defaults.FILTER_MIN_FACE_SIZE
    scene_threshold: float = defaults.SCENE_THRESHOLD
    detect_every: int = defaults.DETECT_EVERY
    face_crops: bool = False
    vshift: int = defaults.VSHIFT
    batch_size: int = defaults.BATCH_SIZE


@dataclass(frozen=True)
class DirectResult:
    """Result of ``run``.

    Attributes:
        report: content of scores.json: ``tracks``, ``reasons``, ``faces``, ``lag_ms`` and the rest.
        dists: per track windows x (2 * vshift + 1) array of distances; of a track without a score, no windows.
        faces: statistics of the faces; None with ``face_crops`` or if no frame was analysed.
        reasons: why there is no track, or why the scores are not reliable.
    """

    report: dict[str, Any]
    dists: Sequence[Any] = ()
    faces: Summary | None = None
    reasons: list[Reason] = field(default_factory=list)


def run(
    videofile: str | Path,
    *,
    detector: Detector | None,
    net: Net,
    settings: DirectSettings | None = None,
    audio: str | Path | None = None,
    audio_stream: int | None = None,
    progress: Progress = silent,
) -> DirectResult:
    """Score the faces of a video. A video without a track, or without audio, is not an error: reasons say why.

    Args:
        videofile: path of the video.
        detector: ``Detector``; None with ``face_crops``.
        net: ``SyncNetInstance`` with loaded weights.
        settings: ``DirectSettings``.
        audio: media file whose sound replaces the video's own; both start together.
        audio_stream: index among the audio streams of the file that gives the sound; None for the one a player takes.
        progress: as in ``syncnet.progress``.

    Raises:
        MediaError: the input cannot be used.
        UsageError: the input is missing.
    """
    raise NotImplementedError
