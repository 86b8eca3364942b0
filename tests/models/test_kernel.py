"""KID against its definition, written out pair by pair."""

import numpy as np
import pytest

from models import blocks, kernel
from models.kernel import kernel_distance


def by_definition(x, y):
    """The unbiased MMD^2, one pair at a time."""

    def k(a, b):
        return (np.dot(a, b) / len(a) + 1) ** 3

    def within(z):
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


def sets(seed, n=12, m=9, shift=0.4):
    random = np.random.RandomState(seed)
    return random.standard_normal((n, 5)) + shift, random.standard_normal((m, 5))


def test_agrees_with_the_definition():
    """Sums over blocks equal the definition over pairs."""
    x, y = sets(0)
    assert kernel_distance(x, y).kid == pytest.approx(by_definition(x, y), rel=1e-10)


def test_blocks_do_not_change_it(monkeypatch):
    """The same value row by row as in one block."""
    x, y = sets(3, n=60, m=80)
    whole = kernel_distance(x, y)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    again = kernel_distance(x, y)
    assert again[:2] == pytest.approx(whole[:2], rel=1e-9)
    assert again.spread == pytest.approx(whole.spread, rel=1e-9)


def weighted(x, y, u, v):
    """KID and the variance of its linear part where pair i, j counts by both weights (of mean 1)."""

    def k(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def within(a, by):
        return (k(a, a) * by).sum(1) - np.diag(k(a, a)) * by

    in_x, in_y = within(x, u) / (len(x) - 1), within(y, v) / (len(y) - 1)
    between = k(x, y) @ v / len(y), k(x, y).T @ u / len(x)
    linear = 2 * (in_x - between[0]), 2 * (in_y - between[1])
    variance = sum(np.cov(one, aweights=by, ddof=0) / len(by) for one, by in zip(linear, (u, v), strict=True))
    return (u * in_x).mean() + (v * in_y).mean() - 2 * (u * between[0]).mean(), variance, linear


def test_the_growth_of_the_variance_is_that_between_two_weightings():
    """Samples count by 1 + their influence over N standard errors: KID and its variance by definition, twice."""
    x, y = sets(3, n=60, m=80)
    kid, variance, linear = weighted(x, y, np.ones(len(x)), np.ones(len(y)))
    more = [1 + (one - one.mean()) / (len(one) * np.sqrt(variance)) for one in linear]
    heavier, larger, _ = weighted(x, y, *more)
    found = kernel_distance(x, y)
    assert kid == pytest.approx(found.kid)
    assert heavier > kid
    noise = np.sqrt(1 - 2 * found.spread.quadratic / variance)
    assert found.spread.growth == pytest.approx(noise * (larger - variance) / (heavier - kid), rel=1e-6)


def test_some_samples_show_the_growth_of_many(monkeypatch):
    """Of half of them it comes out alike."""
    x, y = sets(4, n=1200, m=1000, shift=0.8)
    whole = kernel_distance(x, y).spread
    monkeypatch.setattr(kernel, "FEW", 600)
    some = kernel_distance(x, y).spread
    assert some[:3] == whole[:3]
    assert whole.growth > whole.slope
    assert some.growth == pytest.approx(whole.growth, rel=0.25)


def test_is_unbiased_and_its_error_is_the_spread():
    """Over 150 pairs of equal distributions the mean is 0; of unequal ones the standard error is the spread."""
    equal = np.array([kernel_distance(*sets(i, 40, 40, shift=0)).kid for i in range(150)])
    assert abs(equal.mean()) < 3 * equal.std() / np.sqrt(len(equal))
    unequal = [kernel_distance(*sets(i, 100, 100, shift=0.8)) for i in range(100)]
    assert np.mean([u.se for u in unequal]) == pytest.approx(np.std([u.kid for u in unequal]), rel=0.3)


def test_intervals_hold_where_the_distributions_are_equal():
    """Of 200 pairs 92 to 98 % of the two-sided intervals cover 0, and 92 % of the upper bounds."""
    found = [kernel_distance(*sets(i, 60, 90, shift=0)) for i in range(200)]
    assert 0.92 <= np.mean([one.spread.bound(-1.96) <= 0 <= one.spread.bound(1.96) for one in found]) <= 0.98
    assert np.mean([one.spread.bound(1.645) >= 0 for one in found]) >= 0.92
    spread = np.std([one.kid for one in found])
    assert np.sqrt(np.mean([one.spread.quadratic for one in found])) == pytest.approx(spread, rel=0.2)
