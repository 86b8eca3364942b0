"""Data sets: what is read, how it is split, and what is refused."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest

from models.datasets import load_dataset
from models.errors import DataError
from models.idx import read_idx
from models.sources import IDX_FILES, SOURCES, locate
from models.splitting import by_content, near_duplicates

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


def noise(count: int, side: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, side, side, channels), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def save_npz(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)
    return str(path)


# IDX.


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_reads_plain_and_gzipped(tmp_path: Path, pack: type[bytes]) -> None:
    """The array comes back with its shape, whether the file is gzipped or not."""
    array = noise(3)[..., 0]
    (tmp_path / "a").write_bytes(pack(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not an IDX"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "not an IDX"),  # floats
        (b"\0\0\x08\3\0\0", "cut short"),
        (idx(np.zeros((2, 2), np.uint8))[:-1], "header says"),
        (gzip.compress(b"\0" * 1000, mtime=0)[:-9], "end-of-stream"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    """Not IDX, a cut header, values that do not fit the header, a cut gzip stream: each is an error with the path."""
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(DataError, match=complaint) as caught:
        read_idx(tmp_path / "broken")
    assert "broken" in str(caught.value)


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    """Image files are joined in order of their names, with the labels beside them."""
    for name in ("t10k", "train"):
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(noise(20, seed=len(name))[..., 0])))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(20, dtype=np.uint8) % 3)))
    data = load_dataset(str(tmp_path))
    assert data.shape == (8, 8, 1)
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.labels, np.tile(np.arange(20) % 3, 2))


def test_idx_files_of_different_sizes_are_refused(tmp_path: Path) -> None:
    """The error names the file that does not fit the first."""
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(noise(5)[..., 0]))
    (tmp_path / "b-images-idx3-ubyte").write_bytes(idx(noise(5, side=9)[..., 0]))
    with pytest.raises(DataError, match=r"b-images-idx3-ubyte: samples are \(9, 9\), those of a-images.* \(8, 8\)"):
        load_dataset(str(tmp_path))


# npz.


def test_npz_of_images_and_labels(tmp_path: Path) -> None:
    """Grey images gain a channel axis; labels and class names come along."""
    path = save_npz(tmp_path / "d.npz", images=noise(30)[..., 0], labels=np.arange(30) % 2, class_names=["a", "b"])
    data = load_dataset(path)
    assert (data.kind, data.shape, data.class_names) == ("image", (8, 8, 1), ("a", "b"))


def test_npz_of_vectors(tmp_path: Path) -> None:
    """`samples` make a data set of kind vector, float32."""
    data = load_dataset(save_npz(tmp_path / "d.npz", samples=np.random.RandomState(0).randn(50, 2)))
    assert (data.kind, data.shape, data.samples.dtype) == ("vector", (2,), np.float32)


def test_the_inventory_of_an_npz(tmp_path: Path) -> None:
    """Classes with their counts, the splits' sizes, and arrays that nobody asked for are told before a training."""
    labels = np.arange(30) % 3 == 0
    path = save_npz(tmp_path / "d.npz", images=noise(30), labels=labels.astype(int), class_names=["a", "b"], ids=[1])
    inventory = load_dataset(path).inventory
    assert inventory.labels == {"a": 20, "b": 10}
    assert sum(inventory.splits.values()) == inventory.count == 30
    lines = inventory.lines()
    assert lines[0] == "30 samples of 8 x 8 x 1 from .npz"
    assert lines[2:] == ["classes: a (20), b (10)", "not used: the arrays ids"]


def test_many_classes_are_told_in_one_line(tmp_path: Path) -> None:
    """The ten largest by name, the rest by their number and range."""
    labels = np.repeat(np.arange(30), np.arange(1, 31))
    inventory = load_dataset(save_npz(tmp_path / "d.npz", images=noise(len(labels)), labels=labels)).inventory
    line = next(line for line in inventory.lines() if line.startswith("classes"))
    assert line.startswith("classes: 29 (30), 28 (29),")
    assert line.endswith("20 (21) and 20 more, with 1 .. 20 each")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"pictures": noise(3)}, "images.*samples"),
        ({"images": noise(3).astype(np.float32)}, "uint8"),
        ({"images": noise(3, channels=2)}, "1 or 3"),
        ({"images": noise(0)}, "no samples"),
        ({"images": noise(3), "labels": np.arange(2)}, "3 integers"),
        ({"images": noise(3), "labels": np.array([-1, 0, 1])}, r"0 \.\."),
        ({"images": noise(3), "labels": np.arange(3), "class_names": ["a"]}, "class names"),
        ({"samples": np.array([[np.nan]])}, "finite"),
        ({"images": np.array([{"a": 1}], dtype=object)}, "pickled"),
        ({"images": noise(3), "labels": np.arange(3), "class_names": "abc"}, r"class_names are <U3 \(\)"),
        ({"images": noise(3), "labels": np.arange(3), "class_names": np.zeros(3)}, "class_names are float64"),
        ({"samples": np.array([["a", "b"]])}, "samples are <U1"),
        ({"samples": np.zeros((3, 2)), "columns": ["a"]}, r"1 columns are named, samples are \(3, 2\)"),
    ],
)
def test_a_wrong_npz_says_what_it_must_hold(tmp_path: Path, arrays: dict[str, object], complaint: str) -> None:
    """Each wrong form is refused with what was expected; pickled objects are never loaded."""
    with pytest.raises(DataError, match=complaint):
        load_dataset(save_npz(tmp_path / "d.npz", **arrays))


def test_a_bare_array_named_npz_is_refused(tmp_path: Path) -> None:
    """numpy reads it all the same, as one array without a name."""
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, noise(3))
    with pytest.raises(DataError, match=r"d\.npz: a single array"):
        load_dataset(str(tmp_path / "d.npz"))


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    """Whichever byte was changed, the archive is read as it is or refused with its path."""
    path = tmp_path / "d.npz"
    np.savez_compressed(path, images=np.zeros((30, 8, 8, 1), np.uint8))
    sound = path.read_bytes()
    errors: list[DataError] = []
    for i in range(len(sound)):
        path.write_bytes(sound[:i] + bytes([sound[i] ^ 0xFF]) + sound[i + 1 :])
        try:
            load_dataset(str(path))
        except DataError as error:
            errors.append(error)
    assert all("d.npz" in str(error) for error in errors)
    assert zlib.error in {type(error.__cause__) for error in errors}


def test_no_such_data_names_what_there_is() -> None:
    """An unknown name lists the known ones."""
    with pytest.raises(DataError, match="fashion-mnist, mnist"):
        load_dataset("fashion-mnits")


# Hashes and splits.


def test_the_hash_is_of_content_alone(tmp_path: Path) -> None:
    """Name and place do not change the hash; one pixel or one label does."""
    images, labels = noise(30), np.arange(30) % 3
    other = images.copy()
    other[5, 2, 2, 0] ^= 1
    first = load_dataset(save_npz(tmp_path / "a.npz", images=images, labels=labels))
    same = load_dataset(save_npz(tmp_path / "b.npz", images=images, labels=labels))
    changed = load_dataset(save_npz(tmp_path / "c.npz", images=other, labels=labels))
    relabelled = load_dataset(save_npz(tmp_path / "d.npz", images=images, labels=labels[::-1].copy()))
    assert first.content_hash == same.content_hash
    assert len({first.content_hash, changed.content_hash, relabelled.content_hash}) == 3


def test_content_splits_cover_everything_once_in_about_80_10_10() -> None:
    """2,000 different images: every one in exactly one split, shares within 3 standard deviations."""
    splits = by_content(noise(2000))
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(2000))
    assert abs(len(splits["train"]) - 1600) < 3 * np.sqrt(2000 * 0.8 * 0.2)
    assert abs(len(splits["gate"]) - 200) < 3 * np.sqrt(2000 * 0.1 * 0.9)


def test_a_samples_split_does_not_depend_on_its_place() -> None:
    """Shuffled, every image lands in the split that it was in."""
    images, order = noise(300), np.random.RandomState(1).permutation(300)
    before, after = by_content(images), by_content(images[order])
    for name, indices in before.items():
        assert set(indices.tolist()) == set(order[after[name]].tolist())


def test_near_duplicates_stay_in_one_split() -> None:
    """Brightened by a level, re-noised or exactly repeated: copies are in the split of their original."""
    images = noise(400, side=16)
    random = np.random.RandomState(2)
    noisy = (images.astype(int) + random.randint(-2, 3, images.shape)).clip(0, 255).astype(np.uint8)
    brighter = (images.astype(int) + 1).clip(0, 255).astype(np.uint8)
    splits = by_content(np.concatenate([images, noisy, brighter, images]))
    for indices in splits.values():
        originals, counts = np.unique(indices % 400, return_counts=True)
        assert (counts == 4).all(), originals[counts != 4]


def test_different_images_are_not_called_duplicates() -> None:
    """400 images of noise make 400 groups, and all-equal ones make one."""
    assert len(set(near_duplicates(noise(400, side=16)).tolist())) == 400
    assert set(near_duplicates(np.zeros((50, 8, 8, 1), np.uint8)).tolist()) == {0}


def test_equal_vectors_stay_together() -> None:
    """Vectors are grouped when they are equal, and only then."""
    x = np.random.RandomState(0).randn(100, 2).astype(np.float32)
    groups = near_duplicates(np.concatenate([x, x]))
    assert len(set(groups.tolist())) == 100
    np.testing.assert_array_equal(groups[:100], groups[100:])


# The real ones, where they are installed.


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_as_debian_packages_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """55,000, 5,000 and 10,000 images of 28 x 28, every class equally often in the gate split."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    data = load_dataset("fashion-mnist")
    assert {name: len(indices) for name, indices in data.indices.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "gate": 10_000,
    }
    assert data.shape == (28, 28, 1)
    assert data.licence == "MIT"
    assert np.bincount(data.split("gate").labels).tolist() == [1000] * 10


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files beside the repository")
def test_mnist_is_what_its_checksums_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published checksums fit the files however they were compressed."""
    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    (tmp_path / "mnist").symlink_to(MNIST)
    assert [path.name for path in locate("mnist", SOURCES["mnist"])] == [f"{name}.gz" for name in IDX_FILES]
