"""Files between the steps: reading them runs no code, and they are written atomically."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from scenedetect import FrameTimecode

from syncnet.errors import SyncNetError, UsageError
from syncnet.faces.tracks import Face
from syncnet.results.layout import Layout, new_file, new_folder
from syncnet.results.step_files import faces_record, load_json, load_pickle, save_json, save_pickle

SCRIPT = "run_pipeline.py"


class Bomb:
    """A pickle that runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def test_pickle_with_code_is_not_run(tmp_path):
    (tmp_path / "tracks.pckl").write_bytes(pickle.dumps([Bomb(tmp_path / "ran")]))
    with pytest.raises(SyncNetError, match=SCRIPT):
        load_pickle(tmp_path / "tracks.pckl", made_by=SCRIPT)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x04", b"hello", pickle.dumps([1, 2])[:-3]])
def test_damaged_pickle(tmp_path, data):
    (tmp_path / "tracks.pckl").write_bytes(data)
    with pytest.raises(SyncNetError, match=SCRIPT):
        load_pickle(tmp_path / "tracks.pckl", made_by=SCRIPT)


def test_missing_record(tmp_path):
    with pytest.raises(SyncNetError, match=f"run {SCRIPT} first"):
        load_pickle(tmp_path / "tracks.pckl", made_by=SCRIPT)
    with pytest.raises(SyncNetError, match=f"run {SCRIPT} first"):
        load_json(tmp_path / "pipeline.json", made_by=SCRIPT)


def test_everything_that_is_written_is_read(tmp_path):
    written = [
        {"frame": np.arange(3), "bbox": np.ones((3, 4)), "conf": 0.5},
        np.zeros((2, 31), np.float32),
        (FrameTimecode(0, 25.0), FrameTimecode(134, 25.0)),
        np.float64(1.5),
        Fraction(1, 25),
    ]
    save_pickle(written, tmp_path / "all.pckl")
    track, dists, (start, end), number, fraction = load_pickle(tmp_path / "all.pckl", made_by=SCRIPT)
    assert track["frame"].tolist() == [0, 1, 2]
    assert dists.dtype == np.float32
    assert (start.frame_num, end.frame_num, number, fraction) == (0, 134, 1.5, Fraction(1, 25))


def test_faces_as_published():
    record = faces_record([[Face(frame=0, bbox=(1.0, 2.0, 3.0, 4.0), conf=0.9)], []])
    assert record == [[{"frame": 0, "bbox": [1.0, 2.0, 3.0, 4.0], "conf": 0.9}], []]


def test_json_of_numpy_numbers(tmp_path):
    save_json({"a": np.float32(0.5), "b": np.int64(3), "ü": "ß"}, tmp_path / "a.json")
    assert load_json(tmp_path / "a.json", made_by=SCRIPT) == {"a": 0.5, "b": 3, "ü": "ß"}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SyncNetError, match="damaged"):
        load_json(tmp_path / "a.json", made_by=SCRIPT)


def test_new_file_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), new_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    with new_file(path) as temporary:
        temporary.write_text("whole")
        assert path.read_text() == "before"
    assert path.read_text() == "whole"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_new_folder_is_all_or_nothing(tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    (folder / "old").touch()
    with pytest.raises(RuntimeError), new_folder(folder) as temporary:
        (temporary / "half").touch()
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["old"]
    with new_folder(folder) as temporary:
        (temporary / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["crops"]


@pytest.mark.parametrize("reference", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b"])
def test_reference_is_a_plain_name(tmp_path, reference):
    with pytest.raises(UsageError, match="--reference"):
        Layout(tmp_path, reference)


@pytest.mark.parametrize("reference", ["name", "two words", "-x", "ü'\"$;", "a.b", "100%d"])
def test_unusual_references(tmp_path, reference):
    assert Layout(tmp_path, reference).video == tmp_path / "pyavi" / reference / "video.avi"
