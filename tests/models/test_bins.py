"""NDB against tests of SciPy's, and over repetitions where its law is known."""

import numpy as np
import pytest
import scipy.stats

from models.bins import bins_for, compare_bins, share_left_out


def drawn(seed, count, shares):
    return np.random.RandomState(seed).choice(len(shares), count, p=shares)


def test_each_bin_is_a_two_sample_test_of_shares():
    """A bin differs where SciPy's chi-squared test of its 2 x 2 table says p < .05."""
    shares = np.random.RandomState(0).dirichlet(np.ones(40))
    fake, real = drawn(1, 3000, np.random.RandomState(2).dirichlet(30 * shares + 0.5)), drawn(3, 2000, shares)
    counts = [np.bincount(side, minlength=40) for side in (fake, real)]
    filled = counts[0] + counts[1] > 0
    differ = 0
    for ours, theirs in np.transpose(counts)[filled]:
        table = [[ours, 3000 - ours], [theirs, 2000 - theirs]]
        differ += scipy.stats.chi2_contingency(table, correction=False).pvalue < 0.05
    found = compare_bins(fake, real, 40)
    assert found.different.value == pytest.approx(differ / 40)
    assert 0 < found.different.value < 1
    assert found.p_value == pytest.approx(scipy.stats.chi2_contingency(np.stack(counts)[:, filled]).pvalue)


def test_equal_distributions_differ_in_five_percent_of_the_bins():
    """Over 200 pairs the mean is 0.05, the intervals cover it, and the p-value is below .05 as often."""
    shares = np.full(100, 0.01)
    found = [compare_bins(drawn(2 * i, 5000, shares), drawn(2 * i + 1, 4000, shares), 100) for i in range(200)]
    mean = np.mean([one.different.value for one in found])
    assert mean == pytest.approx(0.05, abs=0.01)
    assert np.mean([one.different.low <= mean <= one.different.high for one in found]) > 0.92
    assert np.mean([one.p_value < 0.05 for one in found]) == pytest.approx(0.05, abs=0.045)


def test_a_lost_mode_makes_bins_differ():
    """A tenth of the data missing: its ten bins differ, and so do most others, whose shares grow."""
    shares = np.full(100, 0.01)
    thin = np.where(np.arange(100) < 10, 0, 1 / 90)
    found = compare_bins(drawn(0, 50_000, thin), drawn(1, 10_000, shares), 100)
    assert found.different.low > 0.1
    assert found.p_value < 1e-9


def test_few_reals_fill_few_bins():
    """100 bins from 2,000 reals on; 20 reals a bin below."""
    assert [bins_for(count) for count in (10_000, 2000, 1000, 20)] == [100, 100, 50, 2]


def test_what_is_left_out_is_the_reals_share_of_those_bins():
    """A bin is left out below a fifth of its share; more samples of it elsewhere, or more draws, change nothing."""
    real = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    fake = np.repeat([0, 1, 3], [80, 5, 15])  # none of bin 2, a sixth of bin 1
    assert share_left_out(fake, real, 4) == pytest.approx(0.5)
    assert share_left_out(np.repeat(fake, 7), np.repeat(real, 3), 4) == pytest.approx(0.5)
    assert share_left_out(real, real, 4) == 0
    assert share_left_out(np.repeat([0, 1, 3], [80, 7, 13]), real, 4) == pytest.approx(0.2)
    assert share_left_out(np.full(9, 5), real, 6) == pytest.approx(1)
