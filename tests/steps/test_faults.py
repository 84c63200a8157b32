"""Videos that are damaged: the reason in both modes, and that a whole video has none."""

import json
from pathlib import Path

import clips
import pytest

from syncnet import reasons
from syncnet.media.ffmpeg import Ffmpeg
from syncnet.results.layout import Layout
from syncnet.steps import direct, single
from syncnet.steps import pipeline as pipeline_step
from syncnet.steps.direct import DirectSettings
from syncnet.steps.pipeline import PipelineSettings
from SyncNetInstance import SyncNetInstance

pytestmark = pytest.mark.usefixtures("nothing_left_running")

SMALL = DirectSettings(facedet_scale=0.5, min_track=10, vshift=5)  # for clips of red squares
FRONT = ("-c", "copy", "-movflags", "+faststart")


@pytest.fixture(scope="module")
def nets(weights):
    from detectors import S3FD

    net = SyncNetInstance("cpu")
    net.loadParameters(weights["--initial_model"])
    return {"detector": S3FD("cpu", weights=weights["--s3fd_weights"]), "net": net}


@pytest.fixture
def cut(face_clip, tmp_path):
    """The clip without two fifths of its bytes, which a player still shows."""
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    Ffmpeg(["-i", face_clip, *FRONT, whole], source=whole).finish()
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    return path


@pytest.fixture
def flipped(face_clip, tmp_path):
    """The clip with wrong bytes in its middle."""
    data = bytearray(face_clip.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 1500 : 50] = b"\x55" * 30
    path = tmp_path / "flipped.mp4"
    path.write_bytes(data)
    return path


def damaged(records):
    return [record["text"] for record in records if record["code"] == reasons.DAMAGED]


def test_whole(results, face_clip, nets):
    assert damaged(json.loads(results.scores.read_text())["reasons"]) == []
    assert damaged(direct.run(face_clip, **nets, settings=SMALL).report["reasons"]) == []


def test_cut_off_in_published_mode(cut, pipeline, run):
    ran, layout = pipeline(cut)
    assert ran.code == 0
    [text] = damaged(json.loads(layout.pipeline.read_text())["reasons"])
    assert f"after {cut.stat().st_size} of" in text and " of 1.4 s of the picture and " in text
    assert "download or copy it again" in text
    assert [line for line in ran.err if text in line]
    assert run("run_syncnet", "--data_dir", layout.data_dir, "--reference", layout.reference).code == 0
    assert damaged(json.loads(layout.scores.read_text())["reasons"]) == [text]


def test_cut_off_in_direct_mode(cut, nets):
    [text] = damaged(direct.run(cut, **nets, settings=SMALL).report["reasons"])
    assert f"after {cut.stat().st_size} of" in text and " of 1.4 s of the picture and " in text


def test_wrong_bytes_in_published_mode(flipped, pipeline):
    ran, layout = pipeline(flipped)
    assert ran.code == 0 and [line for line in ran.err if "damaged?" in line]
    [text] = damaged(json.loads(layout.pipeline.read_text())["reasons"])
    assert "a part of the video cannot be decoded (" in text and " @ 0x" not in text


def test_wrong_bytes_in_direct_mode(flipped, nets):
    [text] = damaged(direct.run(flipped, **nets, settings=SMALL).report["reasons"])
    assert "cannot be decoded (" in text and "bytes" not in text


def test_other_sound(face_clip, cut, nets, tmp_path):
    """The reason names the file that is damaged: here the sound's."""
    found = direct.run(face_clip, **nets, settings=SMALL, audio=cut)
    [text] = damaged(found.report["reasons"])
    assert f"after {cut.stat().st_size} of" in text
    layout, settings = Layout(tmp_path, "me"), PipelineSettings(facedet_scale=0.5, min_track=10)
    found = pipeline_step.run(face_clip, layout, settings, load_detector=lambda: nets["detector"], audio=cut)
    assert [reason.code for reason in found.reasons if reason.code == reasons.DAMAGED]


def test_face_crops(cut, nets, tmp_path):
    """What needs no detector says so as well."""
    report = single.run(cut, Layout(tmp_path / "scratch", "me"), nets["net"], print_line=lambda line: None)
    [text] = damaged(report["reasons"])
    assert " s of the picture" in text
    [text] = damaged(direct.run(cut, **{**nets, "detector": None}, settings=SMALL).report["reasons"])
    assert " s of the picture" in text


def test_nothing_of_the_sound_is_left(face_clip, tmp_path, pipeline):
    """The container promises sound, but no packet of it is there."""
    whole, path = tmp_path / "whole.ts", tmp_path / "cut.ts"
    late = ["-i", face_clip, "-itsoffset", "1", "-i", face_clip, "-map", "0:v", "-map", "1:a", "-c", "copy"]
    Ffmpeg([*late, whole], source=whole).finish()
    whole_ts = whole.read_bytes()
    path.write_bytes(whole_ts[: len(whole_ts) // 3 // 188 * 188 + 100])
    ran, layout = pipeline(path)
    assert ran.code == 0
    codes = [record["code"] for record in json.loads(layout.scores.read_text())["reasons"]]
    assert codes == [reasons.DAMAGED, reasons.NO_AUDIO]


def test_a_file_without_a_track(tmp_path, pipeline, nets):
    """A face is looked for in what is left; that it was not found is a reason of its own."""
    whole = clips.make(tmp_path / "a.mkv", clips.canvas(seconds=2), clips.tone(seconds=2))
    path = Path(tmp_path / "b.mkv")
    path.write_bytes(whole.read_bytes()[:-2000])
    _, layout = pipeline(path)
    for report in (json.loads(layout.scores.read_text()), direct.run(path, **nets, settings=SMALL).report):
        assert [record["code"] for record in report["reasons"]][:2] == [reasons.DAMAGED, reasons.NO_FACE]
