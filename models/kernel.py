"""The kernel distance (KID) between feature sets, unbiased, with its standard error. Knows no samples or extractors.

KID is the squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blocks import rows_per_block
from models.bounds import Spread, spread

Matrix = NDArray[np.float64]  # [N, d]
Vector = NDArray[np.float64]  # [N]

FEW = 4_000  # samples of a side that show how the variance grows: all of them take twice as long as KID itself


class KernelDistance(NamedTuple):
    """The unbiased estimate (it may be negative), its standard error and its bounds."""

    kid: float
    se: float
    spread: Spread


def kernel_distance(fake: NDArray[Any], real: NDArray[Any]) -> KernelDistance:
    """KID of features [N_g, d] against [N_r, d], at least 2 of each, over all pairs, in float64.

    Its variance has two parts (Hoeffding 1948): of first order in each sample's mean kernel with its own side less that
    with the other, and V of second order in the centred kernel, which alone is left where the distributions are equal.
    The first is estimated from means that vary by V's cause themselves, and so comes out too large by 2 V, and it grows
    with the estimate, which takes another look at some of the pairs (see models.bounds).
    Memory is bounded; time grows as N^2 d.
    """
    g, r = np.asarray(fake, np.float64), np.asarray(real, np.float64)
    between, within_g, within_r = _means(g, r), _means_within(g), _means_within(r)
    kid = within_g.rows.mean() + within_r.rows.mean() - 2 * between.rows.mean()
    influence_g, influence_r = 2 * (within_g.rows - between.rows), 2 * (within_r.rows - between.columns)
    first = influence_g.var() / len(g) + influence_r.var() / len(r)
    second = 2 * (
        _centred_square(within_g) / len(g) ** 2
        + _centred_square(within_r) / len(r) ** 2
        + 2 * _centred_square(between) / (len(g) * len(r))
    )
    biased = kid + within_g.excess / len(g) + within_r.excess / len(r)
    growth = _growth(g, r, influence_g - influence_g.mean(), influence_r - influence_r.mean())
    found = spread(float(kid), biased=float(biased), linear=float(first), quadratic=float(second), growth=growth)
    return KernelDistance(float(kid), found.se, found)


def _growth(g: Matrix, r: Matrix, influence_g: Vector, influence_r: Vector) -> float:
    """How fast the first-order variance grows with KID, between the samples as they are and weighted along their
    influences so that KID is a standard error larger; 0 where it does not grow. Seen on FEW of each side.
    """
    error = np.sqrt(influence_g.var() / len(g) + influence_r.var() / len(r))
    if not error > 0:
        return 0.0
    side_g, side_r = _side(g, influence_g, error), _side(r, influence_r, error)
    g_by_r, r_by_g = _carried(side_g.rows, side_r.rows, side_g.more, side_r.more)
    bent_g = _carried_within(side_g.rows, side_g.more) - g_by_r
    bent_r = _carried_within(side_r.rows, side_r.more) - r_by_g
    moved = varied = 0.0
    for side, bent in ((side_g, bent_g), (side_r, bent_r)):
        moved += float((side.more * (side.influence + bent)).mean())
        weights = np.maximum(1 + side.more, 0)
        weights /= weights.mean()
        then = side.influence + 2 * bent
        after = float((weights * (then - (weights * then).mean()) ** 2).mean())
        varied += (after - float(side.influence.var())) / side.total
    return max(0.0, varied / moved) if moved > 0 else 0.0


class _Side(NamedTuple):
    """Some samples [n, d] of one side, their influences [n], how much more each counts [n]; how many all are."""

    rows: Matrix
    influence: Vector
    more: Vector
    total: int


def _side(x: Matrix, influence: Vector, error: float) -> _Side:
    some = np.sort(np.random.RandomState(0).permutation(len(x))[:FEW])
    more = influence[some] / (len(x) * error)
    return _Side(x[some], influence[some], more - more.mean(), len(x))


def _carried(x: Matrix, y: Matrix, by_x: Vector, by_y: Vector) -> tuple[Vector, Vector]:  # [N, d], [M, d], [N], [M]
    """Means of the kernel of x with y, weighted by what belongs to the other side: of each row [N], each column [M]."""
    rows, columns = np.empty(len(x)), np.zeros(len(y))
    step = rows_per_block(len(y))
    for start in range(0, len(x), step):
        kernels = _kernel(x[start : start + step] @ y.T, x.shape[1])
        rows[start : start + step] = kernels @ by_y
        columns += by_x[start : start + step] @ kernels
    return rows / len(y), columns / len(x)


def _carried_within(x: Matrix, by: Vector) -> Vector:  # [N, d], [N] -> [N]
    """The same of each x with all others."""
    itself = _kernel((x**2).sum(1), x.shape[1])
    return np.asarray((_carried(x, x, by, by)[0] * len(x) - itself * by) / (len(x) - 1))


class _Means(NamedTuple):
    """Means of the kernel matrix: of each row [N], of each column [M], of squares; the diagonal's less the rest's."""

    rows: Vector
    columns: Vector
    squares: float
    excess: float = 0.0


def _means(x: Matrix, y: Matrix) -> _Means:  # [N, d], [M, d]
    """Of the kernel of all x with all y."""
    rows, columns, squares = np.empty(len(x)), np.zeros(len(y)), 0.0
    step = rows_per_block(len(y))
    for start in range(0, len(x), step):
        kernels = _kernel(x[start : start + step] @ y.T, x.shape[1])
        rows[start : start + step] = kernels.sum(1)
        columns += kernels.sum(0)
        squares += float(np.vdot(kernels, kernels))
    return _Means(rows / len(y), columns / len(x), squares / (len(x) * len(y)))


def _means_within(x: Matrix) -> _Means:  # [N, d]
    """Of the kernel of each x with all others."""
    whole, itself, others = _means(x, x), _kernel((x**2).sum(1), x.shape[1]), len(x) - 1
    rows = (whole.rows * len(x) - itself) / others
    squares = (whole.squares * len(x) - float((itself**2).mean())) / others
    return _Means(rows, rows, squares, float(itself.mean() - rows.mean()))


def _centred_square(means: _Means) -> float:
    """The mean square of the kernel less its rows' and columns' means."""
    mean = means.rows.mean()
    return max(0.0, means.squares - float((means.rows**2).mean() + (means.columns**2).mean()) + float(mean**2))


def _kernel(products: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """(x.y / d + 1)^3 from x.y, in place of it."""
    products /= dim
    products += 1
    square = products * products  # not **3: NumPy's general power is 50 times slower
    square *= products
    return square
