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


class KernelDistance(NamedTuple):
    """The unbiased estimate (it may be negative), its standard error and its bounds."""

    kid: float
    se: float
    spread: Spread


def kernel_distance(fake: NDArray[Any], real: NDArray[Any]) -> KernelDistance:
    """KID of features [N_g, d] against [N_r, d], at least 2 of each, over all pairs, in float64.

    Its variance has two parts (Hoeffding 1948): of first order in each sample's mean kernel with its own side less that
    with the other, and V of second order in the centred kernel, which alone is left where the distributions are equal.
    The first is estimated from means that vary by V's cause themselves, and so comes out too large by 2 V.
    Memory is bounded; time grows as N^2 d.
    """
    g, r = np.asarray(fake, np.float64), np.asarray(real, np.float64)
    between, within_g, within_r = _means(g, r), _means_within(g), _means_within(r)
    kid = within_g.rows.mean() + within_r.rows.mean() - 2 * between.rows.mean()
    first = 4 * ((within_g.rows - between.rows).var() / len(g) + (within_r.rows - between.columns).var() / len(r))
    second = 2 * (
        _centred_square(within_g) / len(g) ** 2
        + _centred_square(within_r) / len(r) ** 2
        + 2 * _centred_square(between) / (len(g) * len(r))
    )
    biased = kid + within_g.excess / len(g) + within_r.excess / len(r)
    found = spread(float(kid), biased=float(biased), linear=float(first), quadratic=float(second))
    return KernelDistance(float(kid), found.se, found)


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
