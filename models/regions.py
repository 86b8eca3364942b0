"""Divides the space of a set of vectors into regions and counts samples in them. Knows no generators and no thresholds.

Vectors have no classes that an extractor could recognise, and a distance hardly sees one lost mode of 25; the regions'
shares see it (Richardson & Weiss 2018, "On GANs and GMMs", section 3).
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.standardising import Standardisation, Vectors, standardisation

SEED = 0
PER_REGION = 1600  # training samples, so that a gate split an eighth as large has 200
MAX_REGIONS = 50
FITTED_PER_REGION = 200
ROUNDS = 20  # of Lloyd's algorithm
NAMED_DIMENSIONS = 4  # a region of more is called by its number

Counts = NDArray[np.int64]  # [regions]


class Regions:
    """The cells nearest to each of k centres that k-means finds in standardised vectors, begun as k-means++.

    The same vectors always give the same regions.

    Args:
        samples: the training split, [N, d] float32.
    """

    def __init__(self, samples: Vectors) -> None:
        stream = np.random.RandomState(SEED)
        count = max(1, min(MAX_REGIONS, len(samples) // PER_REGION))
        chosen = samples[np.sort(stream.permutation(len(samples))[: max(1, count * FITTED_PER_REGION)])]
        self._standard: Standardisation = standardisation(samples)
        self._centres = _k_means(self._standard.apply(chosen).astype(np.float64), count, stream)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a person calls each region: its centre in the data's units, or its number."""
        centres = self._standard.undo(self._centres.astype(np.float32))
        if centres.shape[1] > NAMED_DIMENSIONS:
            return tuple(f"number {i}" for i in range(len(centres)))
        return tuple(f"round ({', '.join(f'{value:.3g}' for value in centre)})" for centre in centres)

    def counts(self, samples: NDArray[Any]) -> Counts:
        """How many of samples [N, d] lie in each region; those that are not finite lie in none."""
        rows = self._standard.apply(np.asarray(samples, np.float32))
        _, nearest = cKDTree(self._centres).query(rows[np.isfinite(rows).all(1)])
        return np.bincount(nearest, minlength=len(self._centres)).astype(np.int64)


def _k_means(rows: NDArray[np.float64], count: int, stream: np.random.RandomState) -> NDArray[np.float64]:
    """At most `count` centres of rows [N, d], fewer where fewer rows differ (Arthur & Vassilvitskii 2007; Lloyd)."""
    centres = rows[[stream.randint(len(rows))]]
    squares = ((rows - centres[0]) ** 2).sum(1)
    while len(centres) < count and squares.sum() > 0:
        centres = np.vstack([centres, rows[stream.choice(len(rows), p=squares / squares.sum())]])
        squares = np.minimum(squares, ((rows - centres[-1]) ** 2).sum(1))
    for _ in range(ROUNDS):
        _, nearest = cKDTree(centres).query(rows)
        counts = np.bincount(nearest, minlength=len(centres))
        sums = np.stack([np.bincount(nearest, column, len(centres)) for column in rows.T], axis=1)
        centres = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return centres
