"""Looks at samples with the feature extractor of a model's reference. Knows no requests, tests or decisions.

Extractors are opened when they are first needed, once for each file, each with one thread; what they see is computed
on one thread of its own, at the engines' priority: at a lower one it could hold Python's lock while it is not run.
"""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from models.baseline import VARIANT_LOSS, Baseline, Meter, decode, extractor_of
from models.extractors import Extractor, Features
from models.generator import Samples
from models.repository import Repository
from models.variants import find_variant
from serving.batcher import give_way
from serving.loading import LiveModel


class Lens(NamedTuple):
    """What one version is looked at through."""

    extractor: Extractor
    meter: Meter
    loss: float  # of Tr R, by which what runs may be worse than what was judged: a variant's

    @property
    def baseline(self) -> Baseline:
        """What is expected of it."""
        return self.meter.baseline


class Inspector:
    """Opens lenses, and looks through them.

    Args:
        repository: where baselines lie, and extractors besides those that ship.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._extractors: dict[str, Extractor] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inspector", initializer=give_way)

    async def open(self, model: LiveModel) -> Lens | None:
        """The lens of a version; None where its verdict has no baseline.

        Raises:
            GenserveError: its baseline or extractor is damaged, or gone.
        """
        if model.verdict is None or model.verdict.baseline is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._opened, model)

    async def look(self, lens: Lens, samples: Samples) -> Features:
        """The features of samples: [N, ...] to [N, D]."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lens.extractor.features, samples)

    async def distance(self, lens: Lens, features: Sequence[Features]) -> float:
        """Of a block's features, piece by piece, to the real samples."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lens.meter.distance, *features)

    def keep(self, used: Iterable[str]) -> None:
        """Let go of extractors with other digests than these."""
        for digest in self._extractors.keys() - set(used):
            del self._extractors[digest]

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # On its thread.

    def _opened(self, model: LiveModel) -> Lens:
        assert model.verdict is not None  # noqa: S101 for the type checker: `open` has looked
        baseline = decode(self._repository.baseline(model.version, model.verdict))
        digest = baseline.extractor_manifest.digest
        extractor = self._extractors.get(digest)
        if extractor is None:
            extractor = self._extractors[digest] = extractor_of(baseline, self._repository.root)
        extractor.check_shape(model.manifest.kind, model.manifest.shape)
        return Lens(extractor, Meter(baseline), _loss(model, extractor.label))


def _loss(model: LiveModel, label: str) -> float:
    if model.variant is None:
        return 0.0
    measured = find_variant(model.version, model.variant).verdict().loss(label)
    return VARIANT_LOSS if measured is None else measured
