"""Weights files: which one is used, whether it is the right one, and the network that it makes.

Weights named by a flag are used. Else the published file where it lies in its place and is right, else the starter
that comes with the suite. Choosing does not load torch: a program that hands the work to others does that alone.
"""

import hashlib
import logging
import os
import pickle
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from syncnet.errors import WeightsError

logger = logging.getLogger("syncnet")

ROOT = Path(__file__).resolve().parents[2]
HASH_CHUNK = 1 << 20


@dataclass(frozen=True)
class Known:
    """A network's weights: where they lie, and what the published file must be.

    Attributes:
        network: name for messages.
        flag: the flag that names other weights.
        published: default path, relative to the suite's folder.
        size, sha256: of the published file.
        starter: path of the starter weights, relative to the suite's folder.
        first_layer, first_channels: the parameter that tells the width, and its channels at width 1.
    """

    network: str
    flag: str
    published: str
    size: int
    sha256: str
    starter: str
    first_layer: str
    first_channels: int


SYNCNET = Known(
    network="SyncNet",
    flag="--initial_model",
    published="data/syncnet_v2.model",
    size=54573114,
    sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
    starter="data/starter/syncnet.pt",
    first_layer="netcnnlip.0.weight",
    first_channels=96,
)
S3FD = Known(
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


def installed() -> bool:
    """Return True if the suite is installed from a wheel, not used from a checkout."""
    return (ROOT / PACKAGED_STARTER).is_dir()


def home() -> Path:
    """Return the folder that ``Known.published`` is relative to.

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
    """Path that a flag has when the user does not give it."""

    __slots__ = ()


@dataclass(frozen=True)
class Weights:
    """A weights file that is in use."""

    name: str
    path: str
    sha256: str
    published: bool


@lru_cache
def sha256_of(path, size, mtime):
    """SHA-256 of a file, in hexadecimal; size and mtime make the cache forget a changed file."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def identify(path, known):
    """The ``Weights`` of a file.

    Raises:
        WeightsError: it cannot be read.
    """
    path = Path(path)
    try:
        stat = path.stat()
        digest = sha256_of(str(path), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot read the {known.network} weights ({error.strerror}): {HOW_TO_GET} "
            f"or name other weights with {known.flag}"
        ) from error
    return Weights(name=path.name, path=str(path), sha256=digest, published=digest == known.sha256)


def choose(known, given=None):
    """Which weights are used.

    Args:
        known: ``SYNCNET`` or ``S3FD``.
        given: path named by the user; None or a ``Default`` where the user named none. The published file's own path
            means the suite's folder where the working folder has no such file.

    Returns:
        The ``Weights``; the choice of the starter is announced once, as a warning.

    Raises:
        WeightsError: the named file cannot be read, or nothing is there to choose.
    """
    published, starter = home() / known.published, ROOT / known.starter
    if installed():
        starter = ROOT / PACKAGED_STARTER / starter.name
    if given is not None and not isinstance(given, Default):
        in_suite = given == known.published and not Path(given).exists() and published.exists()
        return identify(published if in_suite else given, known)
    places = {path.resolve(): path for path in (published, Path(known.published))}  # one where they are the same
    for candidate in reversed(places.values()):
        if candidate.is_file():
            weights = identify(candidate, known)
            if weights.published:
                return weights
            warn_once(
                f"{candidate}: not the published {known.network} weights ({candidate.stat().st_size} bytes of "
                f"{known.size}, or another content): not used. {HOW_TO_GET} to repair it, or name it with {known.flag}"
            )
    if not starter.is_file():
        raise WeightsError(
            f"{published}: no {known.network} weights: {HOW_TO_GET} or name other weights with {known.flag}"
        )
    used, missing = (starter, published) if installed() else (known.starter, known.published)
    warn_once(
        f"{known.network}: starter weights ({used}), because the published ones are not at {missing}: "
        f"scores are no LSE-C/LSE-D and must not be reported as such. For the published weights {HOW_TO_GET}"
    )
    return identify(starter, known)


@lru_cache
def warn_once(message):
    logger.warning(message)


def load_state(weights, known):
    """The parameters in a weights file, as float32.

    Raises:
        WeightsError: damaged, code instead of numbers, or not this network's.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript file, which is refused
            state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{weights.path}: refused: not plain {known.network} weights, or damaged: {HOW_TO_GET}"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(
            f"{weights.path}: damaged {known.network} weights (an interrupted download?): {HOW_TO_GET}"
        ) from error
    tensors = isinstance(state, dict) and all(is_plain(name, value) for name, value in state.items())
    if not tensors or known.first_layer not in state or not state[known.first_layer].ndim:
        raise WeightsError(f"{weights.path}: not weights of {known.network}: name the right file with {known.flag}")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def is_plain(name, value):
    """Whether an entry of a weights file is a parameter: an ordinary tensor of real numbers under a name."""
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return plain and isinstance(name, str) and not value.is_complex()


def fill(net, state, weights, known):
    """Put parameters into a network made for them, whose own may be without storage (on torch's meta device).

    Raises:
        WeightsError: names or shapes differ.
    """
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise WeightsError(
            f"{weights.path}: not weights of {known.network} (other layers): name the right file with {known.flag}"
        ) from error
    return net.eval()


def load_syncnet(given=None):
    """The network and the ``Weights`` that it was made from; width and embedding are read off the file."""
    import torch

    from SyncNetModel import S

    weights = choose(SYNCNET, given)
    state = load_state(weights, SYNCNET)
    width = len(state[SYNCNET.first_layer]) / SYNCNET.first_channels
    embedding = len(state.get(EMBEDDING_LAYER, ()))
    with torch.device("meta"):  # no random numbers that the file's replace
        net = S(embedding, width=width)
    return fill(net, state, weights, SYNCNET), weights


def load_s3fd(given=None):
    """The detector's network and the ``Weights`` that it was made from; the width is read off the file."""
    import torch

    from detectors.s3fd.nets import S3FDNet

    weights = choose(S3FD, given)
    state = load_state(weights, S3FD)
    width = len(state[S3FD.first_layer]) / S3FD.first_channels
    with torch.device("meta"):
        net = S3FDNet(width)
    return fill(net, state, weights, S3FD), weights
