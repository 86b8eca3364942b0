"""Intervals of shares against the binomial distribution itself."""

import pytest
import scipy.stats

from models.binomial import share_of, upper_bound


def test_upper_bound_is_clopper_and_pearsons():
    """The bound is the share at which seeing so few has a chance of 5 %."""
    assert scipy.stats.binom.cdf(7, 500, upper_bound(7, 500)) == pytest.approx(0.05, rel=1e-9)
    assert upper_bound(500, 500) == 1.0


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 10), (7, 500), (500, 500)])
def test_two_sided_interval_is_scipys(count, total):
    """2.5 % on either side, all at the ends."""
    expected = scipy.stats.binomtest(count, total).proportion_ci(0.95)
    assert share_of(count, total) == pytest.approx((count / total, expected.low, expected.high), rel=1e-9)
