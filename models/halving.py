"""Balanced half and quarter samples of one data set, from sums over groups of its rows. Knows no measures.

The rows are dealt into G = 2^k groups. Half-splits are the G - 1 contrasts of a Hadamard matrix (McCarthy 1969): any
two groups are as often together as any others, so means over the splits are those over all splits of the groups.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blocks import rows_per_block

Matrix = NDArray[np.float64]  # [d, d]
Vector = NDArray[np.float64]  # [d]

GENERATORS = {2: 0b111, 4: 0b10011, 5: 0b100101}  # primitive polynomials over GF(2), by k
ROWS = 4096  # turned into float64 at once


class Moments(NamedTuple):
    """Of a set of n features: mean [d], unbiased covariance [d, d]."""

    n: int
    mean: Vector
    covariance: Matrix


class Design(NamedTuple):
    """Which groups make which parts.

    Args:
        halves: [G - 1, 2, G], each split's two halves.
        quarters: [L, 4, G], each quartering's four quarters.
        halvings: [L, 3], the half-splits that each quartering is made of.
    """

    halves: NDArray[np.bool_]
    quarters: NDArray[np.bool_]
    halvings: NDArray[np.int64]


def design(k: int, num_quarterings: int) -> Design:
    """All balanced half-splits of 2^k groups (k of 2, 4, 5), and at most so many quarterings.

    Groups are numbered by k bits; a half-split goes by the parity of some of the bits. Two splits and their product
    make a quartering; for even k the quarterings share no splits, being the lines of a spread.
    """
    count = 1 << k
    parity = np.array([bin(i).count("1") & 1 for i in range(count)], bool)
    numbers = np.arange(count)
    powers = _powers(k)
    step = (count - 1) // 3 if k % 2 == 0 else 1
    pairs = [(powers[i], powers[i + step]) for i in range(step if k % 2 == 0 else len(powers) - 1)][:num_quarterings]
    halves = np.stack([np.stack([~parity[numbers & s], parity[numbers & s]]) for s in range(1, count)])
    quarters = np.empty((len(pairs), 4, count), bool)
    for line, (s, t) in enumerate(pairs):
        quarters[line] = [halves[s - 1, i] & halves[t - 1, j] for i in (0, 1) for j in (0, 1)]
    halvings = np.reshape([(s - 1, t - 1, (s ^ t) - 1) for s, t in pairs], (-1, 3)).astype(np.int64)
    return Design(halves, quarters, halvings)


class Groups:
    """Sums over groups of rows, from which the moments of any union of groups follow.

    Args:
        rows: [N, d], N >= number of groups.
        basis: [d, m] that covariances are taken in; None for the rows' own.
        num_groups: G.
        seed: of the deal.
    """

    def __init__(self, rows: NDArray[Any], basis: Matrix | None, num_groups: int, *, seed: int) -> None:
        mean: Vector = np.asarray(np.mean(rows, 0, dtype=np.float64))
        self.mean: Vector = mean if basis is None else np.asarray(mean @ basis)
        parts = np.array_split(np.random.RandomState(seed).permutation(len(rows)), num_groups)
        dim = len(self.mean)
        self._counts = np.array([len(part) for part in parts])
        self._sums = np.zeros((num_groups, dim))
        self._scatters = np.zeros((num_groups, dim * dim))
        for i, part in enumerate(parts):
            for start in range(0, len(part), ROWS):
                x = np.asarray(rows[part[start : start + ROWS]], np.float64) - mean
                x = x if basis is None else x @ basis
                self._sums[i] += x.sum(0)
                self._scatters[i] += (x.T @ x).ravel()

    def moments(self, parts: NDArray[np.bool_]) -> Iterator[Moments]:
        """Of the rows of each part [P, G], a choice of groups."""
        dim = len(self.mean)
        step = rows_per_block(dim * dim)
        for start in range(0, len(parts), step):
            chosen = parts[start : start + step].astype(np.float64)
            for n, total, scatter in zip(
                chosen @ self._counts, chosen @ self._sums, chosen @ self._scatters, strict=True
            ):
                shift = total / n
                covariance = (scatter.reshape(dim, dim) - n * np.outer(shift, shift)) / (n - 1)
                yield Moments(round(n), self.mean + shift, covariance)


def _powers(k: int) -> list[int]:
    """All elements but 0 of the field of 2^k elements, as powers of a generator."""
    found = [1]
    while len(found) < (1 << k) - 1:
        following = found[-1] << 1
        found.append(following ^ GENERATORS[k] if following >> k else following)
    return found
