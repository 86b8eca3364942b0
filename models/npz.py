"""Reads an .npz of images or vectors with labels. Never unpickles; knows nothing of splits."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.inventory import Inventory, Read

KNOWN = frozenset({"images", "samples", "labels", "class_names", "columns"})


def read_npz(path: Path) -> Read:
    """Images or vectors, and what belongs to them.

    Args:
        path: of an archive with `images` uint8 [N, H, W] or [N, H, W, C], or `samples` real [N, d]; and optionally
            `labels` [N], `class_names` [K], and `columns` [d], the names of a sample's values.

    Raises:
        DataError: not a readable archive, or arrays of another form.
    """
    arrays = _arrays(path)
    if len(arrays.keys() & {"images", "samples"}) != 1:
        raise DataError(f"{path}: needs one of `images` and `samples`, holds {sorted(arrays)}", field="data")
    class_names = _names(path, arrays, "class_names")
    columns = _names(path, arrays, "columns")
    facts = [f"columns: {', '.join(columns)}"] if columns else []
    if unused := sorted(arrays.keys() - KNOWN):
        facts.append(f"not used: the arrays {', '.join(unused)}")
    inventory = Inventory(form=".npz", facts=tuple(facts))
    if "images" in arrays:
        if arrays["images"].dtype != np.uint8:
            raise DataError(f"{path}: images are {arrays['images'].dtype}, must be uint8", field="data")
        return Read(arrays["images"], arrays.get("labels"), class_names, inventory)
    samples = arrays["samples"]
    if samples.dtype.kind not in "fiu":
        raise DataError(f"{path}: samples are {samples.dtype}, must be real numbers", field="data")
    if columns is not None and (samples.ndim != 2 or len(columns) != samples.shape[1]):
        raise DataError(f"{path}: {len(columns)} columns are named, samples are {samples.shape}", field="data")
    return Read(samples.astype(np.float32), arrays.get("labels"), class_names, inventory)


def _names(path: Path, arrays: dict[str, NDArray[Any]], key: str) -> tuple[str, ...] | None:
    names = arrays.get(key)
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "Uiu":
        raise DataError(f"{path}: {key} are {names.dtype} {names.shape}, must be a row of strings", field="data")
    return tuple(str(name) for name in names)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz, by name."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path}: a single array (.npy), not an .npz archive", field="data")
        with archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npz without pickled objects ({error})", field="data") from error
