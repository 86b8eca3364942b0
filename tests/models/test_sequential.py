"""The test that looks after every block: right under the null whatever the distribution, and quick under a fault."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sequential import BETS, CLIP, VARIANCE, Detector, e_values, growth, interval, observations_needed

BUDGET = 60_480.0


@given(
    share=st.floats(1e-6, 1 - 1e-6),
    slack=st.floats(0, 5),
    below=st.floats(0, 0.5),
    spread=st.floats(0.01, math.sqrt(VARIANCE)),
)
def test_an_e_value_is_at_most_one_on_average(share, slack, below, spread):
    """For every distribution on two points whose mean and variance are within the null's: the worst there are."""
    up = spread * math.sqrt((1 - share) / share)
    down = -spread * math.sqrt(share / (1 - share))
    mean = slack - below
    high, low = e_values(mean + up, slack), e_values(mean + down, slack)
    for raised, lowered in zip(high, low, strict=True):
        assert share * raised + (1 - share) * lowered <= 1 + 1e-9


@pytest.mark.parametrize("stake", [1.0, 0.2])
def test_false_alarms_come_no_oftener_than_the_budget_says(stake):
    """At the edge of the null, where the law makes every e-value 1 on average; 400 runs with a budget of 20 stakes."""
    random = np.random.RandomState(0)
    seldom = VARIANCE / CLIP / (CLIP + VARIANCE / CLIP)
    stakes = []
    for _ in range(400):
        detector = Detector(slack=1.0, threshold=20.0)
        draws = 1.0 + np.where(random.random_sample(4000) < seldom, CLIP, -VARIANCE / CLIP)
        stakes.append(stake * next((i for i, x in enumerate(draws, 1) if detector.observe(x, stake)), 4000))
    assert 20 < np.mean(stakes) < 0.9 * stake * 4000


@pytest.mark.parametrize("stake", [0.1, 0.5, 3.0])
def test_evidence_is_counted_in_stakes(stake):
    """All stakes so many times as large, and the threshold too: the same alarm, and the same evidence over it."""
    plain, scaled = Detector(slack=1.0, threshold=500.0), Detector(slack=1.0, threshold=500.0 * stake)
    for x in np.random.RandomState(5).standard_normal(60) + np.repeat([0.0, 3.0], 30):
        assert plain.observe(x) == scaled.observe(x, stake=stake)
        assert scaled.gathered == pytest.approx(stake * plain.gathered)
    assert plain.alarm


def test_who_asks_once_is_wrong_with_the_stated_chance_at_most():
    """2,000 probations of 100 blocks at the edge of the null, threshold 20: at most 5 % alarm at any time."""
    random = np.random.RandomState(1)
    alarms = 0
    for draws in random.standard_normal((2000, 100)):
        detector = Detector(slack=0.0, threshold=20.0, restarts=False)
        alarms += any(detector.observe(x) for x in draws)
    assert alarms / 2000 <= 0.05


@pytest.mark.parametrize("change_at", [0, 500])
def test_a_rise_is_found_about_as_fast_as_foretold(change_at):
    """One and a half deviations above the slack, from the start or later: 95 % within twice the expected time."""
    random = np.random.RandomState(2)
    slack, mean = 1.0, 2.5
    expected = observations_needed(mean, slack, BUDGET)
    assert expected < 40
    late = 0
    for _ in range(200):
        detector = Detector(slack=slack, threshold=BUDGET)
        assert not any(detector.observe(x) for x in random.standard_normal(change_at))
        later = random.standard_normal(int(2 * expected)) + mean
        late += not any(detector.observe(x) for x in later)
    assert late <= 10


def test_what_is_within_the_slack_is_never_found():
    """Evidence does not grow there, so no number of blocks is enough."""
    assert growth(0.9, 1.0) <= 0
    assert observations_needed(0.9, 1.0, BUDGET) == math.inf


def test_nan_is_an_alarm_at_once():
    """No working generator makes it."""
    assert Detector(slack=1.0, threshold=BUDGET).observe(math.nan)


def test_one_wild_block_is_no_alarm():
    """However far out: what is clipped cannot decide alone."""
    detector = Detector(slack=1.0, threshold=BUDGET)
    assert not detector.observe(1e12)
    assert 0 < detector.evidence < 0.5
    assert len(BETS) == len(e_values(1e12, 1.0))


def test_the_interval_covers():
    """The mean of 4, 8 and 20 normal values lies in its 95 % interval in 92 to 98 % of 4,000 trials."""
    random = np.random.RandomState(3)
    for count in (4, 8, 20):
        found = [interval(list(row)) for row in random.standard_normal((4000, count))]
        covered = np.mean([low <= 0 <= high for _, low, high in found])
        assert 0.92 <= covered <= 0.98, count
    assert interval([1.0, 2.0, 3.0]) is None
