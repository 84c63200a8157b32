"""Interfaces of the objects that result files are made of; their classes are in packages that import this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol

import numpy as np

from syncnet.reasons import Reason


class DataclassInstance(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class Weights(Protocol):
    """``models.weights.Weights``."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def published(self) -> bool: ...


class Face(Protocol):
    """``faces.tracks.Face``."""

    @property
    def frame(self) -> int: ...

    @property
    def bbox(self) -> tuple[float, ...]: ...

    @property
    def conf(self) -> float: ...


class Track(Protocol):
    """``faces.tracks.Track``."""

    @property
    def frame(self) -> np.ndarray: ...

    @property
    def bbox(self) -> np.ndarray: ...

    @property
    def size(self) -> float: ...


class Path2D(Protocol):
    """``faces.tracks.Path2D``."""

    @property
    def s(self) -> np.ndarray: ...

    @property
    def x(self) -> np.ndarray: ...

    @property
    def y(self) -> np.ndarray: ...


class PipelineResult(Protocol):
    """``steps.pipeline.PipelineResult``."""

    @property
    def recipe(self) -> dict[str, Any]: ...

    @property
    def faces(self) -> DataclassInstance | None: ...

    @property
    def scenes(self) -> Sequence[DataclassInstance]: ...

    @property
    def tracks(self) -> Sequence[Track]: ...

    @property
    def reasons(self) -> Sequence[Reason]: ...

    @property
    def pixel_aspect(self) -> float: ...


class SyncScore(Protocol):
    """``sync.scoring.SyncScore``."""

    @property
    def dists(self) -> np.ndarray: ...

    @property
    def offset(self) -> int: ...

    @property
    def min_dist(self) -> float: ...

    @property
    def confidence(self) -> float: ...

    @property
    def video_frames(self) -> int: ...

    @property
    def audio_frames(self) -> int: ...


class Lag(Protocol):
    """``sync.lag.Lag``."""

    @property
    def ms(self) -> float: ...

    @property
    def error_ms(self) -> float: ...

    @property
    def drift_ms_per_min(self) -> float | None: ...

    @property
    def drift_error_ms_per_min(self) -> float | None: ...


class Span(Protocol):
    """``sync.speakers.Span``."""

    @property
    def confidence(self) -> float: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def track(self) -> int: ...
