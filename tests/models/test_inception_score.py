"""The Inception Score against closed forms, its definition by SciPy, and simulation."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from models import inception_score as module
from models.inception_score import inception_score


def drawn(seed, count=400, spread=2.0):
    return scipy.special.softmax(spread * np.random.RandomState(seed).standard_normal((count, 7)), axis=1)


def test_closed_forms():
    """Sure and even over K classes is K; always the same answer, sure or not, is 1."""
    assert inception_score(np.eye(10)[np.arange(1000) % 10]).value == pytest.approx(10)
    assert inception_score(np.full((50, 10), 0.1)).value == pytest.approx(1)
    assert inception_score(np.tile([1.0, 0, 0], (50, 1))).value == pytest.approx(1)


@pytest.mark.parametrize("rows", [64, 10_000])
def test_agrees_with_entropies(monkeypatch, rows):
    """exp(H(mean) - mean H), by SciPy's entropies, whatever the size of a block; float16 moves it by under 0.1 %."""
    monkeypatch.setattr(module, "ROWS", rows)
    p = drawn(0)
    expected = np.exp(scipy.stats.entropy(p.mean(0)) - scipy.stats.entropy(p, axis=1).mean())
    assert inception_score(p).value == pytest.approx(expected, rel=1e-12)
    assert inception_score(p.astype(np.float16)).value == pytest.approx(expected, rel=1e-3)


def test_the_interval_covers_the_mean_at_this_number():
    """Of 300 repetitions 92 to 98 % cover their common mean."""
    found = [inception_score(drawn(i)) for i in range(300)]
    mean = np.mean([score.value for score in found])
    assert 0.92 <= np.mean([score.low <= mean <= score.high for score in found]) <= 0.98
