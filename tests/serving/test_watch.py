"""The watch over one model: what follows from blocks of given distances. No models, no samples, no clock."""

import math

import numpy as np
import pytest

from models.sequential import MIN_INTERVAL, VARIANCE, e_values
from serving.watch import CLOSER_BLOCKS, HASTE, PROBATION_BLOCKS, Event, State, Watch


class Expected:
    """A baseline in numbers."""

    fd_inf, bias = 1.0, 0.1

    def slack(self, loss=0.0):
        return 1.0 + loss

    def surprise(self, distance):
        return distance


def begun(budget):
    """A watch that has seen enough blocks to say what it sees, all as expected."""
    watch = Watch(Expected(), budget)
    for _ in range(MIN_INTERVAL):
        watch.block(0.0)
    return watch


def test_probation_ends_well_or_not():
    """Blocks as expected for long enough: well. Bad ones: failed, sooner."""
    watch = Watch(Expected(), 1000.0)
    assert any(watch.block(4.0) is Event.ALARM for _ in range(40))
    watch.reloaded()
    assert watch.state is State.PROBATION
    assert [watch.block(0.0) for _ in range(PROBATION_BLOCKS)][-1] is Event.RECOVERED
    assert watch.state is State.WELL
    watch.reloaded()
    assert Event.FAILED in [watch.block(4.0) for _ in range(PROBATION_BLOCKS)]
    assert watch.state is State.FAILED


def test_what_is_accepted_besides_is_not_found():
    """A variant's known loss is in the slack."""
    found = Watch(Expected(), 100.0)
    assert any(found.block(3.0) is Event.ALARM for _ in range(100))
    accepted = Watch(Expected(), 100.0, loss=2.5)
    assert not any(accepted.block(3.0) is Event.ALARM for _ in range(100))


def test_probation_is_as_long_as_the_alarm_took():
    """What needed many blocks to be found does not pass for well after few."""
    watch = begun(1000.0)
    slow = next(i for i in range(1, 1000) if watch.block(1.6) is Event.ALARM)
    assert slow > 2 * PROBATION_BLOCKS
    watch.reloaded()
    events = [event for event in (watch.block(1.6) for _ in range(slow)) if event is not None]
    assert events[0] is Event.FAILED


def test_a_block_that_comes_sooner_is_a_smaller_stake():
    """The first few, which give the interval, and those of what looks wrong; the last of these bets what it has won."""
    watch = Watch(Expected(), 1e9)
    calm = np.mean(e_values(0.0, 1.0))
    for stake in (1 / HASTE,) * 4 + (1.0,) * 3:
        assert watch.pace == stake
        watch.block(0.0)
        assert watch._detector.gathered == pytest.approx(stake * calm)
    watch.block(4.0)
    assert watch.pace == 1 / HASTE
    won = watch._detector.gathered
    assert won == pytest.approx(np.mean(e_values(4.0, 1.0)))
    watch.block(0.0)
    assert watch._detector.gathered == pytest.approx(won * calm, rel=0.2)


def test_what_hangs_in_the_balance_is_looked_at_closely_for_a_while_only():
    """Evidence that neither grows nor goes: after so many blocks the ordinary pace, until suspicion begins anew."""
    watch = begun(1e9)
    rise = [3.0] * 8
    assert not any(watch.block(distance) for distance in rise)
    assert watch.suspicious
    balance = 1.0 + VARIANCE * (math.exp(0.45) - 1.45) / 9 / 0.15  # what the smallest bet neither wins nor loses by
    closer = []
    for _ in range(2 * CLOSER_BLOCKS):
        assert watch.block(balance) is None
        closer.append(watch.suspicious)
    assert sum(closer) == pytest.approx(CLOSER_BLOCKS, abs=8)
    assert sorted(closer, reverse=True) == closer
    for _ in range(40):
        watch.block(-3.0)
    assert not watch.suspicious
    assert not any(watch.block(distance) for distance in rise)
    assert watch.suspicious


def test_models_that_come_make_the_others_thresholds_higher():
    """From the next block on, in the evidence that is shown too; on probation it stays as it is."""
    watch = Watch(Expected(), 1000.0)
    for _ in range(4):
        watch.block(3.0)
    before = watch.evidence
    watch.set_budget(3000.0)
    assert watch.evidence == pytest.approx(before * math.log(1000) / math.log(3000))
    blocks = 4 + next(i for i in range(1, 100) if watch.block(3.0) is Event.ALARM)
    alone = Watch(Expected(), 3000.0)
    assert next(i for i in range(1, 100) if alone.block(3.0) is Event.ALARM) == blocks
    watch.reloaded()
    watch.set_budget(1e12)
    assert Event.FAILED in [watch.block(4.0) for _ in range(PROBATION_BLOCKS)]


def test_what_looks_wrong_is_looked_at_without_pauses():
    """Suspicion comes long before an alarm and goes with it; a model that has failed holds nobody up."""
    watch = begun(1000.0)
    assert not watch.suspicious
    for _ in range(3):
        assert watch.block(3.0) is None
    assert watch.suspicious
    while watch.block(3.0) is not Event.ALARM:
        assert watch.suspicious
    watch.reloaded()
    assert watch.suspicious
    watch.fail()
    assert not watch.suspicious
    calm = begun(1000.0)
    assert not any(calm.suspicious for distance in (0.3, 1.2, 0.9, 1.9, -0.5) if calm.block(distance) is None)
