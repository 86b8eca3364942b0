"""A test that looks after every observation and is still right: has a mean risen? Pure; knows no samples or features.

Observations come one at a time, independent, and are measured in standard deviations above what is expected. Under the
null their mean is at most `slack` and their variance about it at most VARIANCE. Each becomes an e-value, whose
expectation under the null is at most 1 (Bennett's inequality, for observations clipped from above, which can only
lower their mean):

    e_lambda(x) = exp(lambda (min(x, slack + CLIP) - slack) - VARIANCE (exp(lambda CLIP) - 1 - lambda CLIP) / CLIP^2)

A change may come at any time, so evidence is gathered by e-detectors (Shin, Ramdas & Rinaldo 2023) of the CUSUM kind,
M <- max(M, s) e(x), averaged over a few lambda since nobody knows how large the change will be. s is the stake that
may be bet anew at this observation, and must be chosen before it is seen. While the null holds, stakes of c have come
on average before M >= c: M is below R <- (R + s) e(x), and R less the stakes is a supermartingale. Where each stake is
the time that its observation takes, an alarm that is false comes once in the time c, however unevenly they come. A
question with an end, such as whether a reload has helped, takes the plain product of e-values instead: by Ville's
inequality that ever reaches c with probability 1 / c at most.
"""

import math
from collections.abc import Sequence

BETS = (0.15, 0.3, 0.6)  # lambda
CLIP = 3.0  # standard deviations above the slack, beyond which an observation counts as that
VARIANCE = 1.25  # of an observation: 1 by its definition, and what the definition may be wrong by
LEAST = 1e-300
MIN_INTERVAL = 4  # values, below which their spread says nothing


class Detector:
    """Evidence that a mean has risen.

    Args:
        slack: the largest mean that is none of its business, in standard deviations, >= 0.
        threshold: alarm at so much evidence, > 1.
        restarts: whether the change may come at any time (CUSUM), or was there from the first observation or never is
            (product).
    """

    def __init__(self, *, slack: float, threshold: float, restarts: bool = True) -> None:
        self.slack = slack
        self.threshold = threshold
        self._restarts = restarts
        self._evidence = [LEAST if restarts else 1.0] * len(BETS)
        self.observations = 0

    @property
    def gathered(self) -> float:
        """M, by which betting against the null has multiplied a stake."""
        return sum(self._evidence) / len(self._evidence)

    @property
    def evidence(self) -> float:
        """0 for none, 1 for an alarm: on a logarithmic scale."""
        return max(0.0, math.log(self.gathered) / math.log(self.threshold))

    @property
    def alarm(self) -> bool:
        """Whether there is enough of it."""
        return self.gathered >= self.threshold

    def observe(self, x: float, stake: float = 1.0) -> bool:
        """One more observation, in standard deviations; whether there is an alarm now. NaN is one.

        Args:
            x: what was seen.
            stake: >= 0, that is bet anew where the change may come at any time; independent of x.
        """
        self.observations += 1
        factors = e_values(x, self.slack)
        for i, factor in enumerate(factors):
            begun = max(self._evidence[i], stake) if self._restarts else self._evidence[i]
            self._evidence[i] = max(begun * factor, LEAST)
        return self.alarm


def e_values(x: float, slack: float) -> list[float]:
    """Of one observation, for each of BETS; infinite for NaN, which no working generator makes."""
    if math.isnan(x):
        return [math.inf] * len(BETS)
    rise = min(x - slack, CLIP)
    return [math.exp(bet * rise - VARIANCE * _bennett(bet)) for bet in BETS]


def growth(mean: float, slack: float) -> float:
    """Evidence per observation of the best bet where the mean is `mean`: its logarithm; <= 0 where none is found."""
    return max(bet * (min(mean - slack, CLIP)) - VARIANCE * _bennett(bet) for bet in BETS)


def observations_needed(mean: float, slack: float, threshold: float) -> float:
    """About how many it takes until an alarm, where the mean is `mean`; infinite where it is within the slack."""
    rate = growth(mean, slack)
    return math.inf if rate <= 0 else math.log(threshold * len(BETS)) / rate


def interval(values: Sequence[float], z: float = 1.96) -> tuple[float, float, float] | None:
    """Mean, and bounds of its 95 % interval by the values' own spread; None of fewer than MIN_INTERVAL."""
    count = len(values)
    if count < MIN_INTERVAL:
        return None
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)
    widened = z * (1 + (z * z + 1) / (4 * (count - 1)))  # Student's quantile, to its second term
    return mean, mean - widened * spread, mean + widened * spread


def _bennett(bet: float) -> float:
    return (math.exp(bet * CLIP) - 1 - bet * CLIP) / CLIP**2
