"""Versions of everything that scores depend on."""

from functools import lru_cache
from importlib import metadata

from syncnet import __version__

LIBRARIES = ("torch", "scenedetect", "python_speech_features", "numpy", "scipy")  # OpenCV's distribution has many names


@lru_cache
def versions():
    """Versions of everything that changes a score."""
    import cv2

    from syncnet.media.ffmpeg import find_ffmpeg
    from syncnet.media.fingerprint import behaviour

    # of what is installed: the filter's own process never loads torch
    installed = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "syncnet": __version__,
        "ffmpeg": behaviour().version,
        "ffmpeg_fingerprint": behaviour().fingerprint,
        "ffmpeg_source": find_ffmpeg().source,
        "opencv": cv2.__version__,
        **installed,
    }
