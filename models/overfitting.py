"""Two measures of memorisation from nearest training samples: C_T and authenticity. Knows no samples or extractors.

They are reported and decide nothing: C_T grows with the number of samples (at 10,000 an AUC of .488 is -3), and noisy
fakes hide copies from it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from models.binomial import Share, share_of
from models.clusters import Indices

MIN_IN_CELL = 20  # fakes, and held-out samples, for a cell to count

Distances = NDArray[np.float64]  # [N]


class Overfitting(NamedTuple):
    """How near to the training set fakes lie, against held-out samples.

    Args:
        c_t: below 0 where fakes lie nearer than held-out samples do; about standard normal, or narrower, where they
            lie alike (Meehan et al. 2020). Free of no number of samples.
        auc: the chance that a fake lies farther from the training set than a held-out sample; ties count half.
            With its 95 % interval (DeLong et al. 1988); free of the numbers of both, not of the training set's.
        authentic: share of fakes that lie farther from their nearest training sample than that one does from its own
            nearest (AuthPct, Alaa et al. 2022), with its interval at this training set.
    """

    c_t: float
    auc: Share
    authentic: Share


def copying_score(fake: Distances, held_out: Distances, fake_cells: Indices, held_out_cells: Indices) -> float:
    """C_T: the Mann-Whitney z of fakes' distances against held-out ones in each cell, weighted by held-out shares.

    Cells with fewer than 20 of either are left out; NaN where none is left.
    """
    weights, scores = [], []
    for cell in np.unique(held_out_cells):
        q, p = fake[fake_cells == cell], held_out[held_out_cells == cell]
        if min(len(q), len(p)) < MIN_IN_CELL:
            continue
        m, n = len(q), len(p)
        larger = rankdata(np.concatenate([q, p]))[:m].sum() - m * (m + 1) / 2
        weights.append(n)
        scores.append((larger - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
    return float(np.average(scores, weights=weights)) if weights else float("nan")


def farther(fake: Distances, held_out: Distances) -> Share:
    """The chance that a fake's distance is the larger one, ties counting half, with DeLong's interval."""
    m, n = len(fake), len(held_out)
    ranks = rankdata(np.concatenate([fake, held_out]))
    of_fake = (ranks[:m] - rankdata(fake)) / n  # the share of held-out ones below each fake
    of_held_out = 1 - (ranks[m:] - rankdata(held_out)) / m
    auc = float(of_fake.mean())
    error = 1.96 * float(np.sqrt(of_fake.var(ddof=1) / m + of_held_out.var(ddof=1) / n))
    return Share(auc, max(0.0, auc - error), min(1.0, auc + error))


def authentic(fake: Distances, of_nearest: Distances) -> Share:
    """The share of fakes whose distance to their nearest training sample exceeds that sample's own to its nearest."""
    return share_of(int((fake > of_nearest).sum()), len(fake))
