"""Why a video or a track has no trustworthy score: a word for programs, and a line that names the flag to change."""

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

AUDIO_TOLERANCE = 5  # frames that the sound may end before the picture without a word
SCENE_TOLERANCE = 5  # frames of the last scene that may be left out without a word


@dataclass(frozen=True)
class Reason:
    """One reason.

    Attributes:
        code: one of this module's words.
        text: the line for people.
    """

    code: str
    text: str


def no_audio():
    return Reason(NO_AUDIO, "no audio stream: there is nothing to compare the lips with")


def no_face(*, facedet_scale):
    text = f"no face found: where faces are small, try a larger --facedet_scale than {facedet_scale:g}"
    return Reason(NO_FACE, text)


def faces_too_small(*, largest, min_face_size):
    text = (
        f"faces found, but all at most --min_face_size {min_face_size:g}: the largest measures {largest:.4g} "
        "pixels: lower --min_face_size"
    )
    return Reason(FACES_TOO_SMALL, text)


def long_tracks_too_small(*, largest, min_face_size, min_track):
    text = (
        f"faces found, but those for more than --min_track {min_track} frames all at most --min_face_size "
        f"{min_face_size:g}: the largest of them measures {largest:.4g} pixels: lower --min_face_size, or --min_track"
    )
    return Reason(FACES_TOO_SMALL, text)


def tracks_too_short(*, longest, min_track):
    text = (
        f"faces found, but none for more than --min_track {min_track} frames: the longest track has {longest}: "
        "lower --min_track"
    )
    return Reason(TRACKS_TOO_SHORT, text)


def too_short(*, frames, needed):
    return Reason(TOO_SHORT, f"too short to score: {frames} frames with both picture and sound, {needed} are needed")


def edge_offset(*, offset):
    text = (
        f"the best offset, {offset}, is at the edge of what was tried, so not trustworthy: "
        f"raise --vshift above {abs(offset)}"
    )
    return Reason(EDGE_OFFSET, text)


def audio_short(*, video_frames, audio_frames):
    missing = video_frames - audio_frames
    text = (
        f"the audio ends {missing} frames ({missing * MILLISECONDS_PER_FRAME} ms) before the video: "
        "what lies after it is not scored"
    )
    return Reason(AUDIO_SHORT, text)


def scene_cut_short(*, frames, length):
    text = (
        f"the last {frames} of the {length} frames of the last scene are left out, as published scores do with videos "
        f"that are slower than {FRAME_RATE} frames a second or of variable rate: faces there have no track; to have "
        f"them, convert the video to {FRAME_RATE} frames a second first (ffmpeg -i IN -vf fps={FRAME_RATE} OUT)"
    )
    return Reason(SCENE_CUT_SHORT, text)
