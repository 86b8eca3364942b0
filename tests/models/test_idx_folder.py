"""Folders of IDX files: the split that they were published in, and files that lie there twice."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from models.datasets import load_dataset
from models.errors import DataError
from models.sources import IDX_FILES, SOURCES, locate
from tests.models.test_datasets import DEBIAN, idx, noise

NUM_TRAIN, NUM_TEST = 120, 40


def write(folder: Path, part: str, count: int, *, seed: int = 0, packed: bool = False) -> None:
    """Images and labels as MNIST names them."""
    pack, suffix = (gzip.compress, ".gz") if packed else (bytes, "")
    labels = (np.arange(count) % 3).astype(np.uint8)
    (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(noise(count, seed=seed)[..., 0])))
    (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))


@pytest.mark.parametrize(
    ("train", "test"), [("train", "t10k"), ("train", "test"), ("emnist-digits-train", "emnist-digits-test")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_published_test_set_is_the_gates(tmp_path: Path, train: str, test: str, packed: bool) -> None:
    """None of it is trained on or chosen by; the last twelfth of the training file is for validation, and that is told.

    Copies in the test set of images that are trained on stay there: whoever published it decided so.
    """
    write(tmp_path, train, NUM_TRAIN, packed=packed)
    write(tmp_path, test, NUM_TEST, packed=packed)  # of the same seed: the first images of the training file
    data = load_dataset(str(tmp_path))
    assert data.inventory.splits == {"train": 110, "validation": 10, "gate": NUM_TEST}
    own = noise(NUM_TRAIN)
    np.testing.assert_array_equal(data.split("train").samples, own[:110])
    np.testing.assert_array_equal(data.split("validation").samples, own[110:])
    np.testing.assert_array_equal(data.split("gate").samples, own[:NUM_TEST])
    assert data.split("gate").labels is not None
    np.testing.assert_array_equal(data.split("gate").labels, np.arange(NUM_TEST) % 3)
    told = f"the published split is kept: {test}-images-idx3-ubyte for the gate, the last twelfth of the rest"
    assert any(fact.startswith(told) for fact in data.inventory.facts)


@pytest.mark.parametrize("names", [("train",), ("t10k",), ("a", "b"), ("a", "t10k")])
def test_without_such_a_pair_the_split_is_ours(tmp_path: Path, names: tuple[str, ...]) -> None:
    """By content, as of any other data: a test file alone, or files of other names, are no published split."""
    for seed, name in enumerate(names):
        write(tmp_path, name, 200, seed=seed)
    data = load_dataset(str(tmp_path))
    assert not np.array_equal(data.indices["train"], np.arange(len(data.indices["train"])))
    assert 0 < len(data.indices["gate"]) < 0.2 * len(data.samples)
    assert not any("published" in fact for fact in data.inventory.facts)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_files_of_a_named_set_are_the_named_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder Fashion-MNIST has the content hash and the splits that it has by its name."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path / "none"))
    for name, path in zip(IDX_FILES, locate("fashion-mnist", SOURCES["fashion-mnist"]), strict=True):
        (tmp_path / f"{name}{path.suffix if path.suffix == '.gz' else ''}").symlink_to(path)
    folder, named = load_dataset(str(tmp_path)), load_dataset("fashion-mnist")
    assert folder.content_hash == named.content_hash
    for name, indices in named.indices.items():
        np.testing.assert_array_equal(folder.indices[name], indices)


def test_a_file_and_its_gzipped_self_are_read_once(tmp_path: Path) -> None:
    """And that is told: images that are there twice would count twice in everything."""
    write(tmp_path, "digits", 50)
    once = load_dataset(str(tmp_path))
    write(tmp_path, "digits", 50, packed=True)
    data = load_dataset(str(tmp_path))
    assert len(data.samples) == 50
    assert data.content_hash == once.content_hash
    assert data.inventory.facts[1:] == (
        "digits-images-idx3-ubyte.gz is digits-images-idx3-ubyte once more, and not read again",
        "digits-labels-idx1-ubyte.gz is digits-labels-idx1-ubyte once more, and not read again",
    )


@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_file_and_another_under_its_name_are_refused(tmp_path: Path, kind: str) -> None:
    """Nobody can know which of them is meant; the error names one, so that it can be removed."""
    write(tmp_path, "digits", 50)
    other = noise(50, seed=1)[..., 0] if kind == "images-idx3" else np.zeros(50, np.uint8)
    (tmp_path / f"digits-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(other)))
    with pytest.raises(DataError, match=rf"digits-{kind}-ubyte\.gz: is not what digits-{kind}-ubyte is"):
        load_dataset(str(tmp_path))


def test_labels_may_be_gzipped_where_images_are_not(tmp_path: Path) -> None:
    """They belong to the images by their name."""
    write(tmp_path, "digits", 50)
    labels = tmp_path / "digits-labels-idx1-ubyte"
    labels.with_suffix(".gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    np.testing.assert_array_equal(load_dataset(str(tmp_path)).labels, np.arange(50) % 3)


def test_a_broken_link_is_not_passed_over(tmp_path: Path) -> None:
    """Half of a data set would be missing without a word."""
    write(tmp_path, "a", 20)
    (tmp_path / "b-images-idx3-ubyte").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="b-images-idx3-ubyte"):
        load_dataset(str(tmp_path))
