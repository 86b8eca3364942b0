"""The kernel distance (KID) between feature sets, unbiased, with its standard error. Knows no samples or extractors.

KID is the squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blocks import rows_per_block

Matrix = NDArray[np.float64]  # [N, d]
Vector = NDArray[np.float64]  # [N]


class KernelDistance(NamedTuple):
    """The unbiased estimate (it may be negative) and its standard error."""

    kid: float
    se: float


def kernel_distance(fake: NDArray[Any], real: NDArray[Any]) -> KernelDistance:
    """KID of features [N_g, d] against [N_r, d], at least 2 of each, over all pairs, in float64.

    The standard error comes from the first-order projection of the U-statistic: the spread of each sample's mean
    kernel with its own side less that with the other. Memory is bounded; time grows as N^2 d.
    """
    g, r = np.asarray(fake, np.float64), np.asarray(real, np.float64)
    to_real, to_fake = _means(g, r)
    within_g, within_r = _means_within(g), _means_within(r)
    kid = within_g.mean() + within_r.mean() - 2 * to_real.mean()
    variance = 4 * ((within_g - to_real).var() / len(g) + (within_r - to_fake).var() / len(r))
    return KernelDistance(float(kid), float(np.sqrt(variance)))


def _means(x: Matrix, y: Matrix) -> tuple[Vector, Vector]:  # [N, d], [M, d] -> [N], [M]
    """The mean kernel of each x with all y, and of each y with all x."""
    of_x, of_y = np.empty(len(x)), np.zeros(len(y))
    step = rows_per_block(len(y))
    for start in range(0, len(x), step):
        kernels = _kernel(x[start : start + step] @ y.T, x.shape[1])
        of_x[start : start + step] = kernels.sum(1)
        of_y += kernels.sum(0)
    return of_x / len(y), of_y / len(x)


def _means_within(x: Matrix) -> Vector:  # [N, d] -> [N]
    """The mean kernel of each x with all others."""
    with_all, _ = _means(x, x)
    return np.asarray((with_all * len(x) - _kernel((x**2).sum(1), x.shape[1])) / (len(x) - 1))


def _kernel(products: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """(x.y / d + 1)^3 from x.y, in place of it."""
    products /= dim
    products += 1
    square = products * products  # not **3: NumPy's general power is 50 times slower
    square *= products
    return square
