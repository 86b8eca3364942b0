"""How many samples go through a network in one run, so that large ones do not need all memory. Knows no files."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from models.generator import DTYPES, Samples
from models.latents import ClassIndices, Latents
from models.manifest import Signature

BATCH_SIZE = 250
MAX_BATCH_VALUES = 1 << 22  # sample values in one run, so that large images run in small batches


class Runs(Protocol):
    """What a generator is here."""

    @property
    def signature(self) -> Signature:
        """What it makes."""
        ...

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """N samples of z [N, z_dim]."""
        ...


def batches(count: int, shape: Sequence[int], limit: int | None = None) -> Iterator[slice]:
    """Consecutive slices that cover `count` samples of a shape, (H, W, C) or (d,), each small enough for one run.

    A network that needs much memory for each sample sets a lower limit than BATCH_SIZE.
    """
    size = max(1, min(limit or BATCH_SIZE, MAX_BATCH_VALUES // int(np.prod(shape))))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def generate_all(generator: Runs, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
    """What `generator.generate` makes of any number of latents, batch by batch.

    Args:
        generator: its samples must not depend on the batch that they run in: see models.opening.
        z: [N, z_dim] float32.
        class_idx: [N] int64 for a conditional generator.

    Returns:
        uint8 [N, H, W, C] for images, float32 [N, d] for vectors.
    """
    signature = generator.signature
    samples: Samples = np.empty((len(z), *signature.shape), DTYPES[signature.kind])
    for rows in batches(len(z), signature.shape):
        samples[rows] = generator.generate(z[rows], None if class_idx is None else class_idx[rows])
    return samples
