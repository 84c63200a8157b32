"""Files that one step writes and another reads: the pickles of the published suite, and JSON for everything else."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from syncnet.constants import FRAME_RATE
from syncnet.errors import SyncNetError
from syncnet.results.layout import new_file

if TYPE_CHECKING:
    from syncnet.results.protocols import Face, Path2D, Track

PIPELINE, SYNC = "run_pipeline.py", "run_syncnet.py"  # the scripts that write the files
PICKLE_PROTOCOL = 4  # the newest that every supported version of Python reads
# Module and name of every class and function in the suite's pickles; pickles with any other are refused.
ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("fractions", "Fraction"),
    ("scenedetect.common", "FrameTimecode"),
    ("scenedetect.common", "Timecode"),
    ("scenedetect.common", "_FrameNumber"),
    ("scenedetect.common", "_Seconds"),
    ("scenedetect.frame_timecode", "FrameTimecode"),
}
PIPELINE_KEYS = ("videofile", "reference", "faces", "recipe")
TRACK_KEYS = ("first_frame", "last_frame", "mean_face_size")


class PlainUnpickler(pickle.Unpickler):
    """Unpickler of numbers, arrays and timecodes that cannot run other code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function of ``ADMITTED``."""
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} does not occur in files of this suite")
        return super().find_class(module, name)


def save_pickle(value: object, path: Path) -> None:
    """Write a pickle atomically."""
    data = pickle.dumps(value, protocol=PICKLE_PROTOCOL)
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def load_pickle(path: Path, *, made_by: str) -> Any:
    """Read a pickle written by ``save_pickle``.

    Args:
        path: path of the file.
        made_by: script that writes the file, for the error message.

    Raises:
        SyncNetError: the file is missing, damaged or contains types that the suite does not write.
    """
    try:
        return PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError as error:
        raise SyncNetError(f"{path}: does not exist: run {made_by} first") from error
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read it ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise SyncNetError(f"{path}: not written by this suite, or damaged ({error}): run {made_by} again") from error


def save_json(value: object, path: Path) -> None:
    """Write a JSON file atomically; numpy numbers are converted."""
    text = json.dumps(value, indent=1, default=plain, ensure_ascii=False) + "\n"
    with new_file(path) as temporary:
        # in file names that are not valid Unicode, the invalid bytes become JSON escapes
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def save_text(text: str, path: Path) -> None:
    """Write a text file atomically; names that are not valid Unicode keep their bytes."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def plain(value: object) -> object:
    """Convert a numpy number to a Python number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value)} cannot be written as JSON")


def load_json(path: Path, *, made_by: str) -> Any:
    """Read a file written by ``save_json``; arguments and errors as in ``load_pickle``."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SyncNetError(f"{path}: does not exist: run {made_by} first") from error
    except (OSError, ValueError) as error:
        raise SyncNetError(f"{path}: damaged: run {made_by} again") from error


def faces_record(faces: Iterable[Iterable[Face]]) -> list[list[dict[str, Any]]]:
    """Return the content of faces.pckl.

    Args:
        faces: per frame a list of ``Face``.
    """
    return [[{"frame": f.frame, "bbox": list(f.bbox), "conf": f.conf} for f in of_frame] for of_frame in faces]


def tracks_record(tracks: Iterable[Track], paths: Iterable[Path2D]) -> list[dict[str, dict[str, np.ndarray]]]:
    """Return the content of tracks.pckl.

    Args:
        tracks: list of ``Track``.
        paths: their crops' ``Path2D``.
    """
    return [
        {"track": {"frame": track.frame, "bbox": track.bbox}, "proc_track": {"s": path.s, "x": path.x, "y": path.y}}
        for track, path in zip(tracks, paths)
    ]


@contextmanager
def well_formed(path: Path, *, made_by: str) -> Iterator[None]:
    """Convert errors of a block that reads a value of unexpected form.

    Args:
        path: file that the value comes from, for the error message.
        made_by: script that writes the file.

    Raises:
        SyncNetError: the value does not have the expected form.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SyncNetError(f"{path}: not in the format that {made_by} writes ({error!r}): run it again") from error


def load_pipeline(path: Path) -> dict[str, Any]:
    """Read pipeline.json, the result of ``scores_json.pipeline_report``.

    Raises:
        SyncNetError: the file is missing, damaged or of another form.
    """
    pipeline = load_json(path, made_by=PIPELINE)
    with well_formed(path, made_by=PIPELINE):
        for key in PIPELINE_KEYS:
            pipeline[key]
        for track in pipeline["tracks"]:
            first, last, _ = (track[key] for key in TRACK_KEYS)
            last - first  # raises TypeError unless both are numbers
        for reason in pipeline["reasons"]:
            reason["code"], reason["text"]
    return pipeline


def load_tracks(path: Path) -> list[SavedTrack]:
    """Read tracks.pckl, as far as run_visualise needs it.

    Raises:
        SyncNetError: the file is missing, damaged or of another form.
    """
    found = load_pickle(path, made_by=PIPELINE)
    with well_formed(path, made_by=PIPELINE):
        return [saved_track(record) for record in found]


@dataclass(frozen=True)
class SavedTrack:
    """The part of a track that run_visualise draws.

    Attributes:
        frame: N frame indices, int.
        s: N half-sizes of the face, in pixels, float.
        x, y: N coordinates of its centre, in pixels, float.
    """

    frame: np.ndarray
    s: np.ndarray
    x: np.ndarray
    y: np.ndarray


def saved_track(record: dict[str, Any]) -> SavedTrack:
    """Convert an entry of tracks.pckl.

    Raises:
        ValueError: the arrays are empty or differ in length.
    """
    frame = np.array(record["track"]["frame"], int)
    path = {name: np.array(record["proc_track"][name], float) for name in ("s", "x", "y")}
    if not len(frame) or any(values.shape != frame.shape for values in path.values()):
        raise ValueError("the arrays of a track are empty or differ in length")
    return SavedTrack(frame, **path)


def load_distances(path: Path) -> list[np.ndarray]:
    """Read activesd.pckl.

    Returns:
        Per track a windows x shifts array, float32.

    Raises:
        SyncNetError: the file is missing, damaged or of another form.
    """
    found = load_pickle(path, made_by=SYNC)
    with well_formed(path, made_by=SYNC):
        arrays = [np.asarray(dists, np.float32) for dists in found]
        if any(dists.ndim != 2 or not dists.shape[1] for dists in arrays):
            raise ValueError("an array of distances does not have two dimensions")
    return arrays


@dataclass(frozen=True)
class SavedTurns:
    """Who speaks when, in frames.

    Attributes:
        frames: number of frames of the video.
        spans: first frame, frame after the last one, and index of the track that speaks.
        without_face: first frame, and frame after the last one, of speech that no visible face utters.
    """

    frames: int
    spans: list[tuple[int, int, int]]
    without_face: list[tuple[int, int]]


def load_turns(path: Path) -> SavedTurns:
    """Read who speaks when from scores.json.

    Raises:
        SyncNetError: the file is missing, damaged or of another form.
    """
    report = load_json(path, made_by=SYNC)
    with well_formed(path, made_by=SYNC):
        tracks = report["tracks"]
        delay = tracks[0]["start"] - tracks[0]["first_frame"] / FRAME_RATE if tracks else 0.0

        def frames_of(span: dict[str, Any]) -> tuple[int, int]:
            return round((span["start"] - delay) * FRAME_RATE), round((span["end"] - delay) * FRAME_RATE)

        spans = [(*frames_of(span), int(span["track"])) for span in report["speakers"]]
        without_face = [frames_of(span) for span in report["speech_without_face"]]
        ends = [track["last_frame"] + 1 for track in tracks] + [end for _, end in without_face]
        return SavedTurns(max([1, *ends, (report["faces"] or {}).get("frames", 0)]), spans, without_face)
