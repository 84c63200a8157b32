"""Stand-ins for taking out lags: videos that say in JSON what is measured of them, and a mover that works on them."""

from __future__ import annotations

import dataclasses
import json

from syncnet.media.resync import Moved
from syncnet.steps.correct import Measurement, ShotLag

MIDDLE_S, LENGTH_S = 30.0, 60.0


def make_video(path, lag_ms=-215.0, **changes):
    """Write a video of which this is measured, and return its path."""
    path.write_text(json.dumps({"lag_ms": lag_ms, "drift": None, **changes}))
    return path


def measure(path, **settings):
    """Return what is measured of a video; stand-in of ``correct.measure``."""
    return measurement(**json.loads(path.read_text()))


def measurement(lag_ms=-215.0, *, confidence=7.2, error=4.0, drift=None, drift_error=5.0, why=(), edge=False):
    """Return a ``Measurement`` of a video with one shot."""
    shot = ShotLag(0.0, LENGTH_S, confidence or 0.0, lag_ms or 0.0, error)
    drifts = (drift, drift_error) if drift is not None else (None, None)
    return Measurement(lag_ms, error, confidence, *drifts, at_s=MIDDLE_S, shots=(shot,), reasons=why, at_edge=edge)


@dataclasses.dataclass
class Mover:
    """Stand-in of ``move_sound``.

    Attributes:
        gain: part of a shift by which the sound is really moved.
        error: what is raised instead, with half of a file written.
        changes: what is measured of the result, whatever was moved.
        calls: source, shift and codec of every call.
    """

    gain: float = 1.0
    error: Exception | None = None
    changes: dict = dataclasses.field(default_factory=dict)
    calls: list = dataclasses.field(default_factory=list)

    def __call__(self, source, output, *, shift, audio_codec=None):
        self.calls.append((source, shift, audio_codec))
        output.write_text("half")
        if self.error:
            raise self.error
        video = json.loads(source.read_text())
        drift = video["drift"] and video["drift"] - shift.drift_ms_per_min
        delay = shift.delay_ms + shift.drift_ms_per_min * (MIDDLE_S - shift.at_s) / 60
        video = {**video, "lag_ms": video["lag_ms"] - self.gain * delay, "drift": drift, **self.changes}
        output.write_text(json.dumps(video))
        return Moved(("aac",), ("a note",))
