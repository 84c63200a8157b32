"""Versions of the software that scores depend on."""

from functools import lru_cache
from importlib import metadata

from syncnet import __version__

LIBRARIES = (
    "torch",
    "scenedetect",
    "python_speech_features",
    "numpy",
    "scipy",
)  # without OpenCV, whose package has several names


@lru_cache
def versions() -> dict[str, str]:
    """Return the versions of the software that scores depend on, for the recipe."""
    import cv2

    from syncnet.media.ffmpeg import find_ffmpeg
    from syncnet.media.fingerprint import behaviour

    # read from package metadata, because the filter's main process must not load torch
    installed = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "syncnet": __version__,
        "ffmpeg": behaviour().version,
        "ffmpeg_fingerprint": behaviour().fingerprint,
        "ffmpeg_source": find_ffmpeg().source,
        "opencv": cv2.__version__,
        **installed,
    }
