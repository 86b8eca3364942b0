"""What real data looks like to an extractor, computed once and kept by content hash. Knows no generators or thresholds.

Each split is kept in a file of its own, so that an evaluation on the validation split never opens the gate split.
"""

import contextlib
import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.datasets import Dataset, Split
from models.extractors import Extracted, Extractor, Progress
from models.files import replace_file
from models.regions import Regions
from models.sources import data_root
from models.splits import SplitName

FORMAT = 2
log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
Stage = Callable[[str, int], Progress]  # (what is done, how many samples) -> called with samples done


class RealFeatures:
    """A data set as an extractor sees it: features and recognised classes of each split, made when first asked for.

    Args:
        dataset: the real data.
        extractor: it takes the data set's samples.
        cache: folder for what was computed; None keeps nothing on disk.
    """

    def __init__(self, dataset: Dataset, extractor: Extractor, *, cache: Path | None = None) -> None:
        extractor.check_shape(dataset.kind, dataset.shape)
        self.dataset = dataset
        self.extractor = extractor
        self._cache = cache
        self._splits: dict[SplitName, Split] = {}
        self._extracted: dict[SplitName, Extracted] = {}

    @property
    def hash(self) -> str:
        """sha256 of data and extractor: verdicts over one reference compare, others do not."""
        return hashlib.sha256(f"{self.dataset.content_hash} {self.extractor.digest}".encode()).hexdigest()

    @property
    def knows_classes(self) -> bool:
        """Whether the extractor recognises this very data set's classes."""
        return self.dataset.labels is not None and self.extractor.classes == self.dataset.class_names

    @cached_property
    def regions(self) -> Regions | None:
        """Of the training split, for vectors; images have none."""
        return Regions(np.asarray(self.split("train").samples, np.float32)) if self.dataset.kind == "vector" else None

    def split(self, name: SplitName) -> Split:
        """The samples of a split."""
        if name not in self._splits:
            self._splits[name] = self.dataset.split(name)
        return self._splits[name]

    def extracted(self, name: SplitName, stage: Stage | None = None) -> Extracted:
        """Features and recognised classes of a split: from memory, from the cache, or computed and kept."""
        if name not in self._extracted:
            split = self.split(name)

            def extract() -> Arrays:
                progress = stage(f"features of the {name} split", len(split.samples)) if stage else None
                found = self.extractor.extract(split.samples, progress)
                return {key: array for key, array in found._asdict().items() if array is not None}

            keys = ("features", "class_idx", "probabilities") if self.extractor.classes is not None else ("features",)
            kept = self.kept("features", (name,), keys, extract, shape=(len(split.samples), self.extractor.dim))
            self._extracted[name] = Extracted(kept["features"], kept.get("class_idx"), kept.get("probabilities"))
        return self._extracted[name]

    def kept(
        self,
        what: str,
        splits: Sequence[SplitName],
        keys: Sequence[str],
        make: Callable[[], Arrays],
        *,
        shape: tuple[int, ...] | None = None,
    ) -> Arrays:
        """Arrays that follow from the reals alone: from the cache, or made and kept.

        Args:
            what: they are, with every number that decides them; it begins the file's name.
            splits: that they are made of.
            keys: of the arrays.
            make: makes them.
            shape: that the first must have.
        """
        path = self._path(what, splits)
        found = _read(path, keys, shape) if path is not None else None
        if found is None:
            found = make()
            if path is not None:
                _write(path, found)
        return found

    def _path(self, what: str, splits: Sequence[SplitName]) -> Path | None:
        """The cache file; its name covers all that decides its content."""
        if self._cache is None:
            return None
        key = hashlib.sha256(f"{FORMAT} {self.hash} {what} {' '.join(splits)} ".encode())
        for name in splits:
            key.update(np.ascontiguousarray(self.dataset.indices[name]).tobytes())
        subject = splits[0] if what == "features" else what.split()[0]
        return self._cache / f"{self.extractor.name}-{subject}-{key.hexdigest()[:32]}.npz"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where features are kept: cache/, beside the data sets."""
    return data_root(environment) / "cache"


def _checksum(arrays: Arrays) -> NDArray[np.uint8]:  # [32]
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: Path, keys: Sequence[str], shape: tuple[int, ...] | None) -> Arrays | None:
    """What a cache file holds; None where there is none, or where it is damaged: it is then made anew."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in keys}
            whole = np.array_equal(archive["checksum"], _checksum(arrays))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s is damaged (%s) and is made anew", path, error)
        return None
    if not whole or (shape is not None and arrays[keys[0]].shape != shape):
        log.warning("%s is damaged (its checksum differs) and is made anew", path)
        return None
    return arrays


def _write(path: Path, arrays: Arrays) -> None:
    """Keep arrays; a cache that cannot be written is no reason to stop."""
    buffer = io.BytesIO()
    everything: dict[str, Any] = {"checksum": _checksum(arrays), **arrays}
    np.savez(buffer, **everything)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, buffer.getvalue())
