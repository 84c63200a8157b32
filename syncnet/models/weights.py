"""Weights files: selection, verification, and loading into a network.

The weights are those that a flag names, else the published file if it exists in its default place and is intact, else
the starter weights that come with the suite. Selecting weights does not load torch, so that a program whose worker
processes run the networks starts quickly.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from syncnet.errors import WeightsError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor, nn

    from detectors.s3fd.nets import S3FDNet
    from SyncNetModel import S

Net = TypeVar("Net", bound="nn.Module")

logger = logging.getLogger("syncnet")

ROOT = Path(__file__).resolve().parents[2]
HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class WeightsSpec:
    """Paths, checksum and layout of a network's weights.

    Attributes:
        network: name of the network in messages.
        flag: the flag that names other weights.
        published: default path of the published file, relative to ``home()``.
        size: size of the published file, in bytes.
        sha256: SHA-256 of the published file, in hexadecimal.
        starter: path of the starter weights, relative to the suite's folder.
        first_layer: name of the parameter whose output channels determine the network's width.
        first_channels: output channels of that parameter at width 1.
    """

    network: str
    flag: str
    published: str
    size: int
    sha256: str
    starter: str
    first_layer: str
    first_channels: int


SYNCNET = WeightsSpec(
    network="SyncNet",
    flag="--initial_model",
    published="data/syncnet_v2.model",
    size=54573114,
    sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
    starter="data/starter/syncnet.pt",
    first_layer="netcnnlip.0.weight",
    first_channels=96,
)
S3FD = WeightsSpec(
    network="S3FD",
    flag="--s3fd_weights",
    published="detectors/s3fd/weights/sfd_face.pth",
    size=89844381,
    sha256="d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
    starter="data/starter/s3fd.pt",
    first_layer="vgg.0.weight",
    first_channels=64,
)
EMBEDDING_LAYER = "netfcaud.3.weight"
PACKAGED_STARTER = "syncnet/starter"  # where the wheel has data/starter
STARTER = "data/starter"
KNOWN_ZEROS = "lag_zero.json"  # beside the starter
ZERO_SUFFIX = ".lag_zero.json"  # after the name of other weights


def installed() -> bool:
    """Return True if the suite is installed from a wheel, not used from a checkout."""
    return (ROOT / PACKAGED_STARTER).is_dir()


def home() -> Path:
    """Return the folder that ``WeightsSpec.published`` is relative to.

    This is the checkout itself. An installed suite has SYNCNET_HOME or else the user's data folder.
    """
    if not installed():
        return ROOT
    chosen = os.environ.get("SYNCNET_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("syncnet", appauthor=False))


HOW_TO_GET = "run `download_models`" if installed() else "run `sh download_model.sh`"


class Default(str):
    """Default value of a flag that names weights, to distinguish it from the same path given by the user."""

    __slots__ = ()


@dataclass(frozen=True)
class Weights:
    """A weights file in use.

    Attributes:
        name: file name.
        path: path of the file.
        sha256: SHA-256 of the file, in hexadecimal.
        published: True if the file is the published one.
    """

    name: str
    path: str
    sha256: str
    published: bool


@lru_cache
def sha256_of(path: str, size: int, mtime: int) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Size and mtime are part of the cache key only."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def identify(path: str | os.PathLike[str], spec: WeightsSpec) -> Weights:
    """Return name, path and checksum of a weights file.

    Raises:
        WeightsError: the file cannot be read.
    """
    path = Path(path)
    try:
        stat = path.stat()
        digest = sha256_of(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot read the {spec.network} weights ({error.strerror}): {HOW_TO_GET} "
            f"or name other weights with {spec.flag}"
        ) from error
    return Weights(name=path.name, path=str(path), sha256=digest, published=digest == spec.sha256)


def zero_file(weights: Weights) -> Path:
    """Return the path of the file beside some weights that keeps the zero of their lag."""
    return Path(weights.path + ZERO_SUFFIX)


def known_zeros(path: Path) -> dict[str, dict[str, Any]]:
    """Read a file of zeros, which training.syncnet.lag_zero writes: by checksum of the weights, ``zero_ms`` and more.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(entry["zero_ms"], float) for entry in known.values()):
            return known
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise WeightsError(
        f"{path}: does not give the zero of a lag: remove it, or measure it again with python -m "
        "training.syncnet.lag_zero"
    )


def lag_zero(weights: Weights) -> float | None:
    """Return the lag, in milliseconds, that SyncNet's weights measure where sound and picture are in step.

    The file beside the weights counts first, then the one beside the starter.

    Returns:
        The lag; None if it was not measured for these weights.

    Raises:
        WeightsError: such a file is damaged.
    """
    starter = ROOT / (PACKAGED_STARTER if installed() else STARTER)
    for path in (zero_file(weights), starter / KNOWN_ZEROS):
        known = known_zeros(path) if path.is_file() else {}
        if weights.sha256 in known:
            return known[weights.sha256]["zero_ms"]
    return None


def choose(spec: WeightsSpec, given: str | os.PathLike[str] | None = None) -> Weights:
    """Select the weights file to use. Log a warning, once, if it is the starter.

    Args:
        spec: ``SYNCNET`` or ``S3FD``.
        given: path named by the user; None or a ``Default`` if the user named none. The published file's default path
            refers to the suite's folder if the working folder has no such file.

    Raises:
        WeightsError: the named file cannot be read, or neither the published file nor the starter exists.
    """
    published, starter = home() / spec.published, ROOT / spec.starter
    if installed():
        starter = ROOT / PACKAGED_STARTER / starter.name
    if given is not None and not isinstance(given, Default):
        in_suite = given == spec.published and not Path(given).exists() and published.exists()
        return identify(published if in_suite else given, spec)
    # a single candidate if the working folder is the suite's folder
    candidates = {path.resolve(): path for path in (published, Path(spec.published))}
    for candidate in reversed(candidates.values()):
        if candidate.is_file():
            weights = identify(candidate, spec)
            if weights.published:
                return weights
            warn_once(
                f"{candidate}: not used: not the published {spec.network} weights (it has {candidate.stat().st_size} "
                f"bytes instead of {spec.size}, or other content): {HOW_TO_GET} to repair it, or name it with "
                f"{spec.flag} to use it"
            )
    if not starter.is_file():
        raise WeightsError(
            f"{published}: no {spec.network} weights found: {HOW_TO_GET} or name other weights with {spec.flag}"
        )
    used, missing = (starter, published) if installed() else (spec.starter, spec.published)
    warn_once(
        f"{spec.network}: using the starter weights ({used}) because the published ones are not at {missing}: scores "
        f"are not LSE-C/LSE-D and must not be reported as such; {HOW_TO_GET} to get the published weights"
    )
    return identify(starter, spec)


@lru_cache
def warn_once(message: str) -> None:
    logger.warning(message)


def load_state(weights: Weights, spec: WeightsSpec) -> dict[str, Tensor]:
    """Load the parameters in a weights file.

    Returns:
        Parameters by name; floating-point ones as float32.

    Raises:
        WeightsError: the file is damaged, contains code, or belongs to another network.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about TorchScript files, which are refused anyway
            state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{weights.path}: refused: damaged, or contains more than plain {spec.network} weights: {HOW_TO_GET} "
            f"or name other weights with {spec.flag}"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{weights.path}: damaged {spec.network} weights (an interrupted download?): {HOW_TO_GET} "
            f"or name other weights with {spec.flag}"
        ) from error
    plain = isinstance(state, dict) and all(is_parameter(name, value) for name, value in state.items())
    if not plain or spec.first_layer not in state or not state[spec.first_layer].ndim:
        raise WeightsError(f"{weights.path}: not weights of {spec.network}: name the right file with {spec.flag}")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def is_parameter(name: object, value: object) -> bool:
    """Return True if an entry of a weights file is a dense, real-valued CPU tensor with a name."""
    import torch

    if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
        return False
    return value.layout == torch.strided and value.device.type == "cpu" and not value.is_complex()


def fill(net: Net, state: Mapping[str, Tensor], weights: Weights, spec: WeightsSpec) -> Net:
    """Load parameters into a network.

    Args:
        net: network of the same width; its parameters are replaced and can be on torch's meta device.
        state: the parameters by name.
        weights: file of the parameters, for the error message.
        spec: network of the parameters, for the error message.

    Returns:
        The network, in evaluation mode.

    Raises:
        WeightsError: names or shapes of the parameters differ from the network's.
    """
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{weights.path}: not weights of {spec.network} (other layers): name the right file with {spec.flag}"
        ) from error
    return net.eval()


def load_syncnet(given: str | os.PathLike[str] | None = None) -> tuple[S, Weights]:
    """Load SyncNet. Its width and embedding size are those of the weights.

    Args:
        given: as in ``choose``.

    Returns:
        The network, in evaluation mode on the CPU, and its weights file.

    Raises:
        WeightsError: the weights are missing, damaged or of another network.
    """
    import torch

    from SyncNetModel import S

    weights = choose(SYNCNET, given)
    state = load_state(weights, SYNCNET)
    width = len(state[SYNCNET.first_layer]) / SYNCNET.first_channels
    embedding = len(state.get(EMBEDDING_LAYER, ()))
    with torch.device("meta"):  # skips the random initialisation, which the file's parameters replace
        net = S(embedding, width=width)
    return fill(net, state, weights, SYNCNET), weights


def load_s3fd(given: str | os.PathLike[str] | None = None) -> tuple[S3FDNet, Weights]:
    """Load S3FD's network. Its width is that of the weights.

    Args:
        given: as in ``choose``.

    Returns:
        The network, in evaluation mode on the CPU, and its weights file.

    Raises:
        WeightsError: the weights are missing, damaged or of another network.
    """
    import torch

    from detectors.s3fd.nets import S3FDNet

    weights = choose(S3FD, given)
    state = load_state(weights, S3FD)
    width = len(state[S3FD.first_layer]) / S3FD.first_channels
    with torch.device("meta"):
        net = S3FDNet(width)
    return fill(net, state, weights, S3FD), weights
