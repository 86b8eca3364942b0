"""What theory expects of a run's numbers: losses at the equilibrium, and whether losses tell quality. Knows no HTML."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from trainer.objectives import OBJECTIVES
from trainer.run_records import RunRecord

FEWEST_PAIRS = 5  # below, a rank correlation says nothing
LOSSES = (("d_loss", "D"), ("g_loss", "G"))


class Equilibrium(NamedTuple):
    """Where p_g = p_data and D is at its best.

    Args:
        shown: what both D(x) and D(G(z)) tend to.
        d_loss: of D.
        g_loss: of G.
    """

    shown: float
    d_loss: float
    g_loss: float


class Relation(NamedTuple):
    """Spearman's rank correlation of a loss with FD, over a run's snapshots.

    Args:
        player: "D" or "G".
        losses: the mean loss of the steps since the snapshot before, for each snapshot.
        shares: FD of each, as a share.
        levels: correlation of the two; +1 for a loss that falls whenever FD does.
        changes: correlation of their changes from one snapshot to the next, which a common drift does not feign.
    """

    player: str
    losses: list[float]
    shares: list[float]
    levels: float
    changes: float


def equilibrium(loss: object) -> Equilibrium | None:
    """Of an objective by its name; None for one without a value of its own, or unknown here."""
    kind = next((kind for name, kind in OBJECTIVES.items() if name == loss), None)
    if kind is None or kind.equilibrium is None:
        return None
    objective = kind()
    for answer in (0.0, 0.5):  # of D, whatever it is shown: a logit, or an output in the scale of the labels
        answers = torch.tensor([answer])
        if abs(float(objective.shown(answers, answers)[0]) - kind.equilibrium) < 1e-6:
            d_loss, g_loss = objective.d_loss(answers, answers), objective.g_loss(answers, answers)
            return Equilibrium(kind.equilibrium, float(d_loss), float(g_loss))
    return None


def relations(record: RunRecord) -> list[Relation]:
    """Of both losses with FD; empty where fewer than five snapshots have a score and steps before them."""
    found = []
    for field, player in LOSSES:
        pairs = []
        for before, at in pairwise([0.0, *record.scores]):
            values = [getattr(tick, field) for tick in record.ticks if before < tick.kimg <= at]
            there = [value for value in values if value is not None]
            if there:
                pairs.append((float(np.mean(there)), record.scores[at].share))
        if len(pairs) >= FEWEST_PAIRS:
            losses, shares = [loss for loss, _ in pairs], [share for _, share in pairs]
            levels = _rank_correlation(np.array(losses), np.array(shares))
            changes = _rank_correlation(np.diff(losses), np.diff(shares))
            found.append(Relation(player, losses, shares, levels, changes))
    return found


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:  # [N], [N] -> []
    """Spearman's; 0 where either never changes."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)
