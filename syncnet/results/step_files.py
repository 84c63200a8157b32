"""The files between the steps: the pickles that other people's scripts read, and JSON for everything new."""

import io
import json
import pickle
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from syncnet.errors import SyncNetError
from syncnet.results.layout import new_file

PIPELINE, SYNC = "run_pipeline.py", "run_syncnet.py"  # what writes them
PICKLE_PROTOCOL = 4  # the newest that every Python 3 in use can read
# What the suite's pickles are made of, by module and name; a pickle that asks for anything else is not read.
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
    """Reads numbers, arrays and timecodes, and runs nothing."""

    def find_class(self, module, name):
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not of the suite")
        return super().find_class(module, name)


def save_pickle(value, path):
    data = pickle.dumps(value, protocol=PICKLE_PROTOCOL)
    with new_file(path) as aside:
        aside.write_bytes(data)


def load_pickle(path, *, made_by):
    """What ``save_pickle`` wrote.

    Args:
        made_by: the script that writes it, for the error.

    Raises:
        SyncNetError: missing, damaged or with something in it that the suite does not write.
    """
    try:
        return PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError as error:
        raise SyncNetError(f"{path}: not there: run {made_by} first") from error
    except OSError as error:
        raise SyncNetError(f"{path}: cannot read it ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise SyncNetError(f"{path}: not written by this suite, or damaged ({error}): run {made_by} again") from error


def save_json(value, path):
    text = json.dumps(value, indent=1, default=plain, ensure_ascii=False) + "\n"
    with new_file(path) as aside:
        # a file name that is no Unicode becomes a JSON escape
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def plain(value):
    """A numpy number as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value)} does not go into JSON")


def load_json(path, *, made_by):
    """What ``save_json`` wrote; errors as ``load_pickle``."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SyncNetError(f"{path}: not there: run {made_by} first") from error
    except (OSError, ValueError) as error:
        raise SyncNetError(f"{path}: damaged: run {made_by} again") from error


def faces_record(faces):
    """Per-frame lists of ``Face`` as faces.pckl has them."""
    return [[{"frame": f.frame, "bbox": list(f.bbox), "conf": f.conf} for f in of_frame] for of_frame in faces]


def tracks_record(tracks, paths):
    """Tracks and their ``Path2D`` as tracks.pckl has them."""
    return [
        {"track": {"frame": track.frame, "bbox": track.bbox}, "proc_track": {"s": path.s, "x": path.x, "y": path.y}}
        for track, path in zip(tracks, paths)
    ]


@contextmanager
def well_formed(path, *, made_by):
    """Make the error of a block that reads a value of another form one that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise SyncNetError(f"{path}: not what {made_by} writes ({error!r}): run it again") from error


def load_pipeline(path):
    """pipeline.json as ``scores_json.pipeline_report`` has it.

    Raises:
        SyncNetError: missing, damaged or something else.
    """
    pipeline = load_json(path, made_by=PIPELINE)
    with well_formed(path, made_by=PIPELINE):
        for key in PIPELINE_KEYS:
            pipeline[key]
        for track in pipeline["tracks"]:
            first, last, _ = (track[key] for key in TRACK_KEYS)
            last - first  # numbers
        for reason in pipeline["reasons"]:
            reason["code"], reason["text"]
    return pipeline


def load_tracks(path):
    """What ``tracks_record`` describes, as far as it is drawn.

    Returns:
        List of ``SavedTrack``.

    Raises:
        SyncNetError: missing, damaged or something else.
    """
    found = load_pickle(path, made_by=PIPELINE)
    with well_formed(path, made_by=PIPELINE):
        return [saved_track(record) for record in found]


@dataclass(frozen=True)
class SavedTrack:
    """A track as far as it is drawn.

    Attributes:
        frame: N frame indices, int.
        s, x, y: half-size and centre of the face in each, in pixels, float.
    """

    frame: np.ndarray
    s: np.ndarray
    x: np.ndarray
    y: np.ndarray


def saved_track(record):
    """Read a track of tracks.pckl.

    Raises:
        ValueError: it is of two lengths, or of none.
    """
    frame = np.array(record["track"]["frame"], int)
    path = {name: np.array(record["proc_track"][name], float) for name in ("s", "x", "y")}
    if not len(frame) or any(values.shape != frame.shape for values in path.values()):
        raise ValueError("a track of two lengths, or of none")
    return SavedTrack(frame, **path)


def load_distances(path):
    """activesd.pckl: per track a windows x shifts array.

    Raises:
        SyncNetError: missing, damaged or something else.
    """
    found = load_pickle(path, made_by=SYNC)
    with well_formed(path, made_by=SYNC):
        arrays = [np.asarray(dists, np.float32) for dists in found]
        if any(dists.ndim != 2 or not dists.shape[1] for dists in arrays):
            raise ValueError("no tables of distances")
    return arrays
