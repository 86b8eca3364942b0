"""Measures by nearest neighbours: precision, recall, density, coverage, near-duplicates and replayed training samples.

Knows no extractors: it compares rows of features or of pixels. Distance matrices are made block by block.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.binomial import Share, share_of, upper_bound
from models.blocks import rows_per_block

K_PRECISION = 3  # Kynkaanniemi et al. 2019
K_DENSITY = 5  # Naeem et al. 2020
REPLAY_QUANTILE = 0.005  # of held-out samples' distances to the training set
TWIN_QUANTILE = 0.005  # of reals' distances to their nearest other real
BASE_ROWS = 8192  # of a training set at once, in float32
CENTRED_BY = 10_000  # rows whose mean is taken off before distances, against cancellation

Rows = NDArray[np.float32]  # [N, d], or [B, M]
Distances = NDArray[np.float64]  # [N]
Indices = NDArray[np.int64]  # [N]


class Scores(NamedTuple):
    """How fakes cover reals and reals cover fakes, each in 0..1 but density, which has no upper end.

    None has a value free of the number of samples: compare only at the same numbers.
    """

    precision: float
    recall: float
    density: float
    coverage: float


class Replay(NamedTuple):
    """How many fakes lie nearer to the training set than held-out samples do.

    Args:
        share: of fakes within `distance` of a training sample; the expected share of honest fakes is 0.005.
        upper: one-sided 95 % upper bound of the share (Clopper & Pearson 1934).
        distance: the 0.5 % quantile of held-out samples' distances.
    """

    share: float
    upper: float
    distance: float


class Nearest(NamedTuple):
    """Of each query [N]: the distance to its nearest row, and which row that is."""

    distances: Distances
    rows: Indices


class Neighbourhood(NamedTuple):
    """What one pass over all distances tells.

    Args:
        scores: precision, recall, density, coverage.
        twins: share of fakes nearer to another fake than all but 0.5 % of the reals are to another real: about 0.005
            for a perfect generator, near 1 for a collapsed one. The interval is for this number of samples and this
            limit; since duplicates come in pairs it counts pairs.
    """

    scores: Scores
    twins: Share


def neighbour_scores(fake: NDArray[Any], real: NDArray[Any]) -> Scores:
    """Precision, recall, density and coverage alone; see `neighbourhood`."""
    return neighbourhood(fake, real).scores


def neighbourhood(fake: NDArray[Any], real: NDArray[Any]) -> Neighbourhood:
    """Precision and recall (k = 3), density and coverage (k = 5) of features [M, d] against [N, d].

    With B_k(x) the open ball round x that reaches to its k-th neighbour in its own set: precision is the share of
    fakes in some B_3(real), recall the share of reals in some B_3(fake), density 1/(5M) times the number of pairs with
    the fake in B_5(real), coverage the share of B_5(real) that hold a fake.
    Near-duplicates compare only at equal numbers of fakes and reals.

    Distances are compared in float32, whose error decides only between neighbours as far as rounding can tell; the
    nearest of each set is computed again in float64, so that copies are at 0. Memory: three blocks of 64 MiB beside
    the features in float32.

    Raises:
        ValueError: fewer than 6 of either.
    """
    if min(len(fake), len(real)) <= K_DENSITY:
        raise ValueError(f"{len(fake)} fakes and {len(real)} reals: more than {K_DENSITY} of each are needed")
    centre = np.asarray(real, np.float64).mean(0)  # keeps |x|^2 + |y|^2 - 2xy from cancelling
    g, r = ((np.asarray(side, np.float64) - centre).astype(np.float32) for side in (fake, real))
    real_1, (real_3, real_5) = _radii(r, (K_PRECISION, K_DENSITY))
    fake_1, (fake_3,) = _radii(g, (K_PRECISION,))
    precise = np.empty(len(g), bool)
    recalled, covered = np.zeros(len(r), bool), np.zeros(len(r), bool)
    pairs = 0
    for rows, squares in _square_distances(g, r):
        precise[rows] = (squares < real_3).any(1)
        recalled |= (squares < fake_3[rows, None]).any(0)
        inside = squares < real_5
        pairs += int(inside.sum())
        covered |= inside.any(0)
    scores = Scores(float(precise.mean()), float(recalled.mean()), pairs / (K_DENSITY * len(g)), float(covered.mean()))
    return Neighbourhood(scores, twins(fake_1, real_1))


def twins(fake: Distances, real: Distances) -> Share:
    """The near-duplicate share from each sample's distance, plain or squared, to its nearest other of its own set."""
    limit = np.quantile(real, TWIN_QUANTILE)
    count = int((fake <= limit).sum())
    bounds = share_of(-(-count // 2), len(fake) // 2)
    return Share(count / len(fake), bounds.low, bounds.high)


def nearest_distances(queries: NDArray[Any], base: NDArray[Any]) -> Distances:
    """Each query's distance to its nearest row of base: [N, d], [M, d] -> [N] float64; see `nearest`."""
    return nearest(queries, base).distances


def nearest(queries: NDArray[Any], base: NDArray[Any], *, besides: Indices | None = None) -> Nearest:
    """Each query's nearest row of base: [N, d], [M, d] -> [N].

    The neighbour is found in float32 and its distance computed again in float64. Of neighbours whose distances float32
    cannot tell apart any may be taken, so a copy is at exactly 0 only where nothing else is nearly as near.

    Args:
        queries: [N, d].
        base: [M, d].
        besides: [N] a row of base for each query that does not count: itself, where the queries are rows of base.
    """
    centre = np.asarray(base[:CENTRED_BY], np.float32).mean(0)
    rows_found = np.zeros(len(queries), np.int64)
    closest = np.full(len(queries), -np.inf, np.float32)
    for start in range(0, len(base), BASE_ROWS):
        y = np.asarray(base[start : start + BASE_ROWS], np.float32) - centre
        half_norms = (y * y).sum(1) / 2
        for rows in _slices(len(queries), rows_per_block(len(y), 4)):
            closeness = (np.asarray(queries[rows], np.float32) - centre) @ y.T  # (|x|^2 - |x - y|^2) / 2 after:
            closeness -= half_norms
            if besides is not None:
                here = np.flatnonzero((besides[rows] >= start) & (besides[rows] < start + len(y)))
                closeness[here, besides[rows][here] - start] = -np.inf
            found = closeness.argmax(1)
            best = closeness[np.arange(len(found)), found]
            rows_found[rows] = np.where(best > closest[rows], found + start, rows_found[rows])
            closest[rows] = np.maximum(best, closest[rows])
    distances = np.empty(len(queries))
    for rows in _slices(len(queries), rows_per_block(base.shape[1])):
        gap = np.asarray(queries[rows], np.float64) - np.asarray(base[rows_found[rows]], np.float64)
        distances[rows] = np.sqrt((gap * gap).sum(1))
    return Nearest(distances, rows_found)


def replay(fake: Distances, held_out: Distances) -> Replay:
    """The replay share from the distances of fakes and of held-out samples to the training set."""
    limit = float(np.quantile(held_out, REPLAY_QUANTILE))
    count = int((fake <= limit).sum())  # <=: where real sets repeat themselves the quantile is 0
    return Replay(count / len(fake), upper_bound(count, len(fake)), limit)


def exact_duplicates(fake: NDArray[Any], train: NDArray[Any]) -> NDArray[np.bool_]:
    """Which fakes [N, ...] have the bytes of a training sample [M, ...]: [N]."""
    known = set(_digests(train))
    return np.array([digest in known for digest in _digests(fake)], bool)


def _digests(samples: NDArray[Any]) -> Iterator[bytes]:
    return (hashlib.blake2b(sample.tobytes(), digest_size=16).digest() for sample in samples)


def _slices(count: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _radii(x: Rows, ks: tuple[int, ...]) -> tuple[Distances, list[Rows]]:  # [N, d] -> [N], [N] for each k
    """Each row's distance to its nearest other row, and its squared distances to the k-th nearest others."""
    nearest_one, radii = np.empty(len(x)), np.empty((len(ks), len(x)), np.float32)
    for rows, squares in _square_distances(x, x):
        squares[np.arange(len(squares)), np.arange(rows.start, rows.start + len(squares))] = np.inf  # not itself
        gap = x[rows].astype(np.float64) - x[squares.argmin(1)]
        nearest_one[rows] = np.sqrt((gap * gap).sum(1))
        squares.partition([k - 1 for k in ks], axis=1)
        radii[:, rows] = squares[:, [k - 1 for k in ks]].T
    return nearest_one, list(radii)


def _square_distances(x: Rows, y: Rows) -> Iterator[tuple[slice, Rows]]:
    """The squared distances of consecutive rows of x to all of y: slices with [B, M] arrays."""
    norms = (y * y).sum(1)
    for rows in _slices(len(x), rows_per_block(max(len(y), y.shape[1]), 4)):
        block = x[rows]
        squares = block @ y.T
        squares *= -2
        squares += norms
        squares += (block * block).sum(1)[:, None]
        yield rows, np.maximum(squares, 0, out=squares)
