"""The step run_visualise: draw the face tracks, their confidence and the speaking face into the video."""

import contextlib
import itertools
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from syncnet.constants import SAMPLE_RATE
from syncnet.defaults import DIRECT, SPEAKER_THRESHOLD
from syncnet.errors import SyncNetError
from syncnet.faces.crops import video_writer
from syncnet.media import conversions
from syncnet.media.frames import read_ahead, read_frame
from syncnet.media.pictures import face_scale, square_scale, square_size
from syncnet.progress import Progress, silent
from syncnet.results.layout import Layout, check_input, frame_files, make_folder, new_file
from syncnet.results.step_files import SavedTrack, load_distances, load_pipeline, load_tracks, load_turns
from syncnet.steps.overlay import Overlay
from syncnet.sync.framewise import frame_confidence, speaking_confidence
from syncnet.sync.speakers import speaking_tracks

FULL_COLOUR = 255
COLOUR_PER_CONFIDENCE = 25
LINE_WIDTH = 3
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_COLOUR = (255, 255, 255)
TEXT_SCALE, SPEAKING_SCALE = 0.5, 0.6
TEXT_WIDTH = 2
UNKNOWN_COLOUR = (128, 128, 128)  # of frames without audio
SPEAKING = "speaking"
SPEAKING_COLOUR = (0, 160, 0)
TEXT_MARGIN = 8


@dataclass(frozen=True)
class DrawnFace:
    """The face of a track in one frame.

    Attributes:
        track: index of the track.
        conf: framewise confidence; None if the frame has no audio.
        s: half of the face's size, in pixels.
        x, y: centre of the face, in pixels.
    """

    track: int
    conf: float | None
    s: float
    x: float
    y: float


def run(
    layout: Layout,
    *,
    frame_rate: int,
    speaker_threshold: float = SPEAKER_THRESHOLD,
    speakers: bool = False,
    progress: Progress = silent,
    on_frame: Callable[[int], None] = lambda index: None,
) -> Path:
    """Draw the results into the video, and write video_only.avi and, with audio, video_out.avi.

    Args:
        layout: ``Layout`` with the results of run_pipeline and run_syncnet.
        frame_rate: frames per second of the videos to write.
        speaker_threshold: a face is tagged as speaking where its framewise confidence is above this.
        speakers: draw who speaks when by scores.json, instead of confidences and tags.
        progress: as in ``syncnet.progress``.
        on_frame: called with the index of every frame.

    Returns:
        Path of video_out.avi.

    Raises:
        SyncNetError: results of an earlier step are missing or damaged.
    """
    pipeline = load_pipeline(layout.pipeline) if layout.pipeline.exists() else None
    if pipeline and not layout.tracks.exists():
        why = "; ".join(reason["text"] for reason in pipeline["reasons"])
        raise SyncNetError(f"{pipeline['videofile']}: nothing to draw: {why}")
    tracks = load_tracks(layout.tracks)
    dists = load_distances(layout.distances)
    if len(tracks) != len(dists):
        raise SyncNetError(
            f"{layout.distances}: {len(dists)} scores for {len(tracks)} tracks: run run_syncnet.py again"
        )
    confidences = [frame_confidence(d) if len(d) else np.zeros(0) for d in dists]
    faces = faces_by_frame(tracks, confidences, count=1 + max((int(track.frame[-1]) for track in tracks), default=-1))
    speaker = speaking_tracks(
        [int(track.frame[0]) for track in tracks],
        [speaking_confidence(d) if len(d) else np.zeros(0) for d in dists],
        threshold=speaker_threshold,
    )
    turns = load_turns(layout.scores) if speakers else None
    with contextlib.ExitStack() as stack:
        images, count = stack.enter_context(open_frames(layout, pipeline))
        first = next(images)
        height, width = first.shape[:2]
        # frames are kept as they are stored, and older versions did not record the shape of their pixels
        aspect = (pipeline or {}).get("pixel_aspect", 1.0)
        if aspect != 1:
            width, height = square_size(width, height, aspect)
            faces = [[stretched(face, aspect) for face in here] for here in faces]
        overlay = Overlay(turns, height=height, width=width) if turns else None
        layout.video_out.unlink(missing_ok=True)
        temporary = stack.enter_context(new_file(layout.video_only))
        written = 0
        with video_writer(temporary, frame_rate=frame_rate, width=width, height=height) as writer:
            for image in progress(itertools.chain([first], images), total=count, desc="frames"):
                on_frame(written)
                if aspect != 1:
                    image = cv2.resize(image, (width, height))
                here = faces[written] if written < len(faces) else []
                if overlay:
                    overlay.draw(image, here, written)
                else:
                    for face in here:
                        draw_face(image, face, speaks=written < len(speaker) and speaker[written] == face.track)
                writer.write(image)
                written += 1
        conversions.mux(temporary, layout.audio, layout.video_out, frames=written)
    return layout.video_out


@contextlib.contextmanager
def open_frames(layout: Layout, pipeline: dict[str, Any] | None) -> Iterator[tuple[Iterator[np.ndarray], int | None]]:
    """Read the frames of a video: those that run_pipeline kept or, after direct mode, which keeps none, the video's.

    After direct mode, this also extracts the audio.

    Args:
        layout: ``Layout``.
        pipeline: content of pipeline.json, or None.

    Yields:
        Iterator of frames, H x W x 3 arrays, uint8, BGR; their number, or None if it is unknown.

    Raises:
        SyncNetError: there are no frames.
    """
    if pipeline and not layout.frames.exists() and (pipeline["recipe"] or {}).get("mode") == DIRECT:
        from syncnet.media.grid import read_bgr

        video = check_input(pipeline["videofile"], advice=": the frames are read from it: put it back")
        extract_audio(video, layout, pipeline["recipe"])
        with contextlib.closing(read_ahead(read_bgr(video), lambda image: image)) as images:
            yield images, None
        return
    files = frame_files(layout.frames)
    if not files:
        raise SyncNetError(f"{layout.frames}: no frames in it: run run_pipeline.py first")
    with contextlib.closing(read_ahead(files, read_frame)) as images:
        yield images, len(files)


def extract_audio(video: Path, layout: Layout, recipe: dict[str, Any]) -> None:
    """Extract the audio that direct mode scored, from the first picture on.

    Args:
        video: path of the video.
        layout: ``Layout``.
        recipe: recipe of direct mode, with ``audio`` and ``audio_stream`` if the user chose the sound.
    """
    from syncnet.media.grid import Grid
    from syncnet.media.sound import Sound

    source = recipe.get("audio")
    with Grid(video) as grid:
        start, delay = grid.start, grid.delay
    sound = Sound(
        check_input(source, advice=": its sound was scored: put it back") if source else video,
        zero=None if source else start,
        after=delay,
        stream=recipe.get("audio_stream"),
    )
    make_folder(layout.audio.parent)
    with contextlib.closing(sound), new_file(layout.audio) as temporary, wave.open(str(temporary), "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SAMPLE_RATE)
        at = 0
        while (end := min(sound.length(at + SAMPLE_RATE), at + SAMPLE_RATE)) > at:
            output.writeframes(sound.read(at, end).tobytes())
            sound.forget(end)
            at = end


def faces_by_frame(
    tracks: Sequence[SavedTrack], confidences: Sequence[np.ndarray], *, count: int
) -> list[list[DrawnFace]]:
    """Group the faces of all tracks by frame.

    Args:
        tracks: list of ``SavedTrack``.
        confidences: per track the confidence of its frames; shorter than the track if the audio is.
        count: number of frames.

    Returns:
        Per frame a list of ``DrawnFace``.
    """
    faces: list[list[DrawnFace]] = [[] for _ in range(count)]
    for number, (track, values) in enumerate(zip(tracks, confidences)):
        for at, frame in enumerate(track.frame.tolist()):
            if 0 <= frame < count:
                conf = float(values[at]) if at < len(values) else None
                faces[frame].append(DrawnFace(track=number, conf=conf, s=track.s[at], x=track.x[at], y=track.y[at]))
    return faces


def stretched(face: DrawnFace, aspect: float) -> DrawnFace:
    """Return a face where it is once pixels are square."""
    across, down = square_scale(aspect)
    return replace(face, s=face.s * face_scale(aspect), x=face.x * across, y=face.y * down)


def draw_face(image: np.ndarray, face: DrawnFace, *, speaks: bool) -> None:
    """Draw a square around a face, with its track, its confidence and, if it speaks, a label.

    Args:
        image: H x W x 3 array, uint8, BGR; modified in place.
        face: ``DrawnFace``; the colour of the square goes from red (low confidence) to green.
        speaks: True if the face is speaking: by ``speaking_confidence``, which is shifted against the framewise
            confidence of the label, so the two can disagree for a frame.
    """
    s, x, y = face.s, face.x, face.y
    corner = int(x - s), int(y - s)
    colour: tuple[float, float, float] = UNKNOWN_COLOUR
    text = f"Track {face.track}"
    if face.conf is not None:
        green = max(0, min(face.conf * COLOUR_PER_CONFIDENCE, FULL_COLOUR))
        colour, text = (0, green, FULL_COLOUR - green), f"{text}, Conf {face.conf:.3f}"
    cv2.rectangle(image, corner, (int(x + s), int(y + s)), colour, LINE_WIDTH)
    cv2.putText(image, text, label_place(corner, text, image.shape), FONT, TEXT_SCALE, TEXT_COLOUR, TEXT_WIDTH)
    if speaks:
        (width, height), _ = cv2.getTextSize(SPEAKING, FONT, SPEAKING_SCALE, TEXT_WIDTH)
        bottom = min(int(y + s), image.shape[0] - 1)
        box = (max(corner[0], 0), bottom - height - 2 * TEXT_MARGIN)
        cv2.rectangle(image, box, (box[0] + width + 2 * TEXT_MARGIN, bottom), SPEAKING_COLOUR, cv2.FILLED)
        place = (box[0] + TEXT_MARGIN, bottom - TEXT_MARGIN)
        cv2.putText(image, SPEAKING, place, FONT, SPEAKING_SCALE, TEXT_COLOUR, TEXT_WIDTH)


def label_place(corner: tuple[int, int], text: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the position of a track's label: the top left corner of the face, moved so that the label is visible.

    Args:
        corner: x and y of the face's top left corner.
        text: the label.
        shape: shape of the image.

    Returns:
        x and y of the label's lower left corner.
    """
    (width, height), below = cv2.getTextSize(text, FONT, TEXT_SCALE, TEXT_WIDTH)
    x, y = corner
    return max(0, min(x, shape[1] - width)), max(height, min(y, shape[0] - below))
