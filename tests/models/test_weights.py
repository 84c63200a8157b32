"""Selection of weights, and errors for files that are damaged, of another network or malicious."""

import dataclasses
import hashlib
import pickle

import pytest
import torch

from detectors.s3fd.nets import S3FDNet
from syncnet.errors import WeightsError
from syncnet.models import weights
from SyncNetModel import S

WIDTH = 1 / 32
STARTER_WIDTH = 2 / 32


def build(known, width):
    torch.manual_seed(0)
    return S(width=width) if known.network == "SyncNet" else S3FDNet(width)


def save(path, state, **flags):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path, **flags)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["SYNCNET", "S3FD"])
def name(request):
    return request.param


@pytest.fixture
def place(name, tmp_path, monkeypatch):
    """Return an empty suite folder that is not the working folder, with log messages captured."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(weights, "ROOT", tmp_path / "suite")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(weights.logger, "propagate", True)
    weights.warn_once.cache_clear()
    yield tmp_path / "suite"
    weights.warn_once.cache_clear()


@pytest.fixture
def published(place, name, monkeypatch):
    """Create a published file in its default place, and adapt the expected size and checksum."""
    known = getattr(weights, name)
    sha256 = save(place / known.published, build(known, WIDTH).state_dict())
    size = (place / known.published).stat().st_size
    monkeypatch.setattr(weights, name, dataclasses.replace(known, sha256=sha256, size=size))
    return place / known.published


@pytest.fixture
def starter(place, name):
    known = getattr(weights, name)
    save(place / known.starter, {k: v.half() for k, v in build(known, STARTER_WIDTH).state_dict().items()})
    return place / known.starter


@pytest.fixture
def load(name):
    return {"SYNCNET": weights.load_syncnet, "S3FD": weights.load_s3fd}[name]


def first_layer(net, name):
    return net.state_dict()[getattr(weights, name).first_layer]


def test_an_intact_published_file_is_used(published, starter, load, caplog):
    _, chosen = load()
    assert chosen.path == str(published)
    assert chosen.published
    assert chosen.name == published.name
    assert chosen.sha256 == hashlib.sha256(published.read_bytes()).hexdigest()
    assert caplog.records == []


def test_the_flags_default_means_the_same_as_no_flag(published, starter, load, name):
    assert load(weights.Default(getattr(weights, name).published))[1].published


def test_the_published_file_can_be_named_from_any_folder(published, starter, load, name):
    assert load(getattr(weights, name).published)[1].path == str(published)


def test_a_missing_published_file_is_an_error_if_named(starter, load, name, caplog):
    """A user who names the published weights must not get scores of the starter."""
    with pytest.raises(WeightsError, match=r"No such file.*download_model\.sh"):
        load(getattr(weights, name).published)
    assert not caplog.messages


def test_other_weights_in_the_default_place(place, starter, load, name, caplog):
    """They are used if the user names them; by default only the published file is."""
    known = getattr(weights, name)
    save(weights.Path(known.published), build(known, WIDTH).state_dict())
    assert load(known.published)[1].path == known.published
    assert not caplog.messages
    assert load(weights.Default(known.published))[1].path == str(starter)
    assert sum("not used" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"first": torch.tensor(1.0)},
        {"first": torch.zeros(96, dtype=torch.complex64)},
        {"first": torch.zeros(96, 3).to_sparse()},
        {"first": torch.zeros(96, device="meta")},
        {3: torch.zeros(1)},
    ],
)
def test_entries_other_than_parameters_are_refused(place, load, name, tmp_path, entry):
    known = getattr(weights, name)
    state = build(known, WIDTH).state_dict()
    torch.save(state | {known.first_layer if key == "first" else key: v for key, v in entry.items()}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt: (not|damaged)"):
        load(str(tmp_path / "x.pt"))


def test_a_named_file_has_priority(published, starter, load, tmp_path, name, caplog):
    own = tmp_path / "own.pt"
    save(own, build(getattr(weights, name), 4 / 32).state_dict())
    net, chosen = load(str(own))
    assert (chosen.path, chosen.published) == (str(own), False)
    assert len(first_layer(net, name)) == getattr(weights, name).first_channels // 8
    assert caplog.records == []


def test_a_copy_of_the_published_file_counts_as_published(published, load, tmp_path):
    copy = tmp_path / "copy.pt"
    copy.write_bytes(published.read_bytes())
    assert load(str(copy))[1].published


def test_a_missing_named_file_is_an_error(published, starter, load, name):
    with pytest.raises(WeightsError, match=r"nowhere\.pt: .*No such file.*" + getattr(weights, name).flag):
        load("nowhere.pt")


def test_the_starter_is_used_without_the_published_file(starter, load, caplog):
    _, chosen = load()
    load()
    assert (chosen.path, chosen.published) == (str(starter), False)
    (record,) = caplog.records  # logged once
    assert record.levelname == "WARNING"
    for words in ("starter weights", "not LSE-C/LSE-D", "download_model.sh"):
        assert words in record.getMessage()


def test_a_damaged_published_file_is_named_and_the_starter_used(published, starter, load, caplog):
    published.write_bytes(published.read_bytes()[:-100])
    assert load()[1].path == str(starter)
    messages = [record.getMessage() for record in caplog.records]
    assert any(str(published) in m and "not used" in m and "download_model.sh" in m for m in messages)
    assert any("starter weights" in m for m in messages)


def test_without_any_weights_the_error_names_the_remedy(place, load, name):
    with pytest.raises(WeightsError, match="download_model.sh.*" + getattr(weights, name).flag):
        load()


@pytest.mark.parametrize("width", [1 / 32, 3 / 32, 1 / 8])
def test_the_width_is_that_of_the_weights(place, load, name, tmp_path, width):
    net = build(getattr(weights, name), width)
    save(tmp_path / "net.pt", net.state_dict())
    loaded = load(str(tmp_path / "net.pt"))[0]
    assert not loaded.training
    assert loaded.state_dict().keys() == net.state_dict().keys()
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_the_embedding_size_is_that_of_the_weights(place, tmp_path):
    save(tmp_path / "net.pt", S(256, width=WIDTH).state_dict())
    assert weights.load_syncnet(str(tmp_path / "net.pt"))[0].netfcaud[3].out_features == 256


def test_half_precision_becomes_single(starter, load, name):
    net = load()[0]
    assert all(value.dtype == torch.float32 for value in net.state_dict().values() if value.is_floating_point())
    expected = build(getattr(weights, name), STARTER_WIDTH).state_dict()[getattr(weights, name).first_layer]
    assert torch.allclose(first_layer(net, name), expected, atol=1e-3)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_error(place, load, name, tmp_path, share, zipped):
    path = tmp_path / "net.pt"
    save(path, build(getattr(weights, name), WIDTH).state_dict(), _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"net\.pt: .*damaged.*download_model\.sh"):
        load(str(path))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + bytes(100), bytes(1000)])
def test_other_kinds_of_files_are_one_error(place, load, tmp_path, content):
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"net\.pt: "):
        load(str(tmp_path / "net.pt"))


def test_a_folder_is_one_error(place, load, tmp_path):
    with pytest.raises(WeightsError, match="Is a directory"):
        load(str(tmp_path))


def test_the_other_networks_weights_are_refused(place, load, name, tmp_path):
    other = weights.S3FD if name == "SYNCNET" else weights.SYNCNET
    save(tmp_path / "net.pt", build(other, WIDTH).state_dict())
    with pytest.raises(WeightsError, match="not weights of .*" + getattr(weights, name).flag):
        load(str(tmp_path / "net.pt"))


def test_missing_and_additional_layers_are_refused(place, load, name, tmp_path):
    state = build(getattr(weights, name), WIDTH).state_dict()
    save(tmp_path / "less.pt", dict(list(state.items())[:-1]))
    save(tmp_path / "more.pt", {**state, "extra.weight": torch.zeros(1)})
    for file in ("less.pt", "more.pt"):
        with pytest.raises(WeightsError, match="other layers"):
            load(str(tmp_path / file))


@pytest.mark.parametrize("value", [[1, 2, 3], {"state": 1}, torch.zeros(3)])
def test_other_objects_than_parameters_are_refused(place, load, tmp_path, value):
    save(tmp_path / "net.pt", value)
    with pytest.raises(WeightsError, match="not weights of"):
        load(str(tmp_path / "net.pt"))


class Malicious:
    """Object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("writer", ["pickle", "zip", "legacy"])
def test_code_in_a_file_does_not_run(place, load, tmp_path, writer):
    path, proof = tmp_path / "net.pt", tmp_path / "ran"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"weight": Malicious(str(proof))}))
    else:
        save(path, {"weight": Malicious(str(proof))}, _use_new_zipfile_serialization=writer == "zip")
    with pytest.raises(WeightsError, match="refused"):
        load(str(path))
    assert not proof.exists()
