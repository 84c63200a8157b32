"""Content of scores.json and pipeline.json: results for programs, with the recipe that produced them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME

if TYPE_CHECKING:
    from syncnet.reasons import Reason
    from syncnet.results.protocols import PipelineResult, Span, SyncScore, Weights

SECONDS_DIGITS = 3


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
            {"first_frame": int(track.frame[0]), "last_frame": int(track.frame[-1]), "mean_face_size": track.size}
            for track in result.tracks
        ],
        "reasons": [asdict(reason) for reason in result.reasons],
        "recipe": result.recipe,
    }


def score_record(score: SyncScore, *, vshift: int) -> dict[str, Any]:
    """Return the numbers of a ``SyncScore``, with the reasons why they are not reliable.

    Args:
        score: ``SyncScore``.
        vshift: largest offset that was tried, in frames.
    """
    return {
        "offset": score.offset,
        "offset_ms": score.offset * MILLISECONDS_PER_FRAME,
        "confidence": score.confidence,
        "lse_c": score.confidence,
        "min_dist": score.min_dist,
        "lse_d": score.min_dist,
        "windows": len(score.dists),
        "reasons": [asdict(reason) for reason in score_warnings(score, vshift=vshift)],
    }


def score_warnings(score: SyncScore, *, vshift: int) -> list[Reason]:
    """Return the reasons why a ``SyncScore`` is not reliable; arguments as in ``score_record``."""
    found = []
    if abs(score.offset) == vshift:
        found.append(reasons.edge_offset(offset=score.offset))
    if score.video_frames - score.audio_frames > reasons.AUDIO_TOLERANCE:
        found.append(reasons.audio_short(video_frames=score.video_frames, audio_frames=score.audio_frames))
    return found


def empty_record(reason: Reason) -> dict[str, Any]:
    """Return what replaces ``score_record`` for a track that cannot be scored."""
    names = ("offset", "offset_ms", "confidence", "lse_c", "min_dist", "lse_d")
    return {**dict.fromkeys(names), "windows": 0, "reasons": [asdict(reason)]}


def track_record(index: int, first_frame: int, last_frame: int, mean_face_size: float | None) -> dict[str, Any]:
    """Return the position of a track in the video.

    Args:
        index: index of the track.
        first_frame, last_frame: indices of its first and last frame.
        mean_face_size: ``Track.size``, in pixels; None if unknown.
    """
    return {
        "track": index,
        "first_frame": first_frame,
        "last_frame": last_frame,
        "start": seconds(first_frame),
        "end": seconds(last_frame + 1),
        "mean_face_size": mean_face_size,
    }


def span_record(span: Span) -> dict[str, Any]:
    """Return a ``speakers.Span`` with times in seconds."""
    return {"start": seconds(span.first), "end": seconds(span.last + 1), "track": span.track}


def seconds(frame: int) -> float:
    """Return the start time of a frame, in seconds."""
    return round(frame / FRAME_RATE, SECONDS_DIGITS)


def scores_report(
    pipeline: dict[str, Any] | None,
    *,
    reference: str | None,
    tracks: list[dict[str, Any]],
    speakers: list[dict[str, Any]],
    recipe: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the content of scores.json.

    Args:
        pipeline: from ``pipeline_report``; None if another program made the crops.
        reference: name of the video; None if it has no name.
        tracks: one dict per track, ``track_record`` and ``score_record`` merged.
        speakers: results of ``span_record``.
        recipe: recipe of run_syncnet; None if nothing was scored.
    """
    pipeline = pipeline or {"videofile": None, "faces": None, "reasons": [], "recipe": None}
    return {
        "videofile": pipeline["videofile"],
        "reference": reference,
        "frame_rate": FRAME_RATE,
        "faces": pipeline["faces"],
        "tracks": tracks,
        "speakers": speakers,
        "reasons": pipeline["reasons"],
        "recipe": {"pipeline": pipeline["recipe"], "syncnet": recipe},
    }
