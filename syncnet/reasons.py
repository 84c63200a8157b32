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
RARE = 0.25  # share of a scene's frames with detections below which they may be there by chance
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


def no_face(
    *, facedet_scale: float, detections: int = 0, longest: int = 0, frames: int = 0, advice: str | None = None
) -> Reason:
    """Return the reason of a video in which no face was detected, or only what is gone a few frames later.

    Args:
        facedet_scale: factor by which frames were resized for detection.
        detections: number of frames, of ``frames``, with a detection.
        longest: largest number of frames with a detection at the same place.
        frames: number of frames.
        advice: what helps, found by trying; None if nothing was tried, for the flag that might help.
    """
    text = "no face found"
    if longest == 1:
        text += f" ({detections} single detection{'s' * (detections > 1)} in {frames} frames)"
    elif longest:
        text += f" ({detections} detections in {frames} frames, at most {longest} of them at one place)"
    untried = f"if the faces are small, raise --facedet_scale above {facedet_scale:g}"
    return Reason(NO_FACE, with_advice(text, advice, untried))


def parts_of_a_face(*, scale: float) -> Reason:
    """Return the reason of a video whose tracks show parts of a face, which is seen whole at a smaller scale."""
    text = f"no whole face found: the tracks show parts of a larger one, which is seen at scale {scale:g}"
    return Reason(NO_FACE, f"{text}: try --facedet_scale {scale:g}")


def with_advice(text: str, advice: str | None, untried: str) -> str:
    """Return a text with advice; ``untried`` if that is None."""
    return ": ".join(filter(None, [text, untried if advice is None else advice]))


def faces_too_small(*, largest: float, min_face_size: int, advice: str | None = None) -> Reason:
    """Return the reason of a video whose largest face, of ``largest`` pixels, is not above ``min_face_size``.

    ``advice`` is as in ``no_face``, as in the next functions.
    """
    text = f"faces found, but all at most --min_face_size {min_face_size:g}: the largest measures {largest:.4g} pixels"
    return Reason(FACES_TOO_SMALL, with_advice(text, advice, "lower --min_face_size"))


def long_tracks_too_small(*, largest: float, min_face_size: int, min_track: int, advice: str | None = None) -> Reason:
    """Return the reason of a video whose long tracks have faces of at most ``min_face_size``, but short ones do not.

    Args:
        largest: ``Track.size`` of the largest track of more than ``min_track`` frames, in pixels.
        min_face_size, min_track: as in ``faces.tracks.track_faces``.
        advice: as in ``no_face``.
    """
    text = (
        f"faces found, but those in tracks of more than --min_track {min_track} frames are all at most --min_face_size "
        f"{min_face_size:g}: the largest of them measures {largest:.4g} pixels"
    )
    return Reason(FACES_TOO_SMALL, with_advice(text, advice, "lower --min_face_size or --min_track"))


def tracks_too_short(*, longest: int, min_track: int, advice: str | None = None) -> Reason:
    """Return the reason of a video whose longest track, of ``longest`` faces, does not have more than ``min_track``."""
    text = f"faces found, but no track of more than --min_track {min_track} frames: the longest track has {longest}"
    return Reason(TRACKS_TOO_SHORT, with_advice(text, advice, "lower --min_track"))


def scene_too_short(*, longest: int, min_track: int, advice: str | None = None) -> Reason:
    """Return the reason of a video with cuts, whose longest scene with faces, of ``longest`` frames, is too short."""
    text = f"no scene with faces has --min_track {min_track} frames: the longest has {longest}"
    return Reason(SCENE_TOO_SHORT, with_advice(text, advice, "lower --min_track or raise --scene_threshold"))


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


def tracks_disagree(*, earliest: float, latest: float, least: float = SURE_CONFIDENCE) -> Reason:
    """Return the reason of a video without a lag of its own, because its tracks' lags differ.

    Args:
        earliest, latest: smallest and largest lag of the confident tracks, in milliseconds.
        least: confidence from which a track counts.
    """
    text = (
        f"the tracks of confidence {least:g} or more have lags from {earliest:.0f} to {latest:.0f} ms, more "
        f"than {AGREEMENT_MS} ms apart: the video has no single lag"
    )
    return Reason(TRACKS_DISAGREE, text)


def damaged(faults: Sequence[str]) -> Reason:
    """Return the reason of a video that is damaged; ``faults`` are results of ``cut_off`` and ``undecodable``."""
    return Reason(DAMAGED, f"damaged: {'; '.join(faults)}: only what can be read is scored: download or copy it again")


def cut_off(*, held: int, promised: int | None, seconds: dict[str, tuple[float, float]]) -> str:
    """Return the fault of a file that ends too early.

    Args:
        held, promised: bytes that can be read and that should be there; None if only the last packet is incomplete.
        seconds: seconds that are there and should be, by the name of what lasts so long.
    """
    lengths = " and ".join(f"{there:.1f} of {whole:.1f} s of the {name}" for name, (there, whole) in seconds.items())
    size = f"it ends after {held} of {promised} bytes" if promised else f"its last packet is incomplete (byte {held})"
    return f"{size}: it holds {lengths}" if lengths else size


def undecodable(*, name: str, lost: int | None = None, detail: str) -> str:
    """Return the fault of a stream that cannot be decoded completely.

    Args:
        name: what it is.
        lost: number of packets and frames; None if unknown.
        detail: last message of the decoder.
    """
    count = "a part" if lost is None else "1 frame" if lost == 1 else f"{lost} frames"
    return f"{count} of the {name} cannot be decoded ({detail})"


def not_square_pixels(*, aspect: float, size: tuple[int, int]) -> Reason:
    """Return the reason of a video in published mode whose pixels are not square.

    Args:
        aspect: width of a pixel, by its height.
        size: width and height at which pixels are square.
    """
    text = (
        f"the pixels are not square (width to height {aspect:.4g}): published mode scores faces as they are stored, "
        f"{'narrower' if aspect > 1 else 'wider'} than they are, which lowers the confidence: make the pixels square "
        f"first (ffmpeg -i IN -vf scale={size[0]}:{size[1]},setsar=1 OUT), or use direct mode"
    )
    return Reason(NOT_SQUARE_PIXELS, text)


def no_confident_track(*, least: float = SURE_CONFIDENCE) -> Reason:
    """Return the reason of a video without a lag, because no track has a confidence of ``least``."""
    return Reason(NO_CONFIDENT_TRACK, f"no track has a confidence of {least:g} or more: the lag is unknown")


def silent(*, heard: int, frames: int, cancelled: bool = False) -> Reason:
    """Return the reason of a track without sound, or with noise alone.

    Args:
        heard: number of frames, of ``frames``, with more.
        frames: length of the track.
        cancelled: ``channels_cancel`` follows, with the advice that helps then.
    """
    text = (
        f"silent: the sound rises above its floor in {heard} of the {frames} frames that show the face: there is "
        "nothing to compare the lips with"
    )
    advice = "; if another file or stream has the speech, name it with --audio or --audio_stream"
    return Reason(SILENT, text if cancelled else text + advice)


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


def offset_drifts(*, start: float, end: float, before: int, after: int, measurable: bool) -> Reason:
    """Return the reason of a track whose offset drifts.

    Args:
        start, end: times in seconds.
        before, after: the offsets there.
        measurable: the track is long enough to correct the drift.
    """
    text = f"the offset drifts from {before} at {start:.1f} s to {after} at {end:.1f} s: sound or picture runs too fast"
    advice = ": straighten it with correct_offset.py --fix_drift"
    return Reason(OFFSET_CHANGES, text + advice if measurable else text)
