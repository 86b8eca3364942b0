"""The Frechet distance against closed forms, an independent implementation and simulation."""

import numpy as np
import pytest
import scipy.linalg

import models.frechet
from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.frechet import Moments, difference, frechet, frechet_distance, moments
from models.mixtures import RING


def gaussian(n, seed, *, d=6, mean=0.0, scale=1.0):
    """Correlated Gaussian features [n, d]: the same mixing for every seed."""
    mixing = np.random.RandomState(99).standard_normal((d, d)) / np.sqrt(d)
    return np.random.RandomState(seed).standard_normal((n, d)) @ mixing * scale + mean


def test_commuting_covariances_have_a_closed_form():
    """For diagonal covariances FD is |shift|^2 + sum (s - r)^2 over standard deviations."""
    s, r = np.array([1.0, 2.0, 0.5]), np.array([1.5, 0.25, 0.5])
    shift = np.array([0.3, -1.0, 2.0])
    fake = Moments(10, shift, np.diag(s**2))
    real = Moments(10, np.zeros(3), np.diag(r**2))
    assert frechet_distance(fake, real) == pytest.approx(shift @ shift + ((s - r) ** 2).sum(), rel=1e-12)


def test_agrees_with_a_matrix_square_root():
    """The eigenvalue form equals Tr sqrtm(S R) computed by SciPy, for covariances that do not commute."""
    fake, real = moments(gaussian(50, 1, scale=1.3)), moments(np.random.RandomState(2).standard_normal((60, 6)))
    shift = fake.mean - real.mean
    root = np.real(scipy.linalg.sqrtm(fake.covariance @ real.covariance))
    expected = shift @ shift + np.trace(fake.covariance + real.covariance - 2 * root)
    assert frechet_distance(fake, real) == pytest.approx(expected, rel=1e-9)


def test_fd_inf_has_no_bias():
    """FD_n of equal distributions is far above 0 at n = 400; FD_inf is within 3 standard errors of 0 on average."""
    estimates = [frechet(gaussian(400, 2 * i), gaussian(400, 2 * i + 1)) for i in range(40)]
    fd = np.array([estimate.fd for estimate in estimates])
    fd_inf = np.array([estimate.fd_inf for estimate in estimates])
    assert fd.mean() > 10 * fd.std() / np.sqrt(len(fd))
    assert abs(fd_inf.mean()) < 3 * fd_inf.std() / np.sqrt(len(fd_inf))
    assert abs(fd_inf.mean()) < 0.15 * fd.mean()


def test_intervals_hold_where_the_distance_is_zero():
    """Of 200 pairs of equal sets 92 to 98 % of the two-sided intervals cover 0, and 92 % of the upper bounds.

    There the delta method alone says twice the variance (or, by the true moments, none).
    """
    found = [frechet(gaussian(600, 2 * i, d=12), gaussian(600, 2 * i + 1, d=12)) for i in range(200)]
    fd_inf = np.array([one.fd_inf for one in found])
    assert 0.92 <= np.mean([one.spread.bound(-1.96) <= 0 <= one.spread.bound(1.96) for one in found]) <= 0.98
    assert np.mean([one.spread.bound(1.645) >= 0 for one in found]) >= 0.92
    assert np.sqrt(np.mean([one.spread.quadratic for one in found])) == pytest.approx(fd_inf.std(), rel=0.25)
    first_order = [one.influence_fake.var() / 600 + one.influence_real.var() / 600 for one in found]
    assert np.sqrt(np.mean(first_order)) > 1.25 * fd_inf.std()


def test_intervals_hold_where_samples_are_few_for_the_dimension():
    """At N = 10 d the bias of the second order would be seen: without it upper bounds cover 92 % of 100 pairs."""
    found = [frechet(gaussian(512, 2 * i, d=48), gaussian(512, 2 * i + 1, d=48)) for i in range(100)]
    first = np.array([one.fd - one.bends.mean() for one in found])
    assert abs(np.mean([one.fd_inf for one in found])) < abs(first.mean())
    assert np.mean([one.spread.bound(1.645) >= 0 for one in found]) >= 0.92


def stretched(n, seed, d, *, skewed=False):
    """Two sets of features [n, d] of falling variance, the first with every other direction twice as wide; their FD.

    Normal, or log-normal of the same variance.
    """
    scale = np.arange(1.0, d + 1) ** -1.5
    wide = scale * (1 + (np.arange(d) % 2 == 0))
    z = np.random.RandomState(seed).standard_normal((2, n, d))
    if skewed:
        z = (np.exp(z / 2) - np.exp(1 / 8)) / np.sqrt(np.exp(1 / 2) - np.exp(1 / 4))
    return z[0] * wide, z[1] * scale, float(((wide - scale) ** 2).sum())


def test_how_the_variance_grows_is_foretold_from_one_pair():
    """Over 100 pairs the first-order variance rises with FD as steeply as each pair's tilted weights say."""
    found = [frechet(*stretched(200, i, 6)[:2]) for i in range(100)]
    first_order = [one.influence_fake.var() / 200 + one.influence_real.var() / 200 for one in found]
    seen = np.polyfit([one.fd for one in found], first_order, 1)[0]
    assert np.mean([one.spread.growth for one in found]) == pytest.approx(seen, rel=0.15)


def test_a_part_of_wide_features_shows_how_the_variance_grows(monkeypatch):
    """As all of them do, within what a part is off by."""
    whole = [frechet(*stretched(1000, i, 12, skewed=True)[:2]) for i in range(10)]
    monkeypatch.setattr(models.frechet, "WIDE", 8)
    monkeypatch.setattr(models.frechet, "FEW", 500)
    part = [frechet(*stretched(1000, i, 12, skewed=True)[:2]) for i in range(10)]
    assert [one.fd for one in part] == pytest.approx([one.fd for one in whole])
    grown, all_grown = ([one.spread.growth for one in found] for found in (part, whole))
    assert grown != all_grown
    assert np.mean(grown) == pytest.approx(np.mean(all_grown), rel=0.1)


def test_upper_bounds_hold_far_from_zero():
    """Of 400 pairs of skewed features at least 92 %, and more than where the variance's growth is left out."""
    pairs = [stretched(1000, i, 12, skewed=True) for i in range(400)]
    found = [(frechet(fake, real).spread, truth) for fake, real, truth in pairs]
    upper = np.mean([one.bound(1.645) >= truth for one, truth in found])
    assert 0.92 <= upper <= 0.98
    assert upper > np.mean([one._replace(growth=0.0).bound(1.645) >= truth for one, truth in found])
    assert 0.92 <= np.mean([one.bound(-1.96) <= truth <= one.bound(1.96) for one, truth in found]) <= 0.98


def test_standard_error_is_the_spread_over_repetitions():
    """The standard error of one pair of sets is, within 25 %, the spread of FD over 200 pairs."""
    spread = np.std([
        frechet_distance(moments(gaussian(500, 2 * i, mean=0.4)), moments(gaussian(500, 2 * i + 1))) for i in range(200)
    ])  # fmt: skip
    one = np.mean([frechet(gaussian(500, 2 * i, mean=0.4), gaussian(500, 2 * i + 1)).se for i in range(5)])
    assert one == pytest.approx(spread, rel=0.25)


def test_a_paired_difference_is_surer_than_two_separate_ones():
    """Reals in common cancel: the paired standard error is below the unpaired, and covers the spread."""
    pairs = []
    for i in range(60):
        real = gaussian(300, 3 * i)
        a, b = frechet(gaussian(600, 3 * i + 1, mean=0.5), real), frechet(gaussian(600, 3 * i + 2, mean=0.5), real)
        pairs.append((a, b, difference(a, b)))
    paired = np.mean([d.se for _, _, d in pairs])
    assert paired < 0.8 * np.mean([np.hypot(a.se, b.se) for a, b, _ in pairs])
    assert paired == pytest.approx(np.std([d.delta for _, _, d in pairs]), rel=0.35)


def test_difference_needs_the_same_reals():
    """Another number of reals is refused."""
    a, b = frechet(gaussian(50, 0), gaussian(50, 1)), frechet(gaussian(50, 0), gaussian(40, 1))
    with pytest.raises(ValueError, match="same reals"):
        difference(a, b)


def test_a_dead_direction_that_a_fake_lights_up_counts_whole():
    """Features that are constant in the reals raise no error, and a fake's variance there is all in FD."""
    real = gaussian(400, 1)
    real[:, 3] = 0
    fake = gaussian(400, 2)
    fake[:, 3] = 2 * np.random.RandomState(5).standard_normal(400)
    lit = frechet(fake, real)
    fake[:, 3] = 0
    dark = frechet(fake, real)
    assert np.isfinite([lit.se, dark.se, dark.fd_inf]).all()
    assert lit.fd - dark.fd == pytest.approx(4.0, abs=0.5)


def test_equal_sets_are_at_zero():
    """A set against itself has FD 0 to rounding."""
    x = gaussian(100, 1)
    assert frechet(x, x).fd == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("shape_g", "shape_r"), [((3, 5), (10, 5)), ((10, 5), (10, 4))])
def test_too_few_or_mismatched_features_are_refused(shape_g, shape_r):
    """Fewer than 4 samples and differing dimensions raise ValueError."""
    with pytest.raises(ValueError, match="at least 4"):
        frechet(np.zeros(shape_g), np.zeros(shape_r))


def test_features_of_few_clusters_have_a_standard_error() -> None:
    """Where nearly all of the reals' directions are nearly dead, rounding does not blow the standard error up."""
    data = load_dataset("ring")
    extractor = resolve_extractor(None, data)
    real, fake = extractor.features(data.split("gate").samples), extractor.features(RING.draw(50_000, seed=7))
    found = frechet(fake, real)
    assert 0 < found.se / found.trace_real < 0.001
