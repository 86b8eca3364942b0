"""Reads a folder of IDX files as one data set, with the split that it was published in. Knows no single data set.

Files are known by their names, as MNIST's are: train-images-idx3-ubyte and t10k-images-idx3-ubyte (others say test),
each with its labels in train-labels-idx1-ubyte and so on, gzipped (.gz) or not.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.idx import read_idx, uncompressed
from models.inventory import Inventory, Read
from models.splits import Indices, SplitName, by_position

IMAGES, LABELS = "images-idx3", "labels-idx1"
PATTERN = "*-idx3-ubyte*"
TRAIN, TESTS = "train", ("t10k", "test")
VALIDATION = 12  # one image in so many of a published training set: MNIST's last 5,000 of 60,000


def holds_idx(folder: Path) -> bool:
    """Whether there are images in IDX files."""
    return any(folder.glob(PATTERN))


def read_idx_folder(folder: Path) -> tuple[Read, Mapping[SplitName, Indices] | None]:
    """All images of a folder, with the labels beside them, and the splits where the files have a published one.

    A published test set is the gate's, and comes last; the last twelfth of the rest chooses the checkpoint. Where
    there is no such pair of files, files come in order of their names and the splits are None.

    Raises:
        DataError: a file cannot be read, sizes differ, or a file and its .gz are not the same.
    """
    facts: list[str] = []
    names = sorted({path.name.removesuffix(".gz") for path in folder.glob(PATTERN)})
    tests = [name for name in names if _part(name) in TESTS]
    published = bool(tests) and TRAIN in map(_part, names)
    if published:
        names = [name for name in names if name not in tests] + tests
    paths = [path for name in names if (path := _found(folder, name, facts)) is not None]
    arrays = _alike(paths)
    facts.insert(0, f"files: {', '.join(path.name for path in paths)}")
    indices = None
    if published:
        gate = sum(map(len, arrays[-len(tests) :]))
        rest = sum(map(len, arrays)) - gate
        validation = -(-rest // VALIDATION)
        indices = by_position(rest - validation, validation, gate)
        ends = "the last twelfth of the rest to choose a checkpoint by"
        facts.append(f"the published split is kept: {', '.join(tests)} for the gate, {ends}")
    labels = [_found(folder, name.replace(IMAGES, LABELS), facts) for name in names if IMAGES in name]
    found = [path for path in labels if path is not None]
    joined = np.concatenate(_alike(found)).astype(np.int64) if len(found) == len(names) else None
    return Read(np.concatenate(arrays), joined, None, Inventory(form="IDX files", facts=tuple(facts))), indices


def _part(name: str) -> str:
    """Which part of a data set the images of a file are, "train" of emnist-letters-train-images-idx3-ubyte."""
    return name.partition(f"-{IMAGES}")[0].rpartition("-")[2]


def _found(folder: Path, name: str, facts: list[str]) -> Path | None:
    """A file or its .gz; of both, which must hold the same, the file, and that is told. None where there is neither."""
    both = (folder / name, folder / f"{name}.gz")
    there = [path for path in both if path.exists() or path.is_symlink()]  # a broken link is told when it is read
    if len(there) > 1:
        if uncompressed(there[0]) != uncompressed(there[1]):
            raise DataError(f"{there[1]}: is not what {name} is, gzipped; remove one of them", field="data")
        facts.append(f"{there[1].name} is {name} once more, and not read again")
    return there[0] if there else None


def _alike(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """IDX files; all must hold samples of one shape."""
    arrays = [read_idx(path) for path in paths]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            shapes = f"{array.shape[1:]}, those of {paths[0].name} {arrays[0].shape[1:]}"
            raise DataError(f"{path}: samples are {shapes}", field="data")
    return arrays
