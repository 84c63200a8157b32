"""scores.json and pipeline.json: results for programs, with the recipe that they were made by."""

from dataclasses import asdict

from syncnet import reasons
from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME

SECONDS_DIGITS = 3


def weights_record(weights):
    return {"name": weights.name, "sha256": weights.sha256, "published": weights.published}


def pipeline_report(result, *, videofile, reference):
    """pipeline.json: what run_pipeline found, for run_syncnet and people.

    Args:
        result: ``PipelineResult``.
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


def score_record(score, *, vshift):
    """The numbers of one ``SyncScore``, with the reasons to doubt them."""
    return {
        "offset": score.offset,
        "offset_ms": score.offset * MILLISECONDS_PER_FRAME,
        "confidence": score.confidence,
        "lse_c": score.confidence,
        "min_dist": score.min_dist,
        "lse_d": score.min_dist,
        "windows": len(score.dists),
        "reasons": [asdict(reason) for reason in doubts(score, vshift=vshift)],
    }


def doubts(score, *, vshift):
    """Reasons not to trust a ``SyncScore``."""
    found = []
    if abs(score.offset) == vshift:
        found.append(reasons.edge_offset(offset=score.offset))
    if score.video_frames - score.audio_frames > reasons.AUDIO_TOLERANCE:
        found.append(reasons.audio_short(video_frames=score.video_frames, audio_frames=score.audio_frames))
    return found


def empty_record(reason):
    """In place of ``score_record`` for a track that cannot be scored."""
    names = ("offset", "offset_ms", "confidence", "lse_c", "min_dist", "lse_d")
    return {**dict.fromkeys(names), "windows": 0, "reasons": [asdict(reason)]}


def track_record(index, first_frame, last_frame, mean_face_size):
    """Where and when a track is."""
    return {
        "track": index,
        "first_frame": first_frame,
        "last_frame": last_frame,
        "start": seconds(first_frame),
        "end": seconds(last_frame + 1),
        "mean_face_size": mean_face_size,
    }


def span_record(span):
    """A ``speakers.Span`` in seconds."""
    return {"start": seconds(span.first), "end": seconds(span.last + 1), "track": span.track}


def seconds(frame):
    """When a frame begins."""
    return round(frame / FRAME_RATE, SECONDS_DIGITS)


def scores_report(pipeline, *, reference, tracks, speakers, recipe):
    """scores.json.

    Args:
        pipeline: what ``pipeline_report`` returned; None where the crops were made by another program.
        reference: name of the video; None of a clip that has none.
        tracks: per track a ``track_record`` and a ``score_record``, merged.
        speakers: list of ``span_record``.
        recipe: run_syncnet's part; None where nothing was scored.
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
