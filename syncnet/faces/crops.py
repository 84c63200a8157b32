"""Face tracks cut out of the video as clips of their own, 224x224 with sound: what SyncNet scores."""

import contextlib
import wave
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from syncnet.errors import SyncNetError
from syncnet.faces.tracks import Path2D
from syncnet.media import conversions
from syncnet.media.ffmpeg import absolute
from syncnet.media.frames import read_ahead, read_frame
from syncnet.median import median_filter
from syncnet.progress import silent
from syncnet.results.layout import crop_audio_file, crop_file, frame_file, silent_crop_file

CROP_SIZE = 224  # pixels
SMOOTHING = 13  # frames of the median filter over the crops' sizes and centres
PADDING = 110  # grey of what lies outside the picture
CODEC = "XVID"
MUXERS = 2  # ffmpegs at a time


def smooth(track):
    """The ``Path2D`` of a track."""
    x1, y1, x2, y2 = track.bbox.T
    half = np.maximum(x2 - x1, y2 - y1) / 2
    return Path2D(*(median_filter(v, SMOOTHING) for v in (half, (x1 + x2) / 2, (y1 + y2) / 2)))


def crop_face(image, *, s, x, y, crop_scale):
    """One crop.

    The picture counts as padded with grey by ``s * (1 + 2 * crop_scale)`` pixels on every side, and rows and columns
    are cut from that; further out there is nothing, and the crop is stretched. Only what is cut is padded.

    Args:
        image: H x W x 3 array, BGR.
        s, x, y: half-size and centre in pixels.
        crop_scale: how much of the surroundings is in the crop.

    Returns:
        224 x 224 x 3 array.
    """
    height, width = image.shape[:2]
    border = int(s * (1 + 2 * crop_scale))
    top, bottom = int(y + border - s), int(y + border + s * (1 + 2 * crop_scale))
    left, right = int(x + border - s * (1 + crop_scale)), int(x + border + s * (1 + crop_scale))
    rows = max(top, 0), min(bottom, height + 2 * border)
    columns = max(left, 0), min(right, width + 2 * border)
    cut = np.full((max(rows[1] - rows[0], 1), max(columns[1] - columns[0], 1), 3), PADDING, np.uint8)
    inside = [max(rows[0] - border, 0), min(rows[1] - border, height)]
    across = [max(columns[0] - border, 0), min(columns[1] - border, width)]
    if inside[0] < inside[1] and across[0] < across[1]:
        y0, x0 = inside[0] + border - rows[0], across[0] + border - columns[0]
        region = image[inside[0] : inside[1], across[0] : across[1]]
        cut[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]] = region
    return cv2.resize(cut, (CROP_SIZE, CROP_SIZE))


@contextlib.contextmanager
def video_writer(path, *, frame_rate, width, height):
    """Yield a ``cv2.VideoWriter`` of an XVID AVI."""
    writer = cv2.VideoWriter(
        absolute(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*CODEC), frame_rate, (width, height)
    )
    try:
        if not writer.isOpened():
            raise SyncNetError(f"{path}: OpenCV cannot write this video: is the disk full?")
        yield writer
    finally:
        writer.release()


def cut_audio(audio, output, *, first, last, frame_rate):
    """Write the sound of frames ``first`` to ``last`` (inclusive) of a WAV file into another.

    Times are rounded to milliseconds, as published pipelines hand them to ffmpeg.
    """
    with wave.open(str(audio), "rb") as source:
        rate, total = source.getframerate(), source.getnframes()
        start, end = (min(round(round(t / frame_rate, 3) * rate), total) for t in (first, last + 1))
        source.setpos(start)
        samples = source.readframes(end - start)
        with wave.open(str(output), "wb") as cut:
            cut.setparams(source.getparams())
            cut.writeframes(samples)


def write_crops(tracks, *, frames, audio, folder, crop_scale, frame_rate, progress=silent):
    """Write every track as a clip, 00000.avi and so on.

    Args:
        tracks: list of ``Track``.
        frames: folder of the video's pictures.
        audio: the video's sound, WAV.
        folder: where the clips go.
        crop_scale: as in ``crop_face``.
        frame_rate: frames a second.
        progress: as in ``syncnet.progress``.

    Returns:
        The ``Path2D`` of every track.
    """
    paths = [smooth(track) for track in tracks]
    draw_crops(
        tracks, paths, frames=frames, folder=folder, crop_scale=crop_scale, frame_rate=frame_rate, progress=progress
    )

    def add_sound(index):
        pictures, sound = silent_crop_file(folder, index), crop_audio_file(folder, index)
        frame = tracks[index].frame
        cut_audio(audio, sound, first=frame[0], last=frame[-1], frame_rate=frame_rate)
        conversions.mux(pictures, sound, crop_file(folder, index), frames=len(frame))
        pictures.unlink()
        sound.unlink()

    with ThreadPoolExecutor(MUXERS) as pool:
        list(pool.map(add_sound, range(len(tracks))))
    return paths


def draw_crops(tracks, paths, *, frames, folder, crop_scale, frame_rate, progress):
    """Write the pictures of all tracks in one pass over the video's."""
    needed = sorted(set().union(*(track.frame.tolist() for track in tracks)))
    writers = {}
    with contextlib.ExitStack() as stack:
        images = stack.enter_context(
            contextlib.closing(read_ahead((frame_file(frames, index) for index in needed), read_frame))
        )
        for index, image in zip(progress(needed, total=len(needed), desc="crops"), images):
            for number, (track, path) in enumerate(zip(tracks, paths)):
                if not track.frame[0] <= index <= track.frame[-1]:
                    continue
                if index == track.frame[0]:
                    writer = video_writer(
                        silent_crop_file(folder, number), frame_rate=frame_rate, width=CROP_SIZE, height=CROP_SIZE
                    )
                    writers[number] = stack.enter_context(writer)
                at = index - track.frame[0]
                crop = crop_face(image, s=path.s[at], x=path.x[at], y=path.y[at], crop_scale=crop_scale)
                writers[number].write(crop)
                if index == track.frame[-1]:
                    writers.pop(number).release()
