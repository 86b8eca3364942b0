"""Score bounds against their definition."""

import numpy as np
import pytest

from models.bounds import Spread, spread


@pytest.mark.parametrize("estimate", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("z", [-1.96, 1.645])
def test_a_bound_is_where_the_estimate_is_z_errors_off(estimate, z):
    """By the variance at the bound itself, V + slope D."""
    bound = Spread(estimate, 0.01, 0.3).bound(z)
    assert (bound - estimate) ** 2 == pytest.approx(z * z * (0.01 + 0.3 * bound))
    assert (bound > estimate) == (z > 0)


def test_an_upper_bound_grants_the_variance_its_growth():
    """From the estimate on the variance counts by how fast it grows; a lower bound does not know of it."""
    found = Spread(3.0, 0.01, 0.3, growth=2.0)
    bound = found.bound(1.645)
    assert (bound - 3) ** 2 == pytest.approx(1.645**2 * (found.se**2 + 2.0 * (bound - 3)))
    assert found.bound(-1.645) == found._replace(growth=0.0).bound(-1.645)
    assert found._replace(growth=0.1).bound(1.645) == found._replace(growth=0.0).bound(1.645)


def test_growth_counts_by_the_share_that_is_not_noise():
    """Whole far from 0; not at all where the linear part is noise."""
    assert spread(100.0, biased=100.0, linear=0.04, quadratic=0.0, growth=2.0).growth == 2
    near = spread(0.1, biased=0.3, linear=0.04, quadratic=0.02, growth=2.0)
    assert near.growth == near.slope


def test_zero_is_covered_by_what_varies_at_zero():
    """An estimate beyond 1.96 roots of V excludes 0, one within does not, whatever the slope."""
    for slope in (0.0, 0.5, 5.0):
        for growth in (0.0, 9.0):
            assert Spread(1.97, 1.0, slope, growth).bound(-1.96) > 0
            assert Spread(1.95, 1.0, slope, growth).bound(-1.96) < 0


def test_far_from_zero_both_sides_are_alike():
    """The bounds are the standard error to either side, and that is the delta method's."""
    found = spread(100.0, biased=100.1, linear=0.04, quadratic=1e-6)
    assert found.se == pytest.approx(0.2, rel=0.01)
    assert found.bound(1.96) - 100 == pytest.approx(100 - found.bound(-1.96), rel=0.01)


def test_nothing_varies():
    """A set against itself: the bounds are the estimate, also below 0."""
    assert spread(0.0, biased=0.0, linear=0.0, quadratic=0.0).bound(1.96) == 0
    assert np.isfinite(spread(-0.5, biased=0.1, linear=0.02, quadratic=0.01).bound(1.96))
