"""Taking out a lag: what is measured, what is refused, and what becomes of the result."""

from __future__ import annotations

import dataclasses
import errno
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from moving import MIDDLE_S, Mover, make_video, measure, measurement

from syncnet import reasons
from syncnet.errors import DiskFullError, MediaError, SyncNetError, UsageError
from syncnet.media.resync import COPY, Shift
from syncnet.steps import correct
from syncnet.steps.correct import Correction, CorrectionSettings, RefusedError, measurement_of, rate, search_range
from syncnet.sync import scoring

FAR, NEAR = 15.0, 8.0  # distances


def distances(*, vshift, best, windows=40, confidence=FAR - NEAR):
    """Return windows x shifts distances whose mean is smallest at a column."""
    dists = np.full((windows, 2 * vshift + 1), FAR, np.float32)
    dists += np.random.default_rng(1).normal(scale=0.01, size=dists.shape).astype(np.float32)
    dists[:, best] -= confidence
    return dists


def track(**changed):
    """Return the record of a track in scores.json."""
    record = {"start": 0.0, "end": 10.0, "confidence": 7.0, "lag_ms": -215.0, "lag_error_ms": 4.0, "windows": 245}
    return {**record, "drift_ms_per_min": None, "drift_error_ms_per_min": None, "reasons": [], **changed}


def report(*tracks, reasons=()):
    return {"tracks": list(tracks), "reasons": [dataclasses.asdict(reason) for reason in reasons]}


# -- confidence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0, 4, 15, 30])
def test_confidence_is_that_of_score_video_where_it_tries_the_lag(best):
    wide = distances(vshift=25, best=10 + best)
    wide[:, :10] -= 3.0  # not tried there
    narrow = scoring.score(wide[:, 10:41], video_frames=45, audio_frames=45)
    assert rate(wide) == (narrow.confidence, False)


@pytest.mark.parametrize("best, first", [(9, 0), (16, 1), (20, 5), (64, 49), (75, 50), (79, 50)])
def test_confidence_of_a_lag_farther_away_is_over_as_many_shifts_around_it(best, first):
    dists = distances(vshift=40, best=best)
    dists[:, first : first + correct.SHIFTS][:, ::2] -= 1.0
    mean = dists.mean(axis=0)
    expected = np.median(mean[first : first + correct.SHIFTS]) - mean[best]
    assert rate(dists)[0] == pytest.approx(expected)
    assert expected != pytest.approx(np.median(mean) - mean[best], abs=0.1)


def test_the_outermost_shift_is_the_edge():
    assert [rate(distances(vshift=20, best=best))[1] for best in (0, 1, 20, 39, 40)] == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_the_search_has_room_for_the_largest_lag():
    assert [search_range(lag) for lag in (10, 560, 600, 1000, 1001)] == [15, 15, 16, 26, 27]


# -- measurement -----------------------------------------------------------------------------------------------------


def test_one_track():
    found = measurement_of(report(track()), [distances(vshift=15, best=20)])
    assert (found.lag_ms, found.lag_error_ms) == (pytest.approx(-215), pytest.approx(4))
    assert found.confidence == pytest.approx(7, abs=0.1)
    assert (found.reasons, found.at_edge, found.drifts) == ((), False, False)
    [shot] = found.shots
    assert (shot.start, shot.end, shot.lag_ms) == (0.0, 10.0, -215.0)


def test_tracks_count_by_the_confidence_over_the_usual_shifts():
    """The report's own is over all that were tried."""
    dists = [distances(vshift=40, best=45), distances(vshift=40, best=40, confidence=2.5)]
    found = measurement_of(report(track(), track(lag_ms=90.0)), dists)
    assert found.lag_ms == pytest.approx(-215)
    assert [round(shot.confidence, 1) for shot in found.shots] == [7.0, 2.5]


def test_without_distances_the_confidences_of_the_report_count():
    other = track(lag_ms=300.0, confidence=2.9)
    assert measurement_of(report(track(), other), None).lag_ms == pytest.approx(-215)
    assert measurement_of(report(other), None).lag_ms is None
    assert measurement_of(report(other), None, min_confidence=2.0).lag_ms == pytest.approx(300)
    assert measurement_of(report(track(confidence=3.5)), None, min_confidence=5.0).lag_ms == pytest.approx(-215)


def test_a_lag_that_varies_is_that_of_the_tracks_middle():
    """At one line for both tracks, the combined lag is the line's at ``at_s``."""
    drift, start = 120.0, -100.0
    tracks = []
    for first, last, error in ((0.0, 24.0, 2.0), (24.0, 46.0, 5.0)):
        lag = start + drift * (first + last) / 2 / 60
        numbers = {
            "drift_ms_per_min": drift + first,
            "drift_error_ms_per_min": 9.0,
            "windows": int(25 * (last - first)),
        }
        tracks.append(track(start=first, end=last, lag_ms=lag, lag_error_ms=error, **numbers))
    found = measurement_of(report(*tracks), None)
    assert found.lag_ms == pytest.approx(start + drift * found.at_s / 60)
    assert (found.drift_ms_per_min, found.drift_error_ms_per_min, found.drifts) == (drift, 9.0, True)


def test_a_drift_without_effect_is_none():
    drifting = {"drift_ms_per_min": 40.0, "drift_error_ms_per_min": 5.0}
    assert measurement_of(report(track(end=60.0, **drifting)), None).drifts
    assert not measurement_of(report(track(end=14.0, **drifting)), None).drifts
    assert not measurement_of(report(track(end=60.0, **{**drifting, "drift_error_ms_per_min": 41.0})), None).drifts


def test_tracks_that_disagree():
    old = reasons.tracks_disagree(earliest=0, latest=0)
    found = measurement_of(report(track(), track(lag_ms=-150.0), reasons=[old]), None)
    assert found.lag_ms is None and found.lag_error_ms is None and len(found.shots) == 2
    [why] = found.reasons
    assert "from -215 to -150 ms" in why


def test_tracks_without_a_score_say_why():
    empty = {"confidence": None, "lag_ms": None, "lag_error_ms": None, "windows": 0}
    why = reasons.too_short(frames=3, needed=6)
    found = measurement_of(report(track(**empty, reasons=[dataclasses.asdict(why)])), [np.zeros((0, 31))])
    assert (found.confidence, found.lag_ms, found.shots, found.reasons) == (None, None, (), (why.text,))
    no_face = reasons.no_face(facedet_scale=0.25)
    assert measurement_of(report(reasons=[no_face]), []).reasons == (no_face.text,)


@pytest.mark.parametrize("best, lag, confidence, at_edge", [(0, 584, 7, True), (0, 584, 2, False), (5, 390, 7, True)])
def test_the_edge_of_the_search(best, lag, confidence, at_edge):
    dists = distances(vshift=15, best=best, confidence=confidence)
    assert measurement_of(report(track(lag_ms=lag)), [dists], max_lag=400 if best == 0 else 380).at_edge is at_edge


def test_the_edge_of_the_search_without_distances():
    edge = dataclasses.asdict(reasons.edge_offset(offset=15))
    assert measurement_of(report(track(lag_ms=584.0, reasons=[edge])), None).at_edge
    assert not measurement_of(report(track(lag_ms=584.0)), None).at_edge


# -- correction --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mover(monkeypatch):
    stand_in = Mover()
    monkeypatch.setattr(correct, "move_sound", stand_in)
    return stand_in


@pytest.fixture
def video(tmp_path):
    """Return a function that makes a video."""

    return lambda *args, **changes: make_video(tmp_path / "in.mp4", *args, **changes)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.mp4"


def run(path, output, *, measure=measure, **settings):
    return correct.run(path, output, measure=measure, settings=CorrectionSettings(**settings))


def nothing_written(folder: Path) -> bool:
    return [path.name for path in folder.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("lag", [-800.0, -215.0, -11.0, 11.0, 240.0])
def test_sound_that_is_early_is_delayed(mover, video, output, lag):
    path = video(lag)
    done = run(path, output)
    assert done.shift == Shift(lag) and (done.written, done.rounds, done.notes) == (True, 1, ("a note",))
    assert done.before.lag_ms == lag and done.after.lag_ms == 0
    assert measure(output).lag_ms == 0 and measure(path).lag_ms == lag
    assert json.loads(json.dumps(done.to_dict()))["shift"]["delay_ms"] == lag


def test_a_measurement_at_hand_is_not_repeated(mover, video, output):
    measured = []
    path = video()
    before = measure(path)
    correct.run(
        path,
        output,
        measure=lambda file: measured.append(file) or measure(file),
        settings=CorrectionSettings(),
        before=before,
    )
    assert len(measured) == 1 and measured[0] != path


def test_a_second_round_moves_the_original_by_the_sum(mover, video, output):
    mover.gain = 0.9
    path = video(-200.0)
    done = run(path, output)
    assert [(source, round(shift.delay_ms, 6)) for source, shift, _ in mover.calls] == [(path, -200), (path, -220)]
    assert done.rounds == 2 and done.shift.delay_ms == pytest.approx(-220)
    assert done.after.lag_ms == pytest.approx(-2) == measure(output).lag_ms


@pytest.mark.parametrize("gain", [0.0, 0.5, -1.0], ids=["stays", "half", "worse"])
def test_a_lag_that_stays_is_an_error(mover, video, output, tmp_path, gain):
    mover.gain = gain
    with pytest.raises(SyncNetError, match=r"in\.mp4: a lag of .* is left of -215 ms after 2 rounds") as caught:
        run(video(), output)
    assert caught.value.exit_code == 1 and nothing_written(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"confidence": 2.4}, {"lag_ms": None, "confidence": 2.9}, {"confidence": None}, {"edge": True}]
)
def test_a_result_that_lost_its_confidence_is_refused(mover, video, output, tmp_path, changes):
    mover.changes = changes
    with pytest.raises(RefusedError, match=r"in\.mp4: not corrected: of the result"):
        run(video(), output)
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    "found, words",
    [
        ({"confidence": 2.9}, ["confidence 2.90 is below --min_confidence 3", "--max_lag"]),
        ({"lag_ms": None, "confidence": 7.0, "why": ("they differ",)}, ["they differ", "--delay_audio"]),
        ({"edge": True}, ["--max_lag 600", "--max_lag 1200"]),
        ({"error": 15.1}, ["-215 ms, is only known to +-15 ms", "--delay_audio"]),
    ],
)
def test_refusals(mover, video, output, tmp_path, found, words):
    before = measurement(**found)
    with pytest.raises(RefusedError) as caught:
        run(video(), output, measure=lambda path: before)
    assert caught.value.exit_code == 3 and caught.value.measurement is before
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'in.mp4'}: not corrected: ") and "\n" not in message
    assert [word for word in words if word not in message] == []
    assert mover.calls == [] and nothing_written(tmp_path)


def test_min_confidence(mover, video, output):
    def vague(path):
        return dataclasses.replace(measure(path), confidence=4.0)

    with pytest.raises(RefusedError, match=r"4\.00 is below --min_confidence 4\.1"):
        run(video(), output, measure=vague, min_confidence=4.1)
    assert run(video(), output, measure=vague, min_confidence=4.0).written


def test_a_refusal_survives_another_process():
    error = pickle.loads(pickle.dumps(RefusedError("why", measurement())))  # as the filter's workers send it
    assert (str(error), error.measurement, error.exit_code) == ("why", measurement(), 3)


def test_a_video_without_a_score_is_not_usable(mover, video, output, tmp_path):
    nothing = measurement(None, confidence=None, why=("no face found: raise it",))
    with pytest.raises(MediaError, match=r"in\.mp4: no face found: raise it") as caught:
        run(video(), output, measure=lambda path: nothing)
    assert caught.value.exit_code == 1 and nothing_written(tmp_path)


@pytest.mark.parametrize("lag", [-10.0, 0.0, 9.9])
def test_nothing_to_do(mover, video, output, tmp_path, lag):
    done = run(video(lag), output)
    assert done == Correction(measure(video(lag)), after=None, shift=None, written=False, rounds=0)
    assert mover.calls == [] and nothing_written(tmp_path)


def test_a_plain_copy(mover, video, output):
    path = video(3.0)
    assert run(path, output, always_write=True).written
    assert output.read_bytes() == path.read_bytes() and mover.calls == []


def test_a_copy_in_another_container(mover, video, tmp_path):
    done = run(video(3.0), tmp_path / "out.mkv", always_write=True)
    assert done.written and done.shift is None and done.notes == ("a note",)
    assert [shift for _, shift, _ in mover.calls] == [Shift(0.0)]


def test_correcting_twice_changes_nothing_the_second_time(mover, video, output, tmp_path):
    mover.gain = 0.98
    run(video(-300.0), output)
    again = run(output, tmp_path / "again.mp4")
    assert again.before.lag_ms == pytest.approx(-6) and not again.written and len(mover.calls) == 1


def test_a_drift_is_left_without_the_flag(mover, video, output):
    done = run(video(drift=60.0), output)
    assert done.shift == Shift(-215.0) and done.before.drifts and done.after.drifts
    assert not run(video(4.0, drift=60.0), output).written


def test_a_drift_is_taken_out(mover, video, output, tmp_path):
    done = run(video(4.0, drift=60.0), output, fix_drift=True)
    assert done.shift == Shift(4.0, drift_ms_per_min=60.0, at_s=MIDDLE_S)
    assert (done.after.lag_ms, done.after.drift_ms_per_min, done.rounds) == (0, 0, 1)
    assert not run(output, tmp_path / "again.mp4", fix_drift=True).written


def test_what_remains_of_a_drift_must_be_less(mover, video, output, tmp_path):
    mover.changes = {"drift": 30.0}
    done = run(video(drift=60.0), output, fix_drift=True)
    assert done.rounds == 2 and done.shift.drift_ms_per_min == 90 and done.after.drifts
    mover.changes = {"drift": -60.0}
    output.unlink()
    with pytest.raises(SyncNetError, match="a drift of -60 ms per minute is left"):
        run(video(drift=60.0), output, fix_drift=True)
    assert nothing_written(tmp_path)


def test_shifts_add_up_at_every_time():
    first, more = Shift(-200.0, drift_ms_per_min=30.0, at_s=20.0), Shift(12.0, drift_ms_per_min=-6.0, at_s=50.0)
    both = correct.add(first, more)
    for time in (0.0, 20.0, 90.0):
        parts = [shift.delay_ms + shift.drift_ms_per_min * (time - shift.at_s) / 60 for shift in (first, more, both)]
        assert parts[0] + parts[1] == pytest.approx(parts[2])


def test_a_given_delay_is_not_measured(mover, video, output):
    def never(path):
        raise AssertionError

    done = run(video(), output, measure=never, delay_audio=-120.0, audio_codec=COPY)
    assert done == Correction(None, None, Shift(-120.0), written=True, rounds=1, notes=("a note",))
    assert [call[1:] for call in mover.calls] == [(Shift(-120.0), COPY)] and output.exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"fix_drift": True, "audio_codec": COPY},
        {"fix_drift": True, "delay_audio": 10.0},
        {"max_lag": 0.0},
        {"max_lag": float("nan")},
        {"delay_audio": float("inf")},
    ],
)
def test_settings_that_do_not_work(settings):
    with pytest.raises(UsageError, match="--"):
        CorrectionSettings(**settings)


@pytest.mark.parametrize("kind", [DiskFullError, SyncNetError])
def test_a_result_that_cannot_be_written(mover, video, output, tmp_path, kind):
    mover.error = kind("no")
    with pytest.raises(kind, match="no"):
        run(video(), output)
    assert nothing_written(tmp_path)


def test_a_full_disk_while_copying(mover, video, output, tmp_path, monkeypatch):
    def full(source, target):
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(DiskFullError, match=r"out\.mp4: cannot write it \(No space left on device\)"):
        run(video(3.0), output, always_write=True)
    assert nothing_written(tmp_path)
