"""k-means in float32, the same every time. Knows nothing of what the rows mean.

Starts as k-means++ does (Arthur & Vassilvitskii 2007), goes on as Lloyd does until few rows move.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.blocks import rows_per_block

MAX_ROUNDS = 30
SETTLED = 0.001  # of the rows may still move

Rows = NDArray[np.float32]  # [N, d]
Indices = NDArray[np.int64]  # [N]


def k_means(rows: NDArray[Any], num_clusters: int, *, seed: int = 0) -> Rows:
    """The centres [K, d] of rows [N, d], N >= K >= 1. A cluster that loses all rows keeps its centre."""
    x = np.asarray(rows, np.float32)
    middle = x.mean(0)
    x = x - middle  # keeps |x|^2 + |y|^2 - 2xy from cancelling
    centres = _spread(x, num_clusters, np.random.RandomState(seed))
    members = np.full(len(x), -1, np.int64)
    for _ in range(MAX_ROUNDS):
        before, members = members, nearest_centre(x, centres)
        if np.mean(before != members) <= SETTLED:
            break
        counts = np.bincount(members, minlength=num_clusters)
        order = np.argsort(members, kind="stable")
        filled = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
        centres[filled] = np.add.reduceat(x[order], starts, axis=0) / counts[filled, None]
    return np.asarray(centres + middle, np.float32)


def nearest_centre(rows: NDArray[Any], centres: Rows) -> Indices:
    """The index of the centre [K, d] that is nearest to each row [N, d]."""
    middle = centres.mean(0)
    y = centres - middle
    half_norms = (y * y).sum(1) / 2
    found = np.empty(len(rows), np.int64)
    step = rows_per_block(max(len(centres), rows.shape[1]), 4)
    for start in range(0, len(rows), step):
        block = np.asarray(rows[start : start + step], np.float32) - middle
        found[start : start + step] = (block @ y.T - half_norms).argmax(1)
    return found


def _spread(x: Rows, num_clusters: int, random: np.random.RandomState) -> Rows:
    """First centres: each a row drawn with chances as the squared distance to the nearest one so far."""
    centres = np.empty((num_clusters, x.shape[1]), np.float32)
    centres[0] = x[random.randint(len(x))]
    norms = (x * x).sum(1)
    squares = np.full(len(x), np.inf)
    for k in range(1, num_clusters):
        last = centres[k - 1]
        squares = np.minimum(squares, np.maximum(norms + last @ last - 2 * (x @ last), 0))
        total = squares.sum()
        chosen = random.choice(len(x), p=squares / total) if total > 0 else random.randint(len(x))
        centres[k] = x[chosen]
    return centres
