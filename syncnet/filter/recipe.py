"""Recipes: everything that a video's score depends on. Scores of different recipes are not comparable.

This module does not import torch, because only the worker processes need it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from syncnet.defaults import DETECT_EVERY, DIRECT, FLOAT32, MIN_SPEAKING, PUBLISHED, SPEAKER_THRESHOLD
from syncnet.filter.inputs import absolute
from syncnet.media.ffmpeg import PUBLISHED_FINGERPRINT
from syncnet.models import weights
from syncnet.results.scores_json import weights_record
from syncnet.steps.versions import DECODER, versions

Recipe = dict[str, Any]  # record with the keys of ``make_recipe``

DIGEST_LENGTH = 16
# These change a score by about 1e-5 or not at all: they are recorded, but a change of them is no reason to score all
# videos again. What ``min_speaking`` changes, who speaks when, is recorded with it in every line of the journal.
UNIMPORTANT = ("device", "batch_size", "speaker_threshold", "min_speaking")
WEIGHTS = ("initial_model", "s3fd_weights")
# Values of the keys that recipes of earlier scores lack. They stay out of the digest, so that those scores stay valid.
EARLIER = {"mode": PUBLISHED, "detect_every": 1, "precision": FLOAT32, "face_crops": False, "audio_dir": None}
# Without face detection these do not affect a score: the recipe holds None.
OF_FACES = (
    *("s3fd_weights", "facedet_scale", "crop_scale", "min_track", "num_failed_det", "min_face_size"),
    *("scene_threshold", "detect_every"),
)
# Software that affects a score, besides ffmpeg in published mode and PyAV in direct mode.
VERSIONS = ("opencv", "scenedetect", "python_speech_features")
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
    mode: str = PUBLISHED
    detect_every: int = DETECT_EVERY
    precision: str = FLOAT32
    face_crops: bool = False
    audio_dir: str = ""
    min_speaking: float = MIN_SPEAKING

    def found(self) -> Parameters:
        """Return the parameters with absolute paths of all files that are used, valid in every worker.

        Raises:
            WeightsError: A weights file is missing or damaged.
        """
        syncnet, s3fd = self.weights()
        return replace(
            self,
            initial_model=absolute(syncnet.path),
            s3fd_weights=absolute(s3fd.path) if s3fd else self.s3fd_weights,
            audio_dir=absolute(self.audio_dir) if self.audio_dir else "",
        )

    def weights(self) -> tuple[weights.Weights, weights.Weights | None]:
        """Return the weights of SyncNet and of the face detector S3FD, which face crops do not need."""
        return (
            weights.choose(weights.SYNCNET, self.initial_model),
            None if self.face_crops else weights.choose(weights.S3FD, self.s3fd_weights),
        )


def make_recipe(parameters: Parameters) -> Recipe:
    """Return the recipe of scores made with these parameters, with the keys of scores.json.

    What does not affect the scores is None.
    """
    syncnet, s3fd = parameters.weights()
    made = {
        **asdict(parameters),
        "initial_model": weights_record(syncnet),
        "s3fd_weights": weights_record(s3fd),
        "audio_dir": parameters.audio_dir or None,
        "speaker_threshold": SPEAKER_THRESHOLD,
        "versions": versions(parameters.mode),
    }
    if parameters.mode == PUBLISHED:
        made["detect_every"] = EARLIER["detect_every"]
    return {**made, **dict.fromkeys(OF_FACES)} if parameters.face_crops else made


def digest(recipe: Recipe) -> str:
    """Return a hexadecimal digest of the parts of a recipe that affect a score."""
    found = recipe["versions"]
    used = {name: found[name] for name in VERSIONS}
    if recipe.get("mode") == DIRECT:
        used[DECODER] = found[DECODER]
    else:
        used["ffmpeg"] = fingerprint(found)
    return digest_with(recipe, used)


def earlier_digest(recipe: Recipe) -> str:
    """Return the digest that version 1.0.0 computed of a recipe: it contains the version of the suite."""
    found = recipe["versions"]
    return digest_with(recipe, {**{name: found[name] for name in (*VERSIONS, "syncnet")}, "ffmpeg": fingerprint(found)})


def digest_with(recipe: Recipe, used: dict[str, str]) -> str:
    """Return the digest of a recipe.

    Args:
        recipe: The recipe.
        used: Versions of the software that affects its scores.
    """
    left_out = {"versions", *UNIMPORTANT, *(key for key, value in EARLIER.items() if recipe.get(key, value) == value)}
    matters = {key: value for key, value in recipe.items() if key not in left_out}
    matters.update({key: checksum(recipe[key]) for key in WEIGHTS}, versions=used)
    text = json.dumps(matters, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def checksum(record: dict[str, Any] | None) -> str | None:
    """Return the SHA-256 of a recipe's weights; None without weights."""
    return record["sha256"] if record else None


def fingerprint(found: dict[str, str]) -> str:
    """Return the fingerprint of the ffmpeg in the versions of a recipe."""
    return found.get("ffmpeg_fingerprint") or assumed_fingerprint(found["ffmpeg"])


def assumed_fingerprint(version: str) -> str:
    """Return the fingerprint that belongs to an ffmpeg version, or the version itself if it is not known."""
    return PUBLISHED_FINGERPRINT if PUBLISHED_FFMPEG.match(version) else version


def digests_of(recipe: Recipe, *, stored: str) -> dict[str, str]:
    """Return the current digest of a recipe, by all digests that the journal's lines may name it by.

    Args:
        recipe: The recipe.
        stored: Digest that it is stored under.

    Returns:
        An empty dict if the recipe is damaged.
    """
    try:
        names = [stored, *([earlier_digest(recipe)] if mode_of(recipe) == PUBLISHED else [])]
        return dict.fromkeys(names, digest(recipe))
    except (KeyError, TypeError, AttributeError):
        return {}


def given_values(parameters: Parameters, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of some parameters, those of the user's flags, in the form that ``agrees`` compares.

    Args:
        parameters: The parameters.
        names: Names of the parameters; those that do not matter to a score are ignored.

    Raises:
        WeightsError: A weights file among them cannot be read.
    """
    specs = {"initial_model": weights.SYNCNET, "s3fd_weights": weights.S3FD}
    values = {name: value for name, value in asdict(parameters).items() if name in names and name not in UNIMPORTANT}
    values.update({name: weights.choose(specs[name], values[name]).sha256 for name in WEIGHTS if name in values})
    if values.get("audio_dir"):
        values["audio_dir"] = absolute(values["audio_dir"])
    return values


def agrees(recipe: Recipe, given: dict[str, Any]) -> bool:
    """Return True if a recipe has all of the given values."""
    own = {**EARLIER, **recipe, **{key: checksum(recipe[key]) for key in WEIGHTS}}
    return all(own.get(name) == value for name, value in given.items())


def mode_of(recipe: Recipe) -> str:
    """Return the mode of a recipe."""
    return recipe.get("mode", EARLIER["mode"])


def gives_lse(recipe: Recipe | None) -> bool:
    """Return True if the scores of a recipe are LSE-C and LSE-D; an unknown recipe's are not."""
    return recipe is not None and mode_of(recipe) == PUBLISHED and recipe["initial_model"]["published"]


def footnote(recipe: Recipe) -> str:
    """Return a recipe as one line, suitable for a footnote of a paper."""
    flags = ("min_track", "min_face_size", "facedet_scale", "crop_scale", "num_failed_det", "scene_threshold", "vshift")
    used = [recipe[key] for key in WEIGHTS if recipe[key]]
    parts = [f"{w['name']} ({w['sha256'][: DIGEST_LENGTH // 2]})" for w in used]
    parts += [f"{key} {recipe[key]}" for key, value in EARLIER.items() if recipe.get(key) not in (None, value)]
    parts += [f"{name} {recipe[name]:g}" for name in flags if recipe[name] is not None]
    software = DECODER if mode_of(recipe) == DIRECT else "ffmpeg"
    parts += [f"{name} {recipe['versions'][name]}" for name in (software, "opencv", "syncnet")]
    return ", ".join(parts)


def flags_of(recipe: Recipe) -> dict[str, Any]:
    """Return the values of the flags that give a recipe, by name; without those that nothing depends on.

    Of weights only the name is known. Those that are used without a flag are left out.
    """
    values = {each.name: recipe.get(each.name) for each in fields(Parameters)}
    for name, spec in (("initial_model", weights.SYNCNET), ("s3fd_weights", weights.S3FD)):
        used = recipe[name]["name"] if recipe.get(name) else None
        values[name] = None if used in [Path(path).name for path in (spec.published, spec.starter)] else used
    return {name: value for name, value in values.items() if value is not None}
