"""Confidence bounds of squared distances that hold near 0 too. Knows nothing of what is between.

An estimate of such a distance is, to second order, the distance D plus a linear part, whose variance vanishes with D,
and a quadratic part, whose variance V does not. So the variance at D is about V + slope D, and a bound is the D that
the estimate lies z standard errors off, by the variance there: a score interval (Wilson 1927). With one error for both
sides an interval covers 0 too often, for the linear part is thought to vary whenever the estimate is large.

Far from 0 the variance found from samples moves with the estimate, several times as fast as in proportion: what is off
about the samples' moments makes both larger, and most so in the directions of most variance. An upper bound would then
be too low whenever the estimate is. How fast it moves is seen by weighting the samples along their influence until the
distance is a standard error larger (the least favourable family: Stein 1956, DiCiccio & Efron 1992).
"""

from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """How far an estimate may be off.

    Args:
        estimate: unbiased, so that it may be slightly negative.
        quadratic: variance at distance 0.
        slope: the rest of the variance at the estimate, over the estimate.
        growth: of the variance with the distance, near the estimate; `slope` where that is more. Only upper bounds use
            it: the estimate is skewed too, which draws in both bounds, and lower ones are safe without it.
    """

    estimate: float
    quadratic: float
    slope: float
    growth: float = 0.0

    @property
    def se(self) -> float:
        """The standard error at the estimate."""
        return float(np.sqrt(self.quadratic + self.slope * max(self.estimate, 0.0)))

    def bound(self, z: float) -> float:
        """The distance from which the estimate lies -z standard errors off: 1.645 for an upper bound of 95 %."""
        step = z * (max(self.slope, self.growth) if z > 0 else self.slope) / 2
        return self.estimate + z * step + z * float(np.sqrt(self.se**2 + step * step))


def spread(
    estimate: float, *, biased: float, linear: float, quadratic: float, inflation: float = 1.0, growth: float = 0.0
) -> Spread:
    """From what samples tell.

    Args:
        estimate: of the distance, without bias.
        biased: the distance of the samples themselves, which is larger.
        linear: variance by the delta method at the samples, which finds that of the linear part and 2 V.
        quadratic: V.
        inflation: of V, because it is estimated from few.
        growth: of `linear` with the distance, where the samples are weighted so that it grows; counts by the share of
            the linear part's standard error that is not V's.
    """
    noise = float(np.sqrt(quadratic))
    usual = linear / biased if biased > 0 else 0.0  # the slope where there is nothing but noise
    excess = max(linear - 2 * quadratic, 0.0)
    weight = max(estimate, 0.0) + noise
    slope = (excess + usual * noise) / weight if weight > 0 else 0.0
    own = float(np.sqrt(excess / linear)) if linear > 0 else 0.0
    return Spread(estimate, quadratic * inflation, slope, max(slope, own * growth))
