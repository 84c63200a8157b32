"""Content of scores.json and pipeline.json: results for programs, with the recipe that produced them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME
from syncnet.defaults import PUBLISHED
from syncnet.reasons import Reason

if TYPE_CHECKING:
    from syncnet.results.protocols import Lag, PipelineResult, Span, SyncScore, Weights

SECONDS_DIGITS = 3
LAG_DIGITS = 2  # of milliseconds
POSTERIOR_DIGITS = 3
SCORE_KEYS = ("offset", "offset_ms", "confidence", "lse_c", "min_dist", "lse_d")
SPEAKING_KEYS = ("speaking_s", "speaking_offset", "speaking_confidence", "speaking_min_dist")
LAG_KEYS = ("lag_ms", "lag_error_ms", "drift_ms_per_min", "drift_error_ms_per_min")


def weights_record(weights: Weights | None) -> dict[str, Any] | None:
    """Return the entry of a recipe for ``models.weights.Weights``; None without weights."""
    if weights is None:
        return None
    return {"name": weights.name, "sha256": weights.sha256, "published": weights.published}


def pipeline_report(result: PipelineResult, *, videofile: str | Path, reference: str) -> dict[str, Any]:
    """Return the content of pipeline.json: the results of run_pipeline.

    Args:
        result: ``PipelineResult``.
        videofile: path of the input.
        reference: name of the video.
    """
    return {
        "videofile": str(videofile),
        "reference": reference,
        "faces": asdict(result.faces) if result.faces else None,
        "scenes": [asdict(scene) for scene in result.scenes],
        "tracks": [
            {
                "first_frame": int(track.frame[0]),
                "last_frame": int(track.frame[-1]),
                "mean_face_size": track.size,
                "box": box_record(track.bbox),
            }
            for track in result.tracks
        ],
        "reasons": [asdict(reason) for reason in result.reasons],
        "pixel_aspect": result.pixel_aspect,
        "recipe": result.recipe,
    }


def box_record(bbox: np.ndarray) -> list[int]:
    """Return the median box of a face as x, y, width and height, in whole pixels.

    Args:
        bbox: N x 4 array, x1 y1 x2 y2 in pixels.
    """
    corners, sizes = bbox[:, :2], bbox[:, 2:] - bbox[:, :2]
    return [round(float(value)) for value in np.median(np.hstack([corners, sizes]), axis=0)]


def score_record(
    score: SyncScore,
    *,
    vshift: int,
    weights: Weights | None,
    mode: str = PUBLISHED,
    lag: Lag | None = None,
    found: Sequence[Reason] = (),
    has_speech: bool = True,
) -> dict[str, Any]:
    """Return the numbers of a ``SyncScore``, with the reasons why they are not reliable.

    LSE-C and LSE-D are names of scores by the published weights in published mode; others have none.

    Args:
        score: ``SyncScore``.
        vshift: largest offset that was tried, in frames.
        weights: SyncNet's ``Weights``; None if unknown.
        mode: one of ``defaults.MODES``.
        lag: ``Lag``; None in published mode.
        found: reasons from elsewhere.
        has_speech: the sound is not only silence or steady sound, with which the edge of the search is no reason.
    """
    is_lse = mode == PUBLISHED and weights is not None and weights.published
    own = [
        reason for reason in score_warnings(score, vshift=vshift) if has_speech or reason.code != reasons.EDGE_OFFSET
    ]
    return {
        "offset": score.offset,
        "offset_ms": score.offset * MILLISECONDS_PER_FRAME,
        "confidence": score.confidence,
        "lse_c": score.confidence if is_lse else None,
        "min_dist": score.min_dist,
        "lse_d": score.min_dist if is_lse else None,
        **lag_record(lag),
        "windows": len(score.dists),
        "reasons": [asdict(reason) for reason in [*found, *own]],
    }


def lag_record(lag: Lag | None) -> dict[str, float | None]:
    """Return the numbers of a ``Lag``; without one, all are None."""
    if lag is None:
        return dict.fromkeys(LAG_KEYS)
    values = (lag.ms, lag.error_ms, lag.drift_ms_per_min, lag.drift_error_ms_per_min)
    return {key: None if value is None else round(float(value), LAG_DIGITS) for key, value in zip(LAG_KEYS, values)}


def score_warnings(score: SyncScore, *, vshift: int) -> list[Reason]:
    """Return the reasons why a ``SyncScore`` is not reliable; arguments as in ``score_record``."""
    found = []
    if score.confidence < reasons.LEAST_CONFIDENCE:
        found.append(reasons.low_confidence(confidence=score.confidence))
    if abs(score.offset) == vshift:
        found.append(reasons.edge_offset(offset=score.offset))
    if score.video_frames - score.audio_frames > reasons.AUDIO_TOLERANCE:
        found.append(reasons.audio_short(video_frames=score.video_frames, audio_frames=score.audio_frames))
    return found


def empty_record(reason: Reason) -> dict[str, Any]:
    """Return what replaces ``score_record`` for a track that cannot be scored."""
    return {**dict.fromkeys(SCORE_KEYS), **lag_record(None), "windows": 0, "reasons": [asdict(reason)]}


def track_record(
    index: int, first_frame: int, last_frame: int, mean_face_size: float | None, *, box: list[int] | None = None
) -> dict[str, Any]:
    """Return the position of a track in the video.

    Args:
        index: index of the track.
        first_frame, last_frame: indices of its first and last frame.
        mean_face_size: ``Track.size``, in pixels; None if unknown.
        box: from ``box_record``; None if unknown.
    """
    return {
        "track": index,
        "first_frame": first_frame,
        "last_frame": last_frame,
        "start": seconds(first_frame),
        "end": seconds(last_frame + 1),
        "mean_face_size": mean_face_size,
        "box": box,
    }


def speaking_record(frames: int | None, score: SyncScore | None) -> dict[str, Any]:
    """Return for how long a track's face speaks, and the numbers of its speaking windows alone.

    Args:
        frames: number of frames in which it speaks; None if the track has no score.
        score: ``SyncScore`` of its speaking windows; None if there is none.
    """
    numbers = (score.offset, score.confidence, score.min_dist) if score else (None, None, None)
    return dict(zip(SPEAKING_KEYS, (None if frames is None else seconds(frames), *numbers)))


def span_record(span: Span, *, delay: float = 0.0) -> dict[str, Any]:
    """Return a ``speakers.Span`` with times in seconds.

    Args:
        span: the span.
        delay: time of frame 0, in seconds.
    """
    return {
        **times_record(span.first, span.last, delay=delay),
        "track": span.track,
        "confidence": round(float(span.confidence), POSTERIOR_DIGITS),
    }


def times_record(first: int, last: int, *, delay: float = 0.0) -> dict[str, float]:
    """Return start and end of frames ``first`` to ``last`` (inclusive), in seconds; ``delay`` as in ``span_record``."""
    return {"start": seconds(first, delay=delay), "end": seconds(last + 1, delay=delay)}


def seconds(frame: int, *, delay: float = 0.0) -> float:
    """Return the start time of a frame, in seconds; ``delay`` as in ``span_record``."""
    return round(frame / FRAME_RATE + delay, SECONDS_DIGITS)


def scores_report(
    pipeline: dict[str, Any] | None,
    *,
    reference: str | None,
    tracks: list[dict[str, Any]],
    speakers: list[dict[str, Any]],
    without_face: Sequence[dict[str, Any]] = (),
    recipe: dict[str, Any] | None,
    mode: str = PUBLISHED,
    lag: Lag | Reason | None = None,
    lag_zero: float | str | None = None,
) -> dict[str, Any]:
    """Return the content of scores.json.

    Args:
        pipeline: from ``pipeline_report``; None if another program made the crops.
        reference: name of the video; None if it has no name.
        tracks: one dict per track, ``track_record``, ``score_record`` and ``speaking_record`` merged.
        speakers: results of ``span_record``.
        without_face: results of ``times_record``: speech that no visible face utters.
        recipe: recipe of run_syncnet; None if nothing was scored.
        mode: one of ``defaults.MODES``.
        lag: ``Lag`` of the video, or the ``Reason`` why it has none; None in published mode.
        lag_zero: lag that the weights measure where sound and picture are in step, in milliseconds, or why it is
            taken to be 0; None in published mode.
    """
    unknown = [asdict(lag)] if isinstance(lag, Reason) else []
    of_video = lag_record(None if isinstance(lag, Reason) else lag)
    pipeline = pipeline or {"videofile": None, "faces": None, "reasons": [], "recipe": None}
    return {
        "videofile": pipeline["videofile"],
        "reference": reference,
        "frame_rate": FRAME_RATE,
        "mode": mode,
        "lag_ms": of_video["lag_ms"],
        "lag_error_ms": of_video["lag_error_ms"],
        "lag_zero": lag_zero,
        "faces": pipeline["faces"],
        "tracks": tracks,
        "speakers": speakers,
        "speech_without_face": list(without_face),
        "reasons": pipeline["reasons"] + unknown,
        "recipe": {"pipeline": pipeline["recipe"], "syncnet": recipe},
    }
