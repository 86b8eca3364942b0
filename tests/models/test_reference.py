"""Features of real data are kept by content hash, split by split, and never trusted when damaged."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.reference import RealFeatures, cache_folder
from tests.models.realdata import write_blobs


@pytest.fixture
def dataset(tmp_path):
    return load_dataset(str(write_blobs(tmp_path / "blobs.npz", count=120)))


class Stages:
    """Notes what was computed."""

    def __init__(self):
        self.names = []

    def __call__(self, name, total):
        self.names.append(name)
        return lambda done: None


def opened(dataset, folder):
    return RealFeatures(dataset, resolve_extractor(None, dataset), cache=folder)


def test_features_are_computed_once_and_read_again(dataset, tmp_path):
    """The second time they come from the cache, the same to the byte; in one process from memory."""
    stages = Stages()
    first = opened(dataset, tmp_path / "cache")
    made = first.extracted("train", stages)
    assert first.extracted("train", stages) is made
    read = opened(dataset, tmp_path / "cache").extracted("train", stages)
    assert stages.names == ["features of the train split"]
    assert read.features.tobytes() == made.features.tobytes()


def test_the_gate_split_is_opened_only_when_asked_for(dataset, tmp_path):
    """An evaluation's cache holds no file of the gate split."""
    opened(dataset, tmp_path / "cache").extracted("validation")
    assert [path.name.split("-")[2] for path in (tmp_path / "cache").iterdir()] == ["validation"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_cache_file_is_made_anew(dataset, tmp_path, damage):
    """Whatever happened to the file, the features are right, and so is the file afterwards."""
    folder, stages = tmp_path / "cache", Stages()
    made = opened(dataset, folder).extracted("gate", stages)
    (path,) = folder.iterdir()
    _damage(path, damage)
    again = opened(dataset, folder).extracted("gate", stages)
    assert len(stages.names) == 2
    assert again.features.tobytes() == made.features.tobytes()
    opened(dataset, folder).extracted("gate", stages)
    assert len(stages.names) == 2


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{**arrays, "features": arrays["features"] + np.float32(1)})


def test_other_data_or_another_extractor_is_another_reference(dataset, tmp_path):
    """The hash covers the data and the extractor."""
    other = load_dataset(str(write_blobs(tmp_path / "other.npz", seed=5000, count=120)))
    first, second = opened(dataset, None), opened(other, None)
    shipped = RealFeatures(dataset, resolve_extractor("fashion-cnn", dataset))
    assert len({first.hash, second.hash, shipped.hash}) == 3


def test_classes_are_known_only_to_an_extractor_of_this_data(dataset):
    """Random features recognise nothing, and another data set's classifier does not count."""
    assert not opened(dataset, None).knows_classes
    assert not RealFeatures(dataset, resolve_extractor("fashion-cnn", dataset)).knows_classes


def test_an_unwritable_cache_stops_nothing(dataset, tmp_path):
    """Where the folder cannot be made the features are computed all the same."""
    (tmp_path / "file").write_text("")
    assert len(opened(dataset, tmp_path / "file" / "cache").extracted("gate").features)


def test_the_cache_lies_where_the_environment_says():
    """Beside the data sets: GENSERVE_DATA first, then XDG_CACHE_HOME, then the home folder."""
    assert cache_folder({"GENSERVE_DATA": "/d", "XDG_CACHE_HOME": "/x"}) == Path("/d/cache")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/genserve/cache")
    assert cache_folder({}) == Path.home() / ".cache" / "genserve" / "cache"
