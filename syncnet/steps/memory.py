"""Direct mode on frames and sound in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from syncnet.constants import SAMPLES_PER_FRAME
from syncnet.errors import UsageError
from syncnet.media.grid import nearest_indices
from syncnet.media.pictures import Pixels
from syncnet.media.sound import SoundInMemory, resample
from syncnet.steps.direct import (
    PHASE_SAMPLES,
    Clock,
    DirectResult,
    DirectSettings,
    Net,
    conclude,
    gather,
    make_recipe,
    open_pass,
)

if TYPE_CHECKING:
    from syncnet.faces.detect import Detector

LOUDEST = 100  # louder floats are 16-bit samples that were converted, not scaled
LARGEST_BOX = 10  # times the larger side of the frames
BOX_VALUES = 4
COLOURS = 3
MOST_CHANNELS = 64  # more are samples x channels


@dataclass(frozen=True)
class Given:
    """Checked frames and sound.

    Attributes:
        frames: N x H x W x 3 array, uint8, RGB.
        samples: sound at 16 kHz, mono, int16.
        frame_rate: frames per second.
        boxes: N x 4 array, x1 y1 x2 y2 in pixels; None if unknown.
        channels: the sound of every channel, made when it is read; none if there is only one.
    """

    frames: np.ndarray
    samples: np.ndarray
    frame_rate: float
    boxes: np.ndarray | None
    channels: Iterable[SoundInMemory] = ()


def check(frames: Any, audio: Any, *, frame_rate: float, sample_rate: int, boxes: Any = None) -> Given:
    """Check frames and sound, and convert them; arguments as in ``api.score_frames``.

    Raises:
        UsageError: they do not have the shapes and types that are asked for.
    """
    images, sound = as_array(frames), as_array(audio)
    if images.ndim != 4 or images.shape[-1] != COLOURS or images.dtype != np.uint8:
        raise UsageError(f"frames: {kind(images)}: must be uint8 of N x height x width x 3, RGB")
    if not images.size:
        raise UsageError(f"frames: {kind(images)}: there is none")
    floating = np.issubdtype(sound.dtype, np.floating)
    channels = 1 if sound.ndim == 1 else len(sound) if sound.ndim == 2 else 0
    if not 1 <= channels <= MOST_CHANNELS or not (floating or sound.dtype == np.int16):
        raise UsageError(f"audio: {kind(sound)}: must be samples or channels x samples, int16 or float from -1 to 1")
    if floating and not np.isfinite(sound).all():
        raise UsageError("audio: has NaN or infinite samples")
    if floating and sound.size and abs(sound).max() > LOUDEST:
        raise UsageError(f"audio: has samples of {abs(sound).max():.0f}: floats must be from -1 to 1: divide by 32768?")
    if not 0 < frame_rate < math.inf:
        raise UsageError(f"frame_rate {frame_rate}: must be a number above 0")
    if not 1 <= sample_rate < math.inf or sample_rate != int(sample_rate):
        raise UsageError(f"sample_rate {sample_rate}: must be a whole number above 0")
    corners = None
    if boxes is not None:
        corners = as_array(boxes).astype(np.float64)
        if corners.shape != (len(images), BOX_VALUES):
            raise UsageError(f"boxes: {kind(corners)}: must be {len(images)} x 4, one x, y, width, height a frame")
        if not (np.isfinite(corners).all() and (corners[:, 2:] > 0).all()):
            raise UsageError("boxes: widths and heights must be above 0")
        if corners[:, 2:].max() > LARGEST_BOX * max(images.shape[1:3]):
            raise UsageError("boxes: much larger than the frames: give x, y, width and height in pixels")
        corners = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
    rate = int(sample_rate)
    alone = (SoundInMemory(resample(one, sample_rate=rate), zero=PHASE_SAMPLES) for one in sound if channels > 1)
    return Given(images, resample(sound, sample_rate=rate), float(frame_rate), corners, alone)


def as_array(value: Any) -> np.ndarray:
    """Return an array or a tensor on any device as an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def kind(array: np.ndarray) -> str:
    """Return type and shape of an array for a message."""
    return f"{array.dtype} of {' x '.join(map(str, array.shape)) or 'no dimension'}"


def run(given: Given, *, detector: Detector | None, net: Net, settings: DirectSettings) -> DirectResult:
    """Score frames and sound in memory.

    Args:
        given: from ``check``.
        detector: ``Detector``; None with boxes or face crops.
        net, settings: as in ``direct.run``.
    """
    chosen = list(nearest_indices(len(given.frames), frame_rate=given.frame_rate))
    clock = Clock(late=[late for _, late in chosen])
    boxes = None if given.boxes is None else given.boxes[[index for index, _ in chosen]]

    def pixels(index: int) -> Pixels:
        return Pixels(given.frames[index][..., ::-1])

    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(
            open_pass(
                SoundInMemory(given.samples, zero=PHASE_SAMPLES),
                detector=detector,
                net=net,
                settings=settings,
                boxes=boxes,
            )
        )
        for index, _ in chosen:
            stream.add(stream.prepare(pixels(index)))
        tracks = stream.finish()
        windows = stream.lips.audio.windows(len(chosen) + settings.vshift)
        levels = stream.lips.audio.levels(len(chosen))
    return conclude(
        tracks,
        stream.seen,
        videofile=None,
        clock=clock,
        audio_frames=min(len(chosen), len(given.samples) // SAMPLES_PER_FRAME),
        windows=windows,
        levels=levels,
        channels=given.channels,
        net=net,
        settings=settings,
        recipes=make_recipe(settings, detector=detector, net=net),
        evidence=gather(
            stream.seen,
            detector,
            pictures=lambda: (pixels(index) for index, _ in chosen),
            some=lambda frames: [pixels(chosen[frame][0]) for frame in frames],
        ),
    )
