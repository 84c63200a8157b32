"""Recipes: everything that a video's score depends on. Scores of different recipes are not comparable.

This module does not import torch, because only the worker processes need it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from syncnet.defaults import SPEAKER_THRESHOLD
from syncnet.filter.inputs import absolute
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT
from syncnet.models import weights
from syncnet.results.scores_json import weights_record
from syncnet.steps.versions import versions

Recipe = dict[str, Any]  # record with the keys of ``make_recipe``

DIGEST_LENGTH = 16
# These change a score by about 1e-5 or not at all: they are recorded, but a change of them is no reason to score all
# videos again.
UNIMPORTANT = ("device", "batch_size", "speaker_threshold")
UNIMPORTANT_VERSIONS = ("torch", "numpy", "scipy", "ffmpeg_source")
# Versions of ffmpeg with the published fingerprint: recipes of earlier scores contain only the version.
PUBLISHED_FFMPEG = re.compile(r"[nN]?(4\.[2-9]|[56]\.)")


@dataclass(frozen=True)
class Parameters:
    """Values of the scripts' flags of the same names."""

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

    def found(self) -> Parameters:
        """Return the parameters with absolute paths of the weights files that are used, valid in every worker.

        Raises:
            WeightsError: A weights file is missing or damaged.
        """
        syncnet, s3fd = self.weights()
        return replace(self, initial_model=absolute(syncnet.path), s3fd_weights=absolute(s3fd.path))

    def weights(self) -> tuple[weights.Weights, weights.Weights]:
        """Return the weights of SyncNet and of the face detector S3FD."""
        return (
            weights.choose(weights.SYNCNET, self.initial_model),
            weights.choose(weights.S3FD, self.s3fd_weights),
        )


def make_recipe(parameters: Parameters) -> Recipe:
    """Return the recipe of scores made with these parameters, with the keys of scores.json."""
    syncnet, s3fd = parameters.weights()
    return {
        **asdict(parameters),
        "initial_model": weights_record(syncnet),
        "s3fd_weights": weights_record(s3fd),
        "speaker_threshold": SPEAKER_THRESHOLD,
        "versions": versions(),
    }


def digest(recipe: Recipe) -> str:
    """Return a hexadecimal digest of the parts of a recipe that affect a score."""
    matters = {key: value for key, value in recipe.items() if key not in UNIMPORTANT}
    for key in ("initial_model", "s3fd_weights"):
        matters[key] = recipe[key]["sha256"]
    versions = {k: v for k, v in recipe["versions"].items() if k not in UNIMPORTANT_VERSIONS}
    versions["ffmpeg"] = versions.pop("ffmpeg_fingerprint", None) or assumed_fingerprint(versions["ffmpeg"])
    matters["versions"] = versions
    text = json.dumps(matters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def assumed_fingerprint(version: str) -> str:
    """Return the fingerprint that belongs to an ffmpeg version, or the version itself if it is not known."""
    return PUBLISHED_FINGERPRINT if PUBLISHED_FFMPEG.match(version) else version


def current_digest(recipe: Recipe, *, old: str) -> str:
    """Return the current digest of a recipe that is stored under the digest ``old``; ``old`` if it is damaged."""
    try:
        return digest(recipe)
    except (KeyError, TypeError, AttributeError):
        return old


def footnote(recipe: Recipe) -> str:
    """Return a recipe as one line, suitable for a footnote of a paper."""
    syncnet, s3fd = recipe["initial_model"], recipe["s3fd_weights"]
    flags = ("min_track", "min_face_size", "facedet_scale", "crop_scale", "num_failed_det", "scene_threshold", "vshift")
    parts = [f"{w['name']} ({w['sha256'][: DIGEST_LENGTH // 2]})" for w in (syncnet, s3fd)]
    parts += [f"{name} {recipe[name]:g}" for name in flags]
    parts += [f"{name} {recipe['versions'][name]}" for name in ("ffmpeg", "opencv", "syncnet")]
    return ", ".join(parts)
