"""k-means against scikit-learn's, on data with and without clusters."""

import numpy as np
import pytest

from models.clusters import k_means, nearest_centre

sklearn_cluster = pytest.importorskip("sklearn.cluster")


def inertia(rows, centres):
    return np.square(rows - centres[nearest_centre(rows, centres)]).sum()


def test_assignment_is_the_nearest_centre():
    """Float32 with the mean taken off agrees with all distances, far from the origin too."""
    random = np.random.RandomState(0)
    rows, centres = (random.standard_normal((n, 5)).astype(np.float32) + 100 for n in (400, 12))
    expected = np.square(rows[:, None].astype(float) - centres).sum(2).argmin(1)
    assert (nearest_centre(rows, centres) == expected).all()


def test_separate_clusters_are_found():
    """As many centres as well-separated clusters: each gets one, at its mean."""
    random = np.random.RandomState(1)
    true = random.standard_normal((8, 4)) * 20
    rows = true[random.randint(0, 8, 2000)] + random.standard_normal((2000, 4))
    centres = k_means(rows, 8)
    gaps = np.square(true[:, None] - centres).sum(2)
    assert sorted(gaps.argmin(1)) == list(range(8))
    assert gaps.min(1).max() < 0.1


def test_as_tight_as_scikit_learns():
    """Without clusters to find the sum of squares is within 3 % of the best of three of scikit-learn's runs."""
    rows = np.random.RandomState(2).standard_normal((3000, 6)).astype(np.float32)
    theirs = sklearn_cluster.KMeans(20, n_init=3, random_state=0).fit(rows).inertia_
    assert inertia(rows, k_means(rows, 20)) < 1.03 * theirs


def test_few_distinct_rows_raise_nothing():
    """More clusters than distinct rows: those that win none keep their centre."""
    rows = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    assert inertia(rows, k_means(rows, 5)) == pytest.approx(0, abs=1e-9)
