"""Audio-visual synchronisation of talking faces.

    from syncnet import score_video

    print(score_video("in.mp4").lag_ms)

Importing the package does not load torch; the first score does.
"""

from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"
__all__ = ["Score", "TrackScore", "correct_offset", "score_frames", "score_video"]

if TYPE_CHECKING:
    from syncnet.api import Score, TrackScore, correct_offset, score_frames, score_video


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: submodules import this package, too."""
    if name in __all__:
        from syncnet import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
