"""run_visualise's work: the video with every face track, its confidence and the speaking face drawn in."""

import contextlib

import cv2
import numpy as np

from syncnet import media
from syncnet.confidence import frame_confidence, speaking_confidence
from syncnet.crops import video_writer
from syncnet.errors import SyncNetError
from syncnet.frames import read_ahead, read_frame
from syncnet.layout import frame_files, new_file
from syncnet.records import load_json, load_pickle
from syncnet.speakers import THRESHOLD as SPEAKER_THRESHOLD
from syncnet.speakers import speaking_tracks

FULL_COLOUR = 255
COLOUR_PER_CONFIDENCE = 25
LINE_WIDTH = 3
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_COLOUR = (255, 255, 255)
UNKNOWN_COLOUR = (128, 128, 128)  # of a frame without sound
SPEAKING = "speaking"
SPEAKING_COLOUR = (0, 160, 0)
TEXT_MARGIN = 8


def run(
    layout,
    *,
    frame_rate,
    speaker_threshold=SPEAKER_THRESHOLD,
    progress=lambda items, **_: items,
    on_frame=lambda index: None,
):
    """Draw the results of run_pipeline and run_syncnet into the video: video_only.avi, and video_out.avi with sound.

    Args:
        layout: ``Layout``.
        frame_rate: frames a second of the result.
        speaker_threshold: confidence that a speaking face is above.
        progress: wraps an iterable, with ``total`` and ``desc``, to show how far it is.
        on_frame: called with the index of every frame.

    Returns:
        Path of video_out.avi.
    """
    if layout.pipeline.exists() and not layout.tracks.exists():
        found = load_json(layout.pipeline, made_by="run_pipeline.py")
        why = "; ".join(reason["text"] for reason in found["reasons"])
        raise SyncNetError(f"{found['videofile']}: nothing to draw: {why}")
    tracks = load_pickle(layout.tracks, made_by="run_pipeline.py")
    dists = load_pickle(layout.distances, made_by="run_syncnet.py")
    if len(tracks) != len(dists):
        raise SyncNetError(f"{layout.distances}: {len(dists)} scores of {len(tracks)} tracks: run run_syncnet.py again")
    files = frame_files(layout.frames)
    if not files:
        raise SyncNetError(f"{layout.frames}: no pictures: run run_pipeline.py first")
    confidences = [frame_confidence(d) if len(d) else np.zeros(0) for d in dists]
    faces = faces_by_frame(tracks, confidences, count=len(files))
    speaker = speaking_tracks(
        [int(track["track"]["frame"][0]) for track in tracks],
        [speaking_confidence(d) if len(d) else np.zeros(0) for d in dists],
        threshold=speaker_threshold,
    )
    height, width = read_frame(files[0]).shape[:2]
    layout.video_out.unlink(missing_ok=True)
    with new_file(layout.video_only) as aside:
        with (
            video_writer(aside, frame_rate=frame_rate, width=width, height=height) as writer,
            contextlib.closing(read_ahead(files, read_frame)) as images,
        ):
            for index, image in enumerate(progress(images, total=len(files), desc="frames")):
                on_frame(index)
                for face in faces[index]:
                    draw_face(image, face, speaks=index < len(speaker) and speaker[index] == face["track"])
                writer.write(image)
        media.mux(aside, layout.audio, layout.video_out, frames=len(files))
    return layout.video_out


def faces_by_frame(tracks, confidences, *, count):
    """What is to be drawn on each of ``count`` frames: dicts of track, conf (None without sound), s, x and y."""
    faces = [[] for _ in range(count)]
    for number, (track, values) in enumerate(zip(tracks, confidences)):
        path = track["proc_track"]
        for at, frame in enumerate(track["track"]["frame"].tolist()):
            if frame < count:
                conf = float(values[at]) if at < len(values) else None
                faces[frame].append(
                    {"track": number, "conf": conf, "s": path["s"][at], "x": path["x"][at], "y": path["y"][at]}
                )
    return faces


def draw_face(image, face, *, speaks):
    """Draw a square around a face, from red (unsure) to green, its track and confidence, and whether it speaks."""
    s, x, y = face["s"], face["x"], face["y"]
    corner = int(x - s), int(y - s)
    colour, text = UNKNOWN_COLOUR, f"Track {face['track']}"
    if face["conf"] is not None:
        green = max(0, min(face["conf"] * COLOUR_PER_CONFIDENCE, FULL_COLOUR))
        colour, text = (0, green, FULL_COLOUR - green), f"{text}, Conf {face['conf']:.3f}"
    cv2.rectangle(image, corner, (int(x + s), int(y + s)), colour, LINE_WIDTH)
    cv2.putText(image, text, corner, FONT, 0.5, TEXT_COLOUR, 2)
    if speaks:
        (width, height), _ = cv2.getTextSize(SPEAKING, FONT, 0.6, 2)
        bottom = min(int(y + s), image.shape[0] - 1)
        box = (max(corner[0], 0), bottom - height - 2 * TEXT_MARGIN)
        cv2.rectangle(image, box, (box[0] + width + 2 * TEXT_MARGIN, bottom), SPEAKING_COLOUR, cv2.FILLED)
        cv2.putText(image, SPEAKING, (box[0] + TEXT_MARGIN, bottom - TEXT_MARGIN), FONT, 0.6, TEXT_COLOUR, 2)
