"""The Inception Score of any classifier: how sure and how varied its answers are. Knows no samples and no reals.

IS = exp E KL(p(y|x) || p(y)) (Salimans et al. 2016), with p(y) the mean over the same samples. It has no value free of
the number of samples, and none that compares between classifiers.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS = 10_000  # at once, in float64


class InceptionScore(NamedTuple):
    """Between 1 and the number of classes; the interval (two-sided, 95 %) covers its mean at this number of samples."""

    value: float
    low: float
    high: float


def inception_score(probabilities: NDArray[Any]) -> InceptionScore:
    """The score of p(y|x) [N, K], N >= 2, over all rows at once.

    The influence of a sample on log IS is its own KL less the mean, so SE(log IS) = sd(KL) / sqrt(N).
    """
    blocks = [slice(start, start + ROWS) for start in range(0, len(probabilities), ROWS)]
    total = sum(np.asarray(probabilities[rows], np.float64).sum(0) for rows in blocks)
    marginal = np.maximum(total / total.sum(), np.finfo(np.float64).tiny)
    divergences = np.concatenate([_divergences(probabilities[rows], marginal) for rows in blocks])
    mean, error = divergences.mean(), 1.96 * divergences.std(ddof=1) / np.sqrt(len(divergences))
    return InceptionScore(*(float(np.exp(mean + shift)) for shift in (0, -error, error)))


def _divergences(probabilities: NDArray[Any], marginal: NDArray[np.float64]) -> NDArray[np.float64]:  # [N, K] -> [N]
    p = np.asarray(probabilities, np.float64)
    p = p / p.sum(1, keepdims=True)
    return np.asarray((p * (np.log(np.maximum(p, np.finfo(np.float64).tiny)) - np.log(marginal))).sum(1))
