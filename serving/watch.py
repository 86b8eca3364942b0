"""Decides whether a model still makes what it was promoted for. Pure: knows no clock, threads, engines or networks.

While all is well, every block of fresh samples is one observation of a test that gives a false alarm once in the time
of `budget_blocks` blocks at most. What looks wrong is looked at more often, and a block that comes sooner is a smaller
stake. After an alarm the model is loaded again, and fresh blocks decide whether that has helped: PROBATION_BLOCKS, or
as many as the alarm took. One that is well fails them with a chance of 1 / DOUBT at most; one that is not has given
more evidence in as many blocks before.
"""

from collections import deque
from enum import Enum
from typing import NamedTuple

from models.baseline import Baseline
from models.sequential import MIN_INTERVAL, Detector, interval

SHOWN_BLOCKS = 20  # that the distance and its interval are taken over
HASTE = 10.0  # times as often that a model is looked at where something may be wrong
SUSPICION = 1.2  # what betting against the model has made of a stake of 1, from which it deserves a closer look
CLOSER_BLOCKS = 100  # in a row that it gets one: enough to find a fault, and an end for what hangs in the balance
PROBATION_BLOCKS = 30  # at least: as many as the alarm took, where those were more
DOUBT = 100.0


class State(Enum):
    """What is thought of a model."""

    WELL = "well"
    PROBATION = "probation"  # after an alarm, loaded again
    FAILED = "failed"


class Event(Enum):
    """What a block changed."""

    ALARM = "alarm"  # load it again
    FAILED = "failed"  # that did not help
    RECOVERED = "recovered"  # it did


class Shown(NamedTuple):
    """The distance without bias over the last blocks, with its 95 % interval."""

    value: float
    low: float
    high: float


class Watch:
    """One loaded version under watch.

    Args:
        baseline: what is expected of it.
        budget_blocks: the time of at least so many blocks lies between two false alarms, on average.
        loss: of Tr R, by which what runs may be worse than what was judged: a variant's.
    """

    def __init__(self, baseline: Baseline, budget_blocks: float, *, loss: float = 0.0) -> None:
        self.baseline = baseline
        self._slack = baseline.slack(loss)
        self._budget = budget_blocks
        self._closer = 0  # blocks in a row that were suspicious
        self._probation = PROBATION_BLOCKS
        self._last: deque[float] = deque(maxlen=SHOWN_BLOCKS)
        self.state = State.WELL
        self._detector = self._patient()

    @property
    def evidence(self) -> float:
        """That something is wrong: 0 for none, 1 for an alarm; on a logarithmic scale."""
        return min(1.0, self._detector.evidence)

    @property
    def suspicious(self) -> bool:
        """Whether the next blocks should not wait: on probation, or something may be wrong."""
        return self.state is State.PROBATION or 0 < self._closer <= CLOSER_BLOCKS

    @property
    def pace(self) -> float:
        """From the beginning of the last block to that of the next, at least: a share of the ordinary time, <= 1."""
        return 1 / HASTE if self.suspicious or len(self._last) < MIN_INTERVAL else 1.0

    @property
    def shown(self) -> Shown | None:
        """None before there are blocks enough to say."""
        found = interval([distance - self.baseline.bias for distance in self._last])
        return None if found is None else Shown(*found)

    def block(self, distance: float) -> Event | None:
        """A block of fresh samples has this distance from the real ones."""
        alarm = self._detector.observe(self.baseline.surprise(distance), stake=self.pace)
        self._last.append(distance)
        self._closer = self._closer + 1 if self._detector.gathered >= SUSPICION else 0
        if self.state is State.WELL and alarm:
            self._probation = max(PROBATION_BLOCKS, self._closer)
            return Event.ALARM
        if self.state is State.PROBATION and alarm:
            return self.fail()
        if self.state is State.PROBATION and self._detector.observations >= self._probation:
            self.state, self._detector = State.WELL, self._patient()
            return Event.RECOVERED
        return None

    def set_budget(self, blocks: float) -> None:
        """Other models came or went: from now on the time of so many blocks lies between two false alarms."""
        self._budget = blocks
        if self.state is State.WELL:
            self._detector.threshold = blocks

    def reloaded(self) -> None:
        """It was loaded again: what was seen before says nothing any more."""
        self._last.clear()
        self._closer = 0
        self.state = State.PROBATION
        self._detector = Detector(slack=self._slack, threshold=DOUBT, restarts=False)

    def fail(self) -> Event:
        """Loading it again did not help, or could not be done."""
        self._closer = 0
        self.state = State.FAILED
        return Event.FAILED

    def _patient(self) -> Detector:
        return Detector(slack=self._slack, threshold=self._budget)
