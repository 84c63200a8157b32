"""Reasons why a video or track has no reliable score: a code for programs and a text that names the flag to change."""

from collections.abc import Sequence
from dataclasses import dataclass

from syncnet.constants import FRAME_RATE, MILLISECONDS_PER_FRAME

NOT_MEDIA = "not_media"
NO_VIDEO = "no_video"
NO_AUDIO = "no_audio"
NO_FACE = "no_face"
FACES_TOO_SMALL = "faces_too_small"
TRACKS_TOO_SHORT = "tracks_too_short"
TOO_SHORT = "too_short"
EDGE_OFFSET = "edge_offset"
AUDIO_SHORT = "audio_short"
SCENE_CUT_SHORT = "scene_cut_short"
LOW_CONFIDENCE = "low_confidence"
TRACKS_DISAGREE = "tracks_disagree"
NO_CONFIDENT_TRACK = "no_confident_track"
DAMAGED = "damaged"
SILENT = "silent"
CHANNELS_CANCEL = "channels_cancel"
FEW_WINDOWS = "few_windows"
OFFSET_CHANGES = "offset_changes"
NOT_SQUARE_PIXELS = "not_square_pixels"
SCENE_TOO_SHORT = "scene_too_short"

AUDIO_TOLERANCE = 5  # frames by which the audio may end before the video without a warning
SCENE_TOLERANCE = 5  # frames of the last scene that may be ignored without a warning
LEAST_CONFIDENCE = 2.0  # confidence below which the offset of a track means nothing
SURE_CONFIDENCE = 3.0  # confidence from which a track counts for the lag of its video
AGREEMENT_MS = 60  # milliseconds within which the lags of a video's tracks must lie
LEAST_HEARD = 5  # frames in which a track must be heard
LEAST_WINDOWS = 30  # from so many on, hardly any wrong pair is as confident as right ones: benchmarks/few_windows.py


@dataclass(frozen=True)
class Reason:
    """A reason why there is no score, or why the score is not reliable.

    Attributes:
        code: one of the codes of this module.
        text: explanation for the user, in one line.
    """

    code: str
    text: str


def no_audio() -> Reason:
    """Return the reason of a video without an audio stream."""
    return Reason(NO_AUDIO, "no audio stream: there is nothing to compare the lips with")


def no_face(*, facedet_scale: float) -> Reason:
    """Return the reason of a video in which no face was detected."""
    text = f"no face found: if the faces are small, raise --facedet_scale above {facedet_scale:g}"
    return Reason(NO_FACE, text)


def faces_too_small(*, largest: float, min_face_size: int) -> Reason:
    """Return the reason of a video whose largest face, of ``largest`` pixels, is not above ``min_face_size``."""
    text = (
        f"faces found, but all at most --min_face_size {min_face_size:g}: the largest measures {largest:.4g} "
        "pixels: lower --min_face_size"
    )
    return Reason(FACES_TOO_SMALL, text)


def long_tracks_too_small(*, largest: float, min_face_size: int, min_track: int) -> Reason:
    """Return the reason of a video whose long tracks have faces of at most ``min_face_size``, but short ones do not.

    Args:
        largest: ``Track.size`` of the largest track of more than ``min_track`` frames, in pixels.
        min_face_size, min_track: as in ``faces.tracks.track_faces``.
    """
    text = (
        f"faces found, but those in tracks of more than --min_track {min_track} frames are all at most --min_face_size "
        f"{min_face_size:g}: the largest of them measures {largest:.4g} pixels: lower --min_face_size or --min_track"
    )
    return Reason(FACES_TOO_SMALL, text)


def tracks_too_short(*, longest: int, min_track: int) -> Reason:
    """Return the reason of a video whose longest track, of ``longest`` faces, does not have more than ``min_track``."""
    text = (
        f"faces found, but no track of more than --min_track {min_track} frames: the longest track has {longest}: "
        "lower --min_track"
    )
    return Reason(TRACKS_TOO_SHORT, text)


def too_short(*, frames: int, needed: int) -> Reason:
    """Return the reason of a video or clip that has only ``frames`` frames with audio, of ``needed``."""
    return Reason(TOO_SHORT, f"too short to score: {frames} frames with both video and audio, {needed} are needed")


def edge_offset(*, offset: int) -> Reason:
    """Return the reason of a track whose best offset is the largest that was tried; the true one may be beyond."""
    text = (
        f"the best offset, {offset}, is at the edge of the range that was tried, so it is not reliable: "
        f"raise --vshift above {abs(offset)}"
    )
    return Reason(EDGE_OFFSET, text)


def audio_short(*, video_frames: int, audio_frames: int) -> Reason:
    """Return the reason of a video or track whose audio ends before its video; lengths in frames."""
    missing = video_frames - audio_frames
    text = (
        f"the audio ends {missing} frames ({missing * MILLISECONDS_PER_FRAME} ms) before the video: "
        "frames without audio are not scored"
    )
    return Reason(AUDIO_SHORT, text)


def scene_cut_short(*, frames: int, length: int) -> Reason:
    """Return the reason of a video whose last ``frames`` are ignored; see ``faces.scenes.detect_scenes``.

    Args:
        frames: number of ignored frames at the end of the last scene.
        length: length of the last scene, in frames.
    """
    text = (
        f"the last {frames} of the {length} frames of the last scene are ignored, as in the published scores of videos "
        f"with fewer than {FRAME_RATE} frames per second or a variable frame rate: faces there get no track; to "
        f"include them, first convert the video to {FRAME_RATE} frames per second "
        f"(ffmpeg -i IN -vf fps={FRAME_RATE} OUT)"
    )
    return Reason(SCENE_CUT_SHORT, text)


def low_confidence(*, confidence: float) -> Reason:
    """Return the reason of a track whose confidence is too low for its offset to mean anything."""
    text = (
        f"confidence {confidence:.3f} is below {LEAST_CONFIDENCE:g}: lips and audio do not match at any offset, so the "
        "offset means nothing"
    )
    return Reason(LOW_CONFIDENCE, text)


def tracks_disagree(*, earliest: float, latest: float) -> Reason:
    """Return the reason of a video without a lag of its own, because its tracks' lags differ.

    Args:
        earliest, latest: smallest and largest lag of the confident tracks, in milliseconds.
    """
    text = (
        f"the tracks of confidence {SURE_CONFIDENCE:g} or more have lags from {earliest:.0f} to {latest:.0f} ms, more "
        f"than {AGREEMENT_MS} ms apart: the video has no single lag"
    )
    return Reason(TRACKS_DISAGREE, text)


def no_confident_track() -> Reason:
    """Return the reason of a video without a lag, because none of its tracks is confident."""
    return Reason(NO_CONFIDENT_TRACK, f"no track has a confidence of {SURE_CONFIDENCE:g} or more: the lag is unknown")


def silent(*, heard: int, frames: int) -> Reason:
    """Return the reason of a track without sound, or with noise alone: ``heard`` of its ``frames`` have more."""
    text = (
        f"silent: the sound rises above its floor in {heard} of the {frames} frames that show the face: there is "
        "nothing to compare the lips with; if another file or stream has the speech, name it with --audio or "
        "--audio_stream"
    )
    return Reason(SILENT, text)


def channels_cancel(*, channel: int, stream: int | None) -> Reason:
    """Return the reason of a track whose channels have sound, of which nothing is left when they are mixed.

    Args:
        channel: index of a channel that has sound.
        stream: index of the stream in its file; None for sound in memory.
    """
    command = f'ffmpeg -i IN -map 0:v? -map 0:{stream} -c:v copy -af "pan=mono|c0=c{channel}" OUT'
    advice = f"score one channel alone ({f'audio[{channel}]' if stream is None else command})"
    return Reason(CHANNELS_CANCEL, f"the channels of the sound cancel each other when they are mixed to one: {advice}")


def few_windows(*, windows: int) -> Reason:
    """Return the reason of a track with so few windows that its confidence does not tell right from wrong."""
    text = (
        f"only {windows} windows were compared: with fewer than {LEAST_WINDOWS}, a wrong pair of face and sound often "
        "reaches as high a confidence as a right one"
    )
    return Reason(FEW_WINDOWS, text)


def offset_jumps(*, steps: Sequence[tuple[float, int, int]]) -> Reason:
    """Return the reason of a track whose offset jumps: per jump the time in seconds, the offset before and after."""
    jumps = ", ".join(f"from {before} to {after} at {seconds:.1f} s" for seconds, before, after in steps)
    return Reason(OFFSET_CHANGES, f"the offset jumps {jumps}: cut the video there, and score its parts")


def offset_drifts(*, start: float, end: float, before: int, after: int) -> Reason:
    """Return the reason of a track whose offset drifts: times in seconds, and the offsets there."""
    text = (
        f"the offset drifts from {before} at {start:.1f} s to {after} at {end:.1f} s: sound or picture runs too fast: "
        "straighten it with correct_offset.py --fix_drift"
    )
    return Reason(OFFSET_CHANGES, text)
