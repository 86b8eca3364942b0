"""Data sets as arrays in memory, with their splits and content hash. Knows nothing of networks or measures.

A data set is named (fashion-mnist, mnist), or it is a folder of images, a folder of IDX files, an IDX file or an .npz.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.folder import read_folder
from models.idx import read_idx
from models.manifest import Kind
from models.sources import SOURCES, Source, locate
from models.splits import Indices, Samples, Split, SplitName, by_content, by_position

__all__ = ["Dataset", "Split", "load_dataset"]

NUM_TRAIN, NUM_VALIDATION, NUM_GATE = 55_000, 5_000, 10_000  # of the MNIST family
MAX_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A whole data set.

    Args:
        name: as it was asked for.
        kind: "image" or "vector".
        samples: uint8 [N, H, W, C], or float32 [N, d].
        labels: int64 [N], None without labels.
        class_names: by label.
        content_hash: sha256 of shape, samples and labels, in hexadecimal.
        licence: SPDX identifier where it is known.
        indices: of each split.
    """

    name: str
    kind: Kind
    samples: Samples
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    content_hash: str
    licence: str | None
    indices: Mapping[SplitName, Indices]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C) or (d,)."""
        return tuple(self.samples.shape[1:])

    def split(self, name: SplitName) -> Split:
        """One of the splits "train", "validation" and "gate", as a copy."""
        indices = self.indices[name]
        labels = None if self.labels is None else self.labels[indices]
        return Split(samples=self.samples[indices], labels=labels, indices=indices)


def load_dataset(spec: str, *, resolution: int | None = None, sources: Mapping[str, Source] = SOURCES) -> Dataset:
    """Read a data set into memory.

    Args:
        spec: a name in `sources`, or the path of a folder of images (subfolders are classes), of a folder with IDX
            files, of an IDX file, or of an .npz with `images` uint8 [N, H, W] or [N, H, W, C], or `samples`
            float32 [N, d], and optionally `labels` [N] and `class_names`.
        resolution: of a folder of images, in pixels; see models.folder.read_folder.
        sources: the named data sets.

    Raises:
        DataError: there is no such data, or it is not of the expected form.
        Unavailable: a named data set is neither here nor to be downloaded.
    """
    if spec in sources:
        return _named(spec, sources[spec])
    path = Path(spec)
    if path.is_dir():
        if any(path.glob("*-idx3-ubyte*")):
            return _dataset(spec, *_idx_folder(path), None)
        return _dataset(spec, *read_folder(path, resolution))
    if not path.is_file():
        raise DataError(f"{spec!r} is neither a file, a folder, nor one of {', '.join(sources)}", field="data")
    if path.suffix == ".npz":
        return _dataset(spec, *_npz(path))
    return _dataset(spec, read_idx(path), None, None)


def _named(name: str, source: Source) -> Dataset:
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in locate(name, source))
    samples = np.concatenate([train_images, test_images])[..., None]
    labels = np.concatenate([train_labels, test_labels]).astype(np.int64)
    indices = by_position(NUM_TRAIN, NUM_VALIDATION, NUM_GATE)
    return _dataset(name, samples, labels, source.class_names, licence=source.licence, indices=indices)


def _idx_folder(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """All *-idx3-ubyte files of a folder, in order of their names, with the labels beside them."""
    image_paths = sorted(folder.glob("*-idx3-ubyte*"))
    label_paths = [path.with_name(path.name.replace("images-idx3", "labels-idx1")) for path in image_paths]
    images = _joined(image_paths)
    if not all(label.exists() and label != image for image, label in zip(image_paths, label_paths, strict=True)):
        return images, None
    return images, _joined(label_paths).astype(np.int64)


def _joined(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """IDX files end to end; all must hold samples of one shape."""
    arrays = [read_idx(path) for path in paths]
    shape = arrays[0].shape[1:]
    for path, array in zip(paths, arrays, strict=True):
        if array.shape[1:] != shape:
            raise DataError(f"{path}: samples are {array.shape[1:]}, those of {paths[0].name} {shape}", field="data")
    return np.concatenate(arrays)


def _npz(path: Path) -> tuple[Samples, NDArray[np.int64] | None, tuple[str, ...] | None]:
    arrays = _arrays(path)
    if len(arrays.keys() & {"images", "samples"}) != 1:
        raise DataError(f"{path}: needs one of `images` and `samples`, holds {sorted(arrays)}", field="data")
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "Uiu"):
        raise DataError(f"{path}: class_names are {names.dtype} {names.shape}, must be [K] strings", field="data")
    class_names = None if names is None else tuple(str(name) for name in names)
    if "images" in arrays and arrays["images"].dtype != np.uint8:
        raise DataError(f"{path}: images are {arrays['images'].dtype}, must be uint8", field="data")
    if "samples" in arrays:
        if arrays["samples"].dtype.kind not in "fiu":
            raise DataError(f"{path}: samples are {arrays['samples'].dtype}, must be real numbers", field="data")
        return arrays["samples"].astype(np.float32), arrays.get("labels"), class_names
    return arrays["images"], arrays.get("labels"), class_names


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


def _dataset(
    name: str,
    samples: Samples,
    labels: NDArray[np.int64] | None,
    class_names: tuple[str, ...] | None,
    *,
    licence: str | None = None,
    indices: Mapping[SplitName, Indices] | None = None,
) -> Dataset:
    if samples.dtype == np.uint8 and samples.ndim == 3:
        samples = samples[..., None]
    kind: Kind = "image" if samples.dtype == np.uint8 else "vector"
    _check_samples(name, samples, kind)
    labels = None if labels is None else _checked_labels(name, labels, len(samples))
    if labels is not None and class_names is None:
        class_names = tuple(str(label) for label in range(int(labels.max()) + 1))
    if labels is not None and class_names is not None and labels.max() >= len(class_names):
        raise DataError(f"{name}: label {labels.max()} but {len(class_names)} class names", field="data")
    return Dataset(
        name=name, kind=kind, samples=samples, labels=labels, class_names=class_names if labels is not None else None,
        content_hash=_content_hash(samples, labels), licence=licence,
        indices=by_content(samples) if indices is None else indices,
    )  # fmt: skip


def _check_samples(name: str, samples: Samples, kind: Kind) -> None:
    if kind == "image" and (samples.ndim != 4 or samples.shape[3] not in (1, 3)):
        raise DataError(f"{name}: images are {samples.shape}, must be [N, H, W] or [N, H, W, 1 or 3]", field="data")
    if kind == "vector" and samples.ndim != 2:
        raise DataError(f"{name}: samples are {samples.shape}, must be [N, d]", field="data")
    if not len(samples) or 0 in samples.shape:
        raise DataError(f"{name}: holds no samples", field="data")
    if kind == "vector" and not np.isfinite(samples).all():
        raise DataError(f"{name}: some samples are not finite", field="data")


def _checked_labels(name: str, labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(f"{name}: labels are {labels.dtype} {labels.shape}, must be {count} integers", field="data")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise DataError(f"{name}: labels must be in 0 .. {MAX_CLASSES - 1}", field="data")
    return labels.astype(np.int64)


def _content_hash(samples: Samples, labels: NDArray[np.int64] | None) -> str:
    digest = hashlib.sha256(f"{samples.dtype.str} {samples.shape} {labels is not None}".encode())
    digest.update(np.ascontiguousarray(samples).data)
    if labels is not None:
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
