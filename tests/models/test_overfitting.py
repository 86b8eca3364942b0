"""C_T, its AUC and authenticity against SciPy's Mann-Whitney test, definitions and simulation."""

import numpy as np
import pytest
import scipy.stats
from scipy.spatial.distance import cdist

from models.neighbours import nearest
from models.overfitting import authentic, copying_score, farther


def distances(seed, count, scale=1.0):
    return scale * np.random.RandomState(seed).chisquare(4, count)


def test_one_cell_is_mann_whitneys_z():
    """With a single cell C_T is the z of SciPy's test, whose p-value it gives back; the AUC is U / (m n)."""
    fake, held_out = distances(0, 300, 0.9), distances(1, 250)
    one = np.zeros(300, int), np.zeros(250, int)
    expected = scipy.stats.mannwhitneyu(fake, held_out, use_continuity=False, method="asymptotic", alternative="less")
    assert scipy.stats.norm.cdf(copying_score(fake, held_out, *one)) == pytest.approx(expected.pvalue, rel=1e-6)
    assert farther(fake, held_out).value == pytest.approx(expected.statistic / (300 * 250))


def test_cells_are_weighted_by_held_out_samples():
    """The mean of the cells' z; cells with fewer than 20 of either do not count, and NaN says that none was left."""
    fake, held_out = distances(0, 600), distances(1, 400)
    cells = np.arange(600) % 3, np.where(np.arange(400) < 300, np.arange(400) % 2, 2)
    held_out[cells[1] == 1] *= 2
    each = [
        copying_score(fake[cells[0] == k], held_out[cells[1] == k], *(np.zeros(n, int) for n in (200, count)))
        for k, count in ((0, 150), (1, 150), (2, 100))
    ]
    assert copying_score(fake, held_out, *cells) == pytest.approx(np.average(each, weights=[150, 150, 100]))
    assert each[1] < -5
    assert np.isnan(copying_score(fake[:10], held_out, cells[0][:10], cells[1]))


def test_ties_count_half():
    """Equal distances throughout are an AUC of one half."""
    assert farther(np.ones(10), np.ones(12)).value == 0.5


def test_the_aucs_interval_covers():
    """For exponentials of means 1.5 and 1 the truth is 1.5 / 2.5; of 400 intervals 92 to 98 % cover it."""
    truth, covered = 1.5 / 2.5, 0
    for i in range(400):
        random = np.random.RandomState(i)
        share = farther(random.exponential(1.5, 120), random.exponential(1.0, 90))
        covered += share.low <= truth <= share.high
    assert 0.92 <= covered / 400 <= 0.98


def test_authenticity_agrees_with_its_definition():
    """It equals loops over all distances, and copies are never authentic."""
    random = np.random.RandomState(0)
    train, fake = random.standard_normal((200, 3)), random.standard_normal((80, 3))
    among = cdist(train, train) + np.diag(np.full(200, np.inf))
    gaps = cdist(fake, train)
    expected = np.mean([gaps[j].min() > among[gaps[j].argmin()].min() for j in range(80)])
    found = nearest(fake, train)
    own = nearest(train[found.rows], train, besides=found.rows).distances
    assert authentic(found.distances, own).value == expected
    copied = nearest(train[:50], train)
    assert authentic(copied.distances, own[:50]).value == 0
