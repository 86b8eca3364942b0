"""The kernel distance (KID) between feature sets, unbiased, with its standard error. Knows no samples or extractors.

KID is the squared maximum mean discrepancy under k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blocks import rows_per_block


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
    within_g, within_r = _means(g, g, exclude_self=True), _means(r, r, exclude_self=True)
    to_real, to_fake = _means(g, r), _means(r, g)
    kid = within_g.mean() + within_r.mean() - 2 * to_real.mean()
    variance = 4 * ((within_g - to_real).var() / len(g) + (within_r - to_fake).var() / len(r))
    return KernelDistance(float(kid), float(np.sqrt(variance)))


def _means(x: NDArray[np.float64], y: NDArray[np.float64], *, exclude_self: bool = False) -> NDArray[np.float64]:
    """The mean kernel of each x with all y: [N, d], [M, d] -> [N]; without itself where x and y are one set."""
    sums = np.empty(len(x))
    step = rows_per_block(len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        sums[rows] = _kernel(x[rows] @ y.T, x.shape[1]).sum(1)
    if not exclude_self:
        return sums / len(y)
    return np.asarray((sums - _kernel((x**2).sum(1), x.shape[1])) / (len(y) - 1))


def _kernel(products: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    base = products / dim + 1
    return np.asarray(base * base * base)  # not **3: NumPy's general power is 50 times slower
