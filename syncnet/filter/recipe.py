"""What a video's score depends on. Scores made by different recipes cannot be compared, so the filter tells them apart.

Nothing here loads torch: the filter's own process hands all scoring to workers.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace

from syncnet.filter.inputs import absolute
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT
from syncnet.models import weights
from syncnet.results.scores_json import weights_record
from syncnet.steps.versions import versions

DIGEST_LENGTH = 16
# These move a score by some 1e-5, so they are on record and no ground to score a million videos again.
UNIMPORTANT = ("device", "batch_size")
UNIMPORTANT_VERSIONS = ("torch", "numpy", "scipy", "ffmpeg_source")
# Versions of ffmpeg whose fingerprint is the published one: recipes of earlier scores name nothing but the version.
PUBLISHED_FFMPEG = re.compile(r"[nN]?(4\.[2-9]|[56]\.)")


@dataclass(frozen=True)
class Parameters:
    """What the scripts' flags of the same names say."""

    initial_model: str
    s3fd_weights: str
    facedet_scale: float
    crop_scale: float
    min_track: int
    num_failed_det: int
    min_face_size: int
    scene_threshold: float
    vshift: int
    batch_size: int
    device: str

    def found(self):
        """The same with the weights that the flags lead to, by absolute paths: for workers anywhere.

        Raises:
            WeightsError: there are none.
        """
        syncnet, s3fd = self.weights()
        return replace(self, initial_model=absolute(syncnet.path), s3fd_weights=absolute(s3fd.path))

    def weights(self):
        """The ``Weights`` of both networks."""
        return (
            weights.choose(weights.SYNCNET, self.initial_model),
            weights.choose(weights.S3FD, self.s3fd_weights),
        )


def make_recipe(parameters):
    """Everything that scores made with these ``Parameters`` depend on, as scores.json names it."""
    syncnet, s3fd = parameters.weights()
    return {
        **asdict(parameters),
        "initial_model": weights_record(syncnet),
        "s3fd_weights": weights_record(s3fd),
        "versions": versions(),
    }


def digest(recipe):
    """What everything in a recipe that matters to a score comes down to, in hexadecimal."""
    matters = {key: value for key, value in recipe.items() if key not in UNIMPORTANT}
    for key in ("initial_model", "s3fd_weights"):
        matters[key] = recipe[key]["sha256"]
    versions = {k: v for k, v in recipe["versions"].items() if k not in UNIMPORTANT_VERSIONS}
    versions["ffmpeg"] = versions.pop("ffmpeg_fingerprint", None) or assumed_fingerprint(versions["ffmpeg"])
    matters["versions"] = versions
    text = json.dumps(matters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def assumed_fingerprint(version):
    """The fingerprint of an ffmpeg of which only the version is known; the version itself if that says nothing."""
    return PUBLISHED_FINGERPRINT if PUBLISHED_FFMPEG.match(version) else version


def current_digest(recipe, *, old):
    """The digest of a recipe that was stored under an ``old`` one; the old one if the recipe is damaged."""
    try:
        return digest(recipe)
    except (KeyError, TypeError, AttributeError):
        return old


def footnote(recipe):
    """A recipe as a paper's footnote."""
    syncnet, s3fd = recipe["initial_model"], recipe["s3fd_weights"]
    flags = ("min_track", "min_face_size", "facedet_scale", "crop_scale", "num_failed_det", "scene_threshold", "vshift")
    parts = [f"{w['name']} ({w['sha256'][: DIGEST_LENGTH // 2]})" for w in (syncnet, s3fd)]
    parts += [f"{name} {recipe[name]:g}" for name in flags]
    parts += [f"{name} {recipe['versions'][name]}" for name in ("ffmpeg", "opencv", "syncnet")]
    return ", ".join(parts)
