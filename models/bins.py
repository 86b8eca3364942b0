"""NDB: bins of the data that hold another share of fakes than of reals (Richardson & Weiss 2018), or hardly any.

Knows no extractors and no samples: it compares counts. Bins are k-means clusters of training samples.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from models.binomial import Share, share_of
from models.clusters import Indices

NUM_BINS = 100
ROWS_PER_BIN = 20  # of reals, so that a bin's share can be told: fewer bins where the reals are few
SIGNIFICANT = 1.959964  # two-sided at 5 %
SCARCE = 0.2  # a bin whose fakes are a smaller part of what its reals would be is left out


class BinTest(NamedTuple):
    """Which bins differ.

    Args:
        different: NDB / K, the share of bins whose two shares differ at the 5 % level: about 0.05 for a perfect
            generator. It has no value free of the numbers of samples; the interval covers its mean at these.
        p_value: of the chi-squared test that all shares are equal.
        num_bins: K.
    """

    different: Share
    p_value: float
    num_bins: int


def bins_for(num_reals: int) -> int:
    """How many bins so many reals fill: 100, fewer below 2,000."""
    return max(2, min(NUM_BINS, num_reals // ROWS_PER_BIN))


def compare_bins(fake: Indices, real: Indices, num_bins: int) -> BinTest:
    """Tests bins [M] of fakes against [N] of reals: in each bin two shares, with their pooled standard error.

    The interval takes the bins for K trials of their own chances, which Clopper & Pearson's covers; they are all but
    independent, since each holds a small share of the samples.
    """
    counts = np.stack([np.bincount(side, minlength=num_bins) for side in (fake, real)]).astype(np.float64)
    totals = counts.sum(1, keepdims=True)
    pooled = counts.sum(0) / totals.sum()
    shares = counts / totals
    error = np.sqrt(pooled * (1 - pooled) * (1 / totals).sum())
    differ = np.abs(shares[0] - shares[1]) > SIGNIFICANT * error
    filled = pooled > 0
    expected = totals * pooled[filled]
    chi2 = float(((counts[:, filled] - expected) ** 2 / expected).sum())
    p_value = float(chdtrc(max(1, filled.sum() - 1), chi2))
    return BinTest(share_of(int(differ.sum()), num_bins), p_value, num_bins)


def share_left_out(fake: Indices, real: Indices, num_bins: int) -> float:
    """The share of reals, by their bins [N], whose bin holds less than a fifth as large a share of the fakes' [M].

    About 0 for a perfect generator where bins are filled, and 1/2 for one that never makes half of the modes. Unlike
    NDB it does not grow with the numbers of samples, and unlike coverage it does not ask that samples look real.
    """
    fakes, reals = (np.bincount(side, minlength=num_bins) / len(side) for side in (fake, real))
    return float(reals[fakes < SCARCE * reals].sum())
