"""Balanced half and quarter samples: the design is balanced, and its moments are those of the rows."""

from itertools import pairwise

import numpy as np
import pytest

from models import blocks
from models.halving import Groups, design


@pytest.mark.parametrize("k", [2, 4, 5])
def test_half_splits_are_balanced(k):
    """Two halves of equal size make all groups, and any two groups are together in the same number of splits."""
    halves = design(k, 1).halves
    assert halves.shape == ((1 << k) - 1, 2, 1 << k)
    assert (halves.sum(2) == 1 << (k - 1)).all()
    assert (halves.sum(1) == 1).all()
    signs = halves[:, 0] * 2.0 - 1
    assert (signs.T @ signs == np.full((1 << k, 1 << k), -1) + (1 << k) * np.eye(1 << k)).all()


@pytest.mark.parametrize("k", [2, 4, 5])
def test_quarters_are_quarters_of_their_halves(k):
    """Each of a quartering's half-splits is made of pairs of its quarters; for even k no two share a half-split."""
    plan = design(k, 99)
    for quarters, splits in zip(plan.quarters, plan.halvings, strict=True):
        assert (quarters.sum(1) == 1 << (k - 2)).all()
        assert (quarters.sum(0) == 1).all()
        for split in splits:
            assert all((q & ~half).any() ^ (q & half).any() for q in quarters for half in plan.halves[split])
    if k % 2 == 0:
        assert len(set(plan.halvings.ravel())) == plan.halvings.size


@pytest.mark.parametrize("block_bytes", [1, 64 << 20])
def test_moments_are_those_of_the_rows(monkeypatch, block_bytes):
    """Of all groups and of halves, in a basis too, from means far from 0."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
    rows = np.random.RandomState(0).standard_normal((101, 3)) + 1000
    basis = np.linalg.qr(np.random.RandomState(1).standard_normal((3, 3)))[0]
    order = np.array_split(np.random.RandomState(5).permutation(101), 4)
    parts = np.concatenate([np.ones((1, 4), bool), design(2, 0).halves[1]])
    for part, found in zip(parts, Groups(rows, basis, 4, seed=5).moments(parts), strict=True):
        chosen = rows[np.concatenate([group for group, kept in zip(order, part, strict=True) if kept])] @ basis
        assert found.n == len(chosen)
        assert found.mean == pytest.approx(chosen.mean(0))
        assert found.covariance == pytest.approx(np.cov(chosen, rowvar=False), rel=1e-7)


def test_groups_are_of_all_but_equal_size():
    """Halves of N rows differ by no more than one row for each pair of groups."""
    sizes = [part.n for part in Groups(np.eye(30), None, 4, seed=0).moments(design(2, 0).halves.reshape(-1, 4))]
    assert all(abs(a - b) <= 2 for a, b in pairwise(sizes))
