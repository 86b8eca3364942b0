"""Exact intervals for shares (Clopper & Pearson 1934). Knows nothing of what is counted."""

from typing import NamedTuple

from scipy.special import betaincinv

CONFIDENCE = 0.95


class Share(NamedTuple):
    """A share with its two-sided 95 % interval."""

    value: float
    low: float
    high: float


def upper_bound(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper bound of a share, exact for the binomial."""
    return 1.0 if count >= total else float(betaincinv(count + 1, total - count, confidence))


def share_of(count: int, total: int, confidence: float = CONFIDENCE) -> Share:
    """count / total with its two-sided interval, exact for the binomial.

    Of trials whose chances differ it covers their mean chance too, and more often (Hoeffding 1956).
    """
    tail = (1 - confidence) / 2
    low = 0.0 if count <= 0 else float(betaincinv(count, total - count + 1, tail))
    return Share(count / total, low, upper_bound(count, total, 1 - tail))
