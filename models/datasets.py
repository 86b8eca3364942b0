"""Data sets as arrays in memory, with their splits and content hash. Knows nothing of networks or measures.

A data set is named (models.sources), or it is a folder of images, a folder of IDX files, an IDX file, an .npz or a CSV.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from models.folder import read_folder
from models.idx import read_idx
from models.idx_folder import holds_idx, read_idx_folder
from models.inventory import MAX_SKIPPED_SHARE, Inventory, Read, complete
from models.manifest import Kind
from models.mixtures import Mixture
from models.npz import read_npz
from models.sources import SOURCES, AnySource, Source, Stacked, locate
from models.splits import Indices, Samples, Split, SplitName, by_position
from models.splitting import by_content
from models.stacked import stack
from models.table import SUFFIXES as TABLES
from models.table import read_csv

__all__ = ["Dataset", "Split", "is_image_folder", "load_dataset"]

NUM_TRAIN, NUM_VALIDATION, NUM_GATE = 55_000, 5_000, 10_000  # of the MNIST family
NUM_DRAWN = (80_000, 10_000, 10_000)  # of a mixture: independent samples need no grouping
OURS = "Apache-2.0"  # what this program computes
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
        inventory: what was read, for a person to see before anything is done with it.
    """

    name: str
    kind: Kind
    samples: Samples
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    content_hash: str
    licence: str | None
    indices: Mapping[SplitName, Indices]
    inventory: Inventory

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (H, W, C) or (d,)."""
        return tuple(self.samples.shape[1:])

    def split(self, name: SplitName) -> Split:
        """One of the splits "train", "validation" and "gate", as a copy."""
        indices = self.indices[name]
        labels = None if self.labels is None else self.labels[indices]
        return Split(samples=self.samples[indices], labels=labels, indices=indices)


def load_dataset(
    spec: str,
    *,
    resolution: int | None = None,
    max_skipped: float = MAX_SKIPPED_SHARE,
    sources: Mapping[str, AnySource] = SOURCES,
) -> Dataset:
    """Read a data set into memory.

    Args:
        spec: a name in `sources`, or the path of a folder of images (subfolders are classes), of a folder with IDX
            files, of an IDX file, of an .npz (models.npz.read_npz) or of a CSV file of numbers (models.table.read_csv).
        resolution: of a folder of images, in pixels; see models.folder.read_folder.
        max_skipped: the largest share of a folder's images that may be broken, and are then left out.
        sources: the named data sets.

    Raises:
        DataError: there is no such data, or it is not of the expected form.
        Unavailable: a named data set is neither here nor to be downloaded.
    """
    if spec in sources:
        return _named(spec, sources)
    path = Path(spec)
    if is_image_folder(spec, sources):
        return _dataset(spec, read_folder(path, resolution, max_skipped=max_skipped))
    if path.is_dir():
        read, indices = read_idx_folder(path)
        return _dataset(spec, read, indices=indices)
    if not path.is_file():
        raise DataError(f"{spec!r} is neither a file, a folder, nor one of {', '.join(sources)}", field="data")
    return _dataset(spec, READERS.get(path.suffix.lower(), _idx_file)(path))


def is_image_folder(spec: str, sources: Mapping[str, AnySource] = SOURCES) -> bool:
    """Whether a data set is a folder of images, which alone have sizes of their own, and may be broken one by one."""
    return spec not in sources and Path(spec).is_dir() and not holds_idx(Path(spec))


def _named(name: str, sources: Mapping[str, AnySource]) -> Dataset:
    source = sources[name]
    if isinstance(source, Mixture):
        fact = f"{len(source.centres)} Gaussians of variance {source.variance:g}"
        read = Read(source.draw(sum(NUM_DRAWN)), None, None, Inventory(form=name, facts=(fact,)))
        return _dataset(name, read, licence=OURS, indices=by_position(*NUM_DRAWN))
    if isinstance(source, Stacked):
        single = _named(source.of, sources)
        assert single.labels is not None  # noqa: S101 - the MNIST family has them
        stacks, _, indices = stack(np.asarray(single.samples, np.uint8), single.labels, single.indices)
        facts = (f"three {source.of} images as red, green and blue; unlabelled, as its 1000 modes are counted",)
        read = Read(stacks, None, None, Inventory(form=name, facts=facts))
        return _dataset(name, read, licence=single.licence, indices=indices)
    return _published(name, source)


def _published(name: str, source: Source) -> Dataset:
    """Of the MNIST family."""
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in locate(name, source))
    samples = np.concatenate([train_images, test_images])[..., None]
    labels = np.concatenate([train_labels, test_labels]).astype(np.int64)
    read = Read(samples, labels, source.class_names, Inventory(form=name))
    indices = by_position(NUM_TRAIN, NUM_VALIDATION, NUM_GATE)
    return _dataset(name, read, licence=source.licence, indices=indices)


def _idx_file(path: Path) -> Read:
    return Read(read_idx(path), None, None, Inventory(form="an IDX file"))


READERS: Mapping[str, Callable[[Path], Read]] = {".npz": read_npz, **dict.fromkeys(TABLES, read_csv)}  # else IDX


def _dataset(
    name: str, read: Read, *, licence: str | None = None, indices: Mapping[SplitName, Indices] | None = None
) -> Dataset:
    samples, labels, class_names, inventory = read
    if samples.dtype == np.uint8 and samples.ndim == 3:
        samples = samples[..., None]
    kind: Kind = "image" if samples.dtype == np.uint8 else "vector"
    _check_samples(name, samples, kind)
    labels = None if labels is None else _checked_labels(name, labels, len(samples))
    if labels is not None and class_names is None:
        class_names = tuple(str(label) for label in range(int(labels.max()) + 1))
    if labels is not None and class_names is not None and labels.max() >= len(class_names):
        raise DataError(f"{name}: label {labels.max()} but {len(class_names)} class names", field="data")
    if labels is None:
        class_names = None
    indices = by_content(samples) if indices is None else indices
    return Dataset(
        name=name, kind=kind, samples=samples, labels=labels, class_names=class_names,
        content_hash=_content_hash(samples, labels), licence=licence, indices=indices,
        inventory=complete(inventory, samples, labels, class_names, indices),
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
