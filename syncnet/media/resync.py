"""Move the sound of a media file against its picture, which is copied bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COPY = "copy"  # of --audio_codec: move time stamps alone


@dataclass(frozen=True)
class Shift:
    """By how much sound is moved: what a player plays at time t, it plays ``delay_ms_at(t)`` later.

    Attributes:
        delay_ms: milliseconds, negative to move the sound to an earlier time; with a drift, those at ``at_s``.
        drift_ms_per_min: milliseconds by which the delay grows in a minute.
        at_s: time in a player, in seconds.
    """

    delay_ms: float
    drift_ms_per_min: float = 0.0
    at_s: float = 0.0


@dataclass(frozen=True)
class Moved:
    """What ``move_sound`` wrote.

    Attributes:
        codecs: per audio stream the name of the codec that it was written with.
        notes: one line for everything that could not be kept as it was.
    """

    codecs: tuple[str, ...]
    notes: tuple[str, ...]


def move_sound(source: Path, output: Path, *, shift: Shift, audio_codec: str | None = None) -> Moved:
    """Write a copy of a media file whose sound is moved.

    Args:
        source: the file; all its audio streams move together.
        output: the new file; its suffix gives the container.
        shift: by how much.
        audio_codec: ffmpeg's name of the codec of all audio streams; None for those of the source, ``COPY`` to move
            time stamps alone.

    Raises:
        MediaError: the source cannot be read, or has no audio.
        UsageError: the container is not one of those that can be written, or ``COPY`` with a drift.
        DiskFullError: the disk is full.
        SyncNetError: the output cannot be written for another reason.
    """
    raise NotImplementedError
