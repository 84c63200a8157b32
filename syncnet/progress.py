"""How far long work is. Stages take a function that wraps what they go through, with ``total`` and ``desc``."""

import sys


def silent(items, *, total=None, desc=None):
    """Shows nothing."""
    return items


def bar(*, quiet):
    """What shows a bar on a terminal, and nothing elsewhere."""
    from tqdm import tqdm

    def wrap(items=None, *, total=None, desc=None):
        hidden = True if quiet or sys.stderr is None else None  # None: where there is no terminal
        return tqdm(items, total=total, desc=desc, disable=hidden, leave=False, file=sys.stderr)

    return wrap
