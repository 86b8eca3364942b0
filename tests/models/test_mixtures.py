"""The ring and the grid: drawn as published, and measured so that every fault of a generator shows."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from models.datasets import load_dataset
from models.mixtures import CEILING, GRID, RING, Mixture


@pytest.mark.parametrize(("name", "modes", "deviation", "radius"), [("ring", 8, 0.01, 1), ("grid", 25, 0.05, None)])
def test_the_built_in_sets_are_those_published(name: str, modes: int, deviation: float, radius: float | None) -> None:
    """Equally frequent modes at the published places, Gaussian about them with the published variance."""
    data = load_dataset(name)
    assert (data.kind, data.shape, data.labels) == ("vector", (2,), None)
    assert {split: len(indices) for split, indices in data.indices.items()} == {
        "train": 80_000,
        "validation": 10_000,
        "gate": 10_000,
    }
    centres = np.array((RING if name == "ring" else GRID).centres)
    if radius is not None:
        np.testing.assert_allclose(np.linalg.norm(centres, axis=1), radius)
        np.testing.assert_allclose(centres[[0, 2]], [[1, 0], [0, 1]], atol=1e-12)
    else:
        assert sorted(map(tuple, centres)) == [(x, y) for x in range(-4, 5, 2) for y in range(-4, 5, 2)]
    gaps = data.samples[:, None].astype(float) - centres
    squares = (gaps**2).sum(2)
    counts = np.bincount(squares.argmin(1), minlength=modes)
    assert np.abs(counts - 1e5 / modes).max() < 4 * math.sqrt(1e5 / modes)
    assert kstest(squares.min(1)[:20_000] / deviation**2, chi2(2).cdf).pvalue > 1e-3


def test_a_perfect_sampler_scores_the_ceiling() -> None:
    """98.9 % high quality, every mode's share and spread 1, each within 4 standard errors."""
    for mixture in (RING, GRID):
        found = mixture.coverage(mixture.draw(25_000, seed=1))
        assert found.modes == found.of == len(mixture.centres)
        assert abs(found.high_quality - CEILING) < 4 * math.sqrt(CEILING * (1 - CEILING) / 25_000)
        per_mode = 25_000 / found.of
        np.testing.assert_allclose(found.shares, 1, atol=4 / math.sqrt(per_mode))
        np.testing.assert_allclose(found.spreads, 1, atol=4 / math.sqrt(2 * per_mode))
    assert f"{CEILING:.3f}" == "0.989"


def test_each_fault_shows_in_its_own_number() -> None:
    """A lost mode, a rare one, modes shrunk to points, shifted ones and noise between modes."""
    samples = RING.draw(20_000, seed=1)
    nearest = np.argmin([np.square(samples - centre).sum(1) for centre in RING.centres], axis=0)
    lost = RING.coverage(samples[nearest != 3])
    assert (lost.modes, lost.shares[3]) == (7, 0)
    assert math.isnan(lost.spreads[3])
    rare = RING.coverage(samples[(nearest != 3) | (np.arange(20_000) % 4 == 0)])
    assert (rare.modes, round(rare.shares[3], 1)) == (8, 0.3)
    centres = np.array(RING.centres, np.float32)[nearest]
    points = RING.coverage(centres)
    assert (points.modes, points.high_quality, max(points.spreads)) == (8, 1.0, 0.0)
    halved = RING.coverage(centres + (samples - centres) / 2)
    np.testing.assert_allclose(halved.spreads, 0.5, atol=0.03)
    shifted = RING.coverage(centres + np.float32(0.02))
    assert (shifted.high_quality, max(shifted.spreads)) == (1.0, pytest.approx(0, abs=1e-6))
    between = RING.coverage(np.concatenate([samples, np.zeros((20_000, 2), np.float32)]))
    assert between.high_quality == pytest.approx(CEILING / 2, abs=0.003)
    assert str(lost).startswith("7 of 8 modes, 98.")


def test_no_samples_are_no_measure() -> None:
    """Nothing to measure is an error; samples far from every mode are a measure of nothing found."""
    with pytest.raises(ValueError, match="no samples"):
        RING.coverage(np.empty((0, 2), np.float32))
    nothing = RING.coverage(np.full((5, 2), 9, np.float32))
    assert (nothing.modes, nothing.high_quality, max(nothing.shares)) == (0, 0, 0)


def test_the_density_is_the_samples() -> None:
    """It integrates to 1, and to a square's share of samples over that square."""
    mixture = Mixture(((0.0, 0.0), (2.0, 1.0)), 0.25)
    axis = np.linspace(-4, 6, 401)
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = mixture.density(points) * (axis[1] - axis[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-6)
    inside = (np.abs(points - [2, 1]) < 0.5).all(1)
    drawn = mixture.draw(50_000, seed=2)
    assert mass[inside].sum() == pytest.approx((np.abs(drawn - [2, 1]) < 0.5).all(1).mean(), abs=0.015)
