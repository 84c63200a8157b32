"""Content of scores.json and pipeline.json: which numbers are there in which mode."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from syncnet import reasons
from syncnet.defaults import DIRECT, PUBLISHED
from syncnet.results.scores_json import box_record, empty_record, score_record, scores_report, track_record
from syncnet.sync.lag import Lag
from syncnet.sync.scoring import SyncScore

SCORE = SyncScore(np.zeros((9, 31)), 1, 7.5, 3.25, video_frames=14, audio_frames=14)


def weights(*, published):
    return SimpleNamespace(name="a.model", sha256="0" * 64, published=published)


@pytest.mark.parametrize(
    ("mode", "used", "is_lse"),
    [
        (PUBLISHED, weights(published=True), True),
        (PUBLISHED, weights(published=False), False),
        (PUBLISHED, None, False),
        (DIRECT, weights(published=True), False),
    ],
)
def test_lse_is_lse_only_where_it_is(mode, used, is_lse):
    record = score_record(SCORE, vshift=15, weights=used, mode=mode)
    assert (record["confidence"], record["min_dist"]) == (3.25, 7.5)
    assert (record["lse_c"], record["lse_d"]) == ((3.25, 7.5) if is_lse else (None, None))


def test_lag_of_a_track():
    lag = Lag(np.float64(12.3456), 3.0, drift_ms_per_min=-0.5)
    record = score_record(SCORE, vshift=15, weights=None, mode=DIRECT, lag=lag)
    found = (record["lag_ms"], record["lag_error_ms"], record["drift_ms_per_min"], record["drift_error_ms_per_min"])
    assert found == (12.35, 3.0, -0.5, None)
    json.dumps(record)
    without = score_record(SCORE, vshift=15, weights=None)
    assert without.keys() == record.keys() == empty_record(reasons.no_audio()).keys()
    assert without["lag_ms"] is without["lag_error_ms"] is None


def report(**options):
    return scores_report(None, reference="me", tracks=[], speakers=[], recipe=None, **options)


def test_lag_of_a_video():
    found = report(mode=DIRECT, lag=Lag(-40.0, 2.0), lag_zero="unmeasured")
    assert found["mode"] == DIRECT
    assert (found["lag_ms"], found["lag_error_ms"], found["lag_zero"]) == (-40.0, 2.0, "unmeasured")
    assert found["reasons"] == []
    unknown = report(mode=DIRECT, lag=reasons.no_confident_track(), lag_zero=4.5)
    assert (unknown["lag_ms"], unknown["lag_error_ms"], unknown["lag_zero"]) == (None, None, 4.5)
    assert [reason["code"] for reason in unknown["reasons"]] == [reasons.NO_CONFIDENT_TRACK]


def test_published_mode_has_no_lag():
    found = report()
    assert found["mode"] == PUBLISHED
    assert found["lag_ms"] is found["lag_error_ms"] is found["lag_zero"] is None


def test_median_box():
    boxes = np.array([[10.0, 20, 50, 70], [12, 20, 52.4, 70], [400, 20, 900, 70]])
    assert box_record(boxes) == [12, 20, 40, 50]
    assert json.dumps(box_record(boxes)) == "[12, 20, 40, 50]"
    assert track_record(0, 0, 9, 45.0)["box"] is None


def test_box_in_both_files(results):
    [track] = json.loads(results.scores.read_text())["tracks"]
    assert track["box"] == json.loads(results.pipeline.read_text())["tracks"][0]["box"]
    x, y, width, height = track["box"]
    assert width == height == round(track["mean_face_size"])
    # the square of clips.face_clip is at 100 to 200 and 60 to 160
    assert 100 < x + width / 2 < 200 and 60 < y + height / 2 < 160


def test_pipeline_record_of_an_older_version(results, run):
    record = json.loads(results.pipeline.read_text())
    del record["tracks"][0]["box"]
    results.pipeline.write_text(json.dumps(record))
    assert run("run_syncnet", "--data_dir", results.data_dir, "--reference", "me").code == 0
    [track] = json.loads(results.scores.read_text())["tracks"]
    assert track["box"] is None and track["mean_face_size"] == record["tracks"][0]["mean_face_size"]
