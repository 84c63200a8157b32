"""Progress bars. Stages take a function that wraps an iterable, with ``total`` and ``desc`` as in tqdm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable and shows how much of it has been processed."""

    def __call__(self, items: Iterable[T], *, total: int | None = None, desc: str | None = None) -> Iterable[T]:
        """Return an iterable over the same items."""


def silent(items: Iterable[T], *, total: int | None = None, desc: str | None = None) -> Iterable[T]:
    """Return ``items`` unchanged, without showing progress."""
    return items


def bar(*, quiet: bool) -> Callable[..., tqdm]:
    """Return a function that shows a progress bar if stderr is a terminal."""
    from tqdm import tqdm

    def wrap(items: Iterable | None = None, *, total: int | None = None, desc: str | None = None) -> tqdm:
        hidden = True if quiet or sys.stderr is None else None  # None: hidden if stderr is not a terminal
        return tqdm(items, total=total, desc=desc, disable=hidden, leave=False, file=sys.stderr)

    return wrap
