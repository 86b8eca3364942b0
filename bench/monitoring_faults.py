"""Faults that a model may suffer while it is served, and what they do to the distance of fresh blocks.

Knows nothing of the monitor's test, nor of servers.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from bench.known_bad import Weights, changed, coarse
from models.baseline import Baseline, Meter
from models.extractors import Extractor
from models.generator import Generator
from models.latents import Latents, draw

CLAMPS, SCALES = (1.0, 0.6), (1.2,)
LEVELS = (33,)  # of weights that are rounded
RUN = 50  # samples at a time
FIRST = 0.05  # sd of a relative change to each weight, from which the one that is worth a given rise is looked for
STEPS, FACTOR = 5, 3.0  # of that search; by which a step changes it at most
JUDGED_BLOCKS = 3  # that each step looks at

Spoil = Callable[[Latents], Latents]


class Measured:
    """Blocks of a model, looked at as its baseline was made.

    Args:
        baseline: of the model.
        extractor: the baseline's.
    """

    def __init__(self, baseline: Baseline, extractor: Extractor) -> None:
        self.baseline = baseline
        self._extractor = extractor
        self._meter = Meter(baseline)

    def distances(self, generator: Generator, count: int, spoil: Spoil | None = None, *, seed: int = 0) -> list[float]:
        """Distances of so many blocks of samples; other seeds give other samples."""
        random = np.random.RandomState([seed, count])
        found = []
        for row in random.randint(0, 2**32, (count, self.baseline.block), np.uint32):
            z, class_idx = draw(generator.signature, row)
            z = z if spoil is None else spoil(z)
            parts = [
                generator.generate(z[i : i + RUN], None if class_idx is None else class_idx[i : i + RUN])
                for i in range(0, len(z), RUN)
            ]
            found.append(self._meter.distance(self._extractor.features(np.concatenate(parts))))
        return found

    def rise(self, distances: list[float], healthy: list[float]) -> float:
        """Of the mean distance over that of healthy blocks, as a share of the verdict's distance without bias."""
        return float(np.mean(distances) - np.mean(healthy)) / self.baseline.fd_inf

    def worth(self, model: bytes, rise: float, *, seed: int) -> tuple[bytes, float]:
        """The model with weights changed at random until its distance has risen so far, and the sd of the change.

        A small change raises the distance by its square, about; each step looks at the same latents. Of all that were
        looked at the one that came nearest.
        """
        by, healthy = FIRST, self.distances(Generator.from_bytes(model), JUDGED_BLOCKS)
        nearest, best = math.inf, by
        for _ in range(STEPS):
            faulty = changed(model, partial(disturbed, by, seed=seed))
            found = self.rise(self.distances(Generator.from_bytes(faulty), JUDGED_BLOCKS), healthy)
            if abs(found - rise) < nearest:
                nearest, best = abs(found - rise), by
            by *= min(FACTOR, math.sqrt(rise / max(found, rise / FACTOR**2)))
        return changed(model, partial(disturbed, best, seed=seed)), best


def latent_faults() -> dict[str, Spoil]:
    """By what they are called."""
    clamps: dict[str, Spoil] = {f"latents clamped at {limit}": partial(_clamped, limit) for limit in CLAMPS}
    return clamps | {f"latents times {by}": partial(_scaled, by) for by in SCALES}


def weight_faults(model: bytes) -> dict[str, bytes]:
    """A provider that computes too coarsely; by what it is called."""
    return {f"weights rounded to {levels} levels": changed(model, partial(coarse, levels)) for levels in LEVELS}


def disturbed(by: float, weights: Weights, *, seed: int = 0) -> Weights:
    """Memory that went bad: each weight times 1 + by * N(0, 1)."""
    return np.asarray(weights * (1 + by * np.random.RandomState(seed).standard_normal(weights.shape)))


def _clamped(limit: float, z: Latents) -> Latents:
    return np.clip(z, -limit, limit)


def _scaled(by: float, z: Latents) -> Latents:
    return (by * z).astype(np.float32)
