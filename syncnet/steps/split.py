"""Write every time in which a face speaks as a clip of its own: the face's crop, and its sound."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from syncnet.constants import FRAME_RATE, SAMPLES_PER_FRAME
from syncnet.defaults import DIRECT, MIN_SPAN
from syncnet.errors import DiskFullError, SyncNetError, no_space
from syncnet.faces.crops import CROP_SIZE
from syncnet.faces.tracks import Path2D
from syncnet.media.clips import ClipWriter
from syncnet.media.containers import main_audio, open_container
from syncnet.media.grid import Grid, GridPicture
from syncnet.media.pictures import Picture, face_scale, square_scale
from syncnet.media.sound import Sound
from syncnet.progress import Progress, silent
from syncnet.results.layout import check_clips, check_input, make_folder, new_folder, span_clip, span_index
from syncnet.steps.direct_pass import cut_out

COLUMNS = (
    *("file", "videofile", "track", "start", "end", "frames", "confidence", "speaking_offset", "speaking_confidence"),
    "lag_ms",
)


@dataclass(frozen=True)
class Span:
    """A time in which a face speaks.

    Attributes:
        record: its entry in scores.json.
        track: the ``TrackScore`` record of its face.
        path: crop positions of the whole track, where pixels are square; None of face crops.
    """

    record: dict[str, Any]
    track: dict[str, Any]
    path: Path2D | None

    @property
    def frames(self) -> int:
        return round((self.record["end"] - self.record["start"]) * FRAME_RATE)

    def crop(self, picture: Picture, index: int, *, crop_scale: float) -> np.ndarray:
        """Return the face in a frame, 224 x 224 x 3 array, uint8, BGR.

        Args:
            picture: the frame.
            index: its index in the span.
            crop_scale: as in ``crop_face``.
        """
        if self.path is None:
            return cv2.resize(picture.bgr(), (CROP_SIZE, CROP_SIZE))
        before = round((self.record["start"] - self.track["start"]) * FRAME_RATE)
        crop = cut_out(picture, self.path, before + index, crop_scale=crop_scale)
        assert isinstance(crop, np.ndarray), "the picture is in main memory"
        return crop


def run(
    report: dict[str, Any],
    paths: Sequence[Path2D | None],
    folder: str | Path,
    *,
    min_span: float = MIN_SPAN,
    overwrite: bool = False,
    progress: Progress = silent,
) -> list[Path]:
    """Write the clips and index.csv into a folder, which appears complete or not at all.

    The sound is what was scored, at 16 kHz, mono, and as early or late as it is in the video.

    Args:
        report: content of scores.json.
        paths: per track its crop positions; None of face crops.
        folder: the folder.
        min_span: shortest clip, in seconds.
        overwrite: replace the clips of an earlier run.
        progress: as in ``syncnet.progress``.

    Returns:
        Paths of the clips, by time.

    Raises:
        UsageError: the folder holds other files, or those of an earlier run without ``overwrite``.
        MediaError: the video or its sound cannot be read any more.
        DiskFullError: the disk is full.
        SyncNetError: a file cannot be written for another reason.
    """
    recipe = {**(report["recipe"]["syncnet"] or {}), **(report["recipe"]["pipeline"] or {})}
    videofile = check_input(report["videofile"], advice=": the clips are cut from it: put it back")
    audio = check_input(recipe["audio"], advice=": its sound was scored: put it back") if recipe.get("audio") else None
    folder = check_clips(folder, inputs=filter(None, (videofile, audio)), overwrite=overwrite)
    spans = [
        span
        for record in sorted(report["speakers"], key=lambda each: each["start"])
        if (span := Span(record, report["tracks"][record["track"]], paths[record["track"]])).frames
        >= min_span * FRAME_RATE
    ]
    make_folder(folder.parent, flag="--split_speakers")
    try:
        with new_folder(folder) as temporary:
            written = list(write(spans, videofile, audio, temporary, report=report, recipe=recipe, progress=progress))
            with span_index(temporary).open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                table = csv.DictWriter(file, COLUMNS)
                table.writeheader()
                table.writerows(row(report, span, name, frames=frames) for span, name, frames in written)
    except (OSError, av.FFmpegError) as error:
        kind = DiskFullError if isinstance(error, OSError) and no_space(error) else SyncNetError
        raise kind(f"{folder}: cannot write the clips ({getattr(error, 'strerror', None) or error})") from error
    return [folder / name for _, name, _ in written]


def write(
    spans: Sequence[Span],
    videofile: Path,
    audio: Path | None,
    folder: Path,
    *,
    report: dict[str, Any],
    recipe: dict[str, Any],
    progress: Progress,
) -> Iterator[tuple[Span, str, int]]:
    """Write the clips of spans, which are in order and do not overlap.

    Args:
        spans: the spans.
        videofile: the video.
        audio: media file whose sound replaces the video's own, or None.
        folder: folder to write to.
        report: content of scores.json.
        recipe: its recipes.
        progress: as in ``syncnet.progress``.

    Yields:
        Span, name and number of frames of every clip; of a span after the last picture there is none.
    """
    if not spans:
        return
    with contextlib.ExitStack() as stack:
        grid = stack.enter_context(Grid(videofile))
        stream = sound_stream(audio or videofile, recipe.get("audio_stream"), mode=report["mode"])
        sound = Sound(audio or videofile, zero=None if audio else grid.start, after=grid.delay, stream=stream)
        stack.callback(sound.close)
        if report["mode"] != DIRECT:  # its faces lie in the pictures as they are stored
            spans = [stretched(span, grid) for span in spans]
        pictures = enumerate(progress(grid, total=grid.expected or None, desc="clips"))
        for span in spans:
            first = round((span.record["start"] - grid.delay) * FRAME_RATE)
            path = span_clip(folder, **{key: span.record[key] for key in ("track", "start", "end")})
            inside = within(pictures, first, first + span.frames)
            found = next(inside, None)
            if found is None:
                continue
            with ClipWriter(path, width=CROP_SIZE, height=CROP_SIZE) as clip:
                while found is not None:
                    index, picture = found
                    crop = span.crop(picture.picture, index - first, crop_scale=recipe.get("crop_scale", 0.0))
                    start, end = index * SAMPLES_PER_FRAME, (index + 1) * SAMPLES_PER_FRAME
                    sound.forget(start)
                    clip.add(crop, sound.read(start, end))
                    found = next(inside, None)
            yield span, path.name, clip.frames


def stretched(span: Span, grid: Grid) -> Span:
    """Return a span of published mode with crop positions for the square pixels of a grid."""
    if span.path is None or grid.aspect == 1:
        return span
    across, down = square_scale(grid.aspect)
    path = Path2D(s=span.path.s * face_scale(grid.aspect), x=span.path.x * across, y=span.path.y * down)
    return replace(span, path=path)


def within(pictures: Iterator[tuple[int, GridPicture]], first: int, end: int) -> Iterator[tuple[int, GridPicture]]:
    """Yield the pictures from ``first`` to ``end`` (exclusive) of an iterator, and leave those after them in it."""
    for index, picture in pictures:
        if index >= first:
            yield index, picture
        if index + 1 >= end:
            return


def sound_stream(path: Path, chosen: int | None, *, mode: str) -> int | None:
    """Return the index among the audio streams of the one that was scored; None for the one that a player takes.

    Args:
        path: the file.
        chosen: value of --audio_stream, or None.
        mode: published mode scores the stream that ffmpeg selects.
    """
    if chosen is not None or mode == DIRECT:
        return chosen
    with open_container(path) as container:
        main = main_audio(container)
        return None if main is None else [stream.index for stream in container.streams.audio].index(main.index)


def row(report: dict[str, Any], span: Span, name: str, *, frames: int) -> dict[str, Any]:
    """Return the row of a clip in index.csv."""
    same = ("speaking_offset", "speaking_confidence", "lag_ms")
    return {
        "file": name,
        "videofile": report["videofile"],
        **span.record,
        "frames": frames,
        **{key: span.track[key] for key in same},
    }
