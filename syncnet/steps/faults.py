"""What is damaged in a video, in both modes: for ``reasons.damaged``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from syncnet import reasons
from syncnet.media.integrity import PICTURE, SOUND, missing_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from syncnet.media.grid import Grid
    from syncnet.media.sound import Sound
    from syncnet.reasons import Reason


def of_pass(grid: Grid, sound: Sound, *, other: Path | None) -> list[Reason]:
    """Return the reason of a damaged video, all of whose pictures were decoded; empty if it is whole.

    Args:
        grid: its pictures.
        sound: its sound, as far as it was needed.
        other: the file of the sound; None if that is the video.
    """
    inventories = [grid.inventory, sound.inventory] if other and sound.end is not None else [grid.inventory]
    found = [reasons.cut_off(**asdict(missing)) for each in inventories if (missing := each.missing())]
    name = f"sound in {other}" if other else SOUND
    for what, inventory in ((PICTURE, grid.inventory), (name, sound.inventory)):
        if inventory.complaint:
            found.append(reasons.undecodable(name=what, lost=inventory.lost or None, detail=inventory.complaint))
    return [reasons.damaged(found)] if found else []


def of_conversion(videofile: Path, *, other: Path | None, messages: Sequence[str]) -> list[Reason]:
    """Return the reason of a damaged video that ffmpeg converted; empty if it is whole.

    Args:
        videofile: the video.
        other: the file of the sound; None if that is the video.
        messages: ``Ffmpeg.fault`` of the conversions; empty ones are left out.
    """
    files = [videofile, other] if other else [videofile]
    found = [reasons.cut_off(**asdict(missing)) for file in files if (missing := missing_of(file))]
    found += [reasons.undecodable(name="video", detail=message) for message in messages if message]
    return [reasons.damaged(found)] if found else []
