"""Data sets: what is read, how it is split, and what is refused."""

import gzip
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.datasets import load_dataset
from models.errors import DataError
from models.folder import common_resolution
from models.idx import read_idx
from models.sources import IDX_FILES, SOURCES, locate
from models.splits import by_content, near_duplicates

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ROOT = Path(__file__).parents[2]
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


# Folders.


def test_a_folder_of_any_images(tmp_path: Path) -> None:
    """Sizes and modes may differ: grey, palette, transparent, 16 bit and portrait images become one RGB array."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs").mkdir()
    Image.new("L", (40, 40), 128).save(tmp_path / "cats" / "grey.png")
    Image.new("RGBA", (50, 40), (255, 0, 0, 0)).save(tmp_path / "cats" / "clear.png")
    Image.fromarray(np.full((40, 40), 128 * 257, np.uint16)).save(tmp_path / "dogs" / "deep.png")
    Image.new("P", (40, 60)).save(tmp_path / "dogs" / "palette.gif")
    data = load_dataset(str(tmp_path))
    assert data.shape == (40, 40, 3)
    assert data.class_names == ("cats", "dogs")
    np.testing.assert_array_equal(data.labels, [0, 0, 1, 1])
    assert np.unique(data.samples[0]).tolist() == [255]  # nothing but transparency, over white
    assert np.unique(data.samples[1]).tolist() == [128]
    assert np.unique(data.samples[2]).tolist() == [128]


def test_grey_images_stay_grey_at_the_resolution_asked_for(tmp_path: Path) -> None:
    """A folder without subfolders has no labels, and one channel if all are grey."""
    for i in range(3):
        Image.fromarray(noise(1, 20, seed=i)[0, :, :, 0]).save(tmp_path / f"{i}.png")
    data = load_dataset(str(tmp_path), resolution=16)
    assert data.shape == (16, 16, 1)
    assert data.labels is None


def test_resizing_is_antialiased_and_centred(tmp_path: Path) -> None:
    """A fine checkerboard becomes an even grey, and what lies outside the centre square is gone."""
    board = np.indices((64, 64)).sum(0) % 2 * 255
    wide = np.concatenate([np.full((64, 32), 255), board, np.full((64, 32), 255)], axis=1).astype(np.uint8)
    Image.fromarray(wide).save(tmp_path / "a.png")
    pixels = load_dataset(str(tmp_path), resolution=8).samples
    assert np.abs(pixels.astype(int) - 127).max() <= 12  # the filter has less to average at the edges


def test_broken_images_are_named(tmp_path: Path) -> None:
    """Files that are no images stop the load with their names, and how many there are."""
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    Image.fromarray(noise(1, 64)[0, :, :, 0]).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(DataError, match=r"2 broken image files: cut\.png.*text\.jpg"):
        load_dataset(str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak memory is read from /proc")
def test_images_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    """16 images of 1536 x 1536, 9 MiB each once decoded, are read in less than the memory of 6."""
    for i in range(16):
        Image.new("RGB", (1536, 1536), (i, 0, 0)).save(tmp_path / f"{i}.png", compress_level=1)
    code = (
        "import re, sys; from pathlib import Path; from models.folder import read_folder\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "before = peak(); samples = read_folder(Path(sys.argv[1]))[0]\n"
        "print(len(samples), (peak() - before) // 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    count, mebibytes = map(int, done.stdout.split())
    assert count == 16
    assert mebibytes < 6 * 9


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    """An image that belongs to no class, where others do, is an accident."""
    (tmp_path / "a").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "a" / "1.png")
    Image.new("L", (8, 8)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match="beside the class folders a"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(("sides", "resolution"), [([28, 28], 28), ([64, 500], 64), ([100, 100], 64), ([9, 50], 28)])
def test_the_common_resolution(sides: list[int], resolution: int) -> None:
    """The common size where there is one up to 64 pixels, else a usual size that the median image has."""
    assert common_resolution(sides) == resolution


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
