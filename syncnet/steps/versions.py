"""Versions of the software that scores depend on."""

from functools import lru_cache
from importlib import metadata

from syncnet import __version__
from syncnet.defaults import DIRECT, PUBLISHED

LIBRARIES = (
    "torch",
    "scenedetect",
    "python_speech_features",
    "numpy",
    "scipy",
)  # without OpenCV, whose package has several names


DECODER = "av"  # brings the libraries of ffmpeg that direct mode decodes with


@lru_cache
def versions(mode: str = PUBLISHED) -> dict[str, str]:
    """Return the versions of the software that scores depend on, for the recipe.

    Args:
        mode: one of ``defaults.MODES``. Published mode depends on the program ffmpeg, direct mode on ``DECODER``.
    """
    import cv2

    # read from package metadata, because the filter's main process must not load torch
    found = {name: metadata.version(name) for name in LIBRARIES}
    found = {"syncnet": __version__, "opencv": cv2.__version__, **found}
    if mode == DIRECT:
        return {**found, DECODER: metadata.version(DECODER)}
    from syncnet.media.ffmpeg import find_ffmpeg
    from syncnet.media.fingerprint import behaviour

    return {
        **found,
        "ffmpeg": behaviour().version,
        "ffmpeg_fingerprint": behaviour().fingerprint,
        "ffmpeg_source": find_ffmpeg().source,
    }
