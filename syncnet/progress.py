"""Progress bars. Stages take a function that wraps an iterable, with ``total`` and ``desc`` as in tqdm."""

import sys


def silent(items, *, total=None, desc=None):
    """Return ``items`` unchanged, without showing progress."""
    return items


def bar(*, quiet):
    """Return a function that shows a progress bar if stderr is a terminal."""
    from tqdm import tqdm

    def wrap(items=None, *, total=None, desc=None):
        hidden = True if quiet or sys.stderr is None else None  # None: hidden if stderr is not a terminal
        return tqdm(items, total=total, desc=desc, disable=hidden, leave=False, file=sys.stderr)

    return wrap
