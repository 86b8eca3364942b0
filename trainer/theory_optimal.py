"""The best discriminator there is against a frozen generator, trained and as the formula says. Knows no figures.

D*(x) = p_data(x) / (p_data(x) + p_g(x)) (Goodfellow et al. 2014, Proposition 1). G is an affine map of N(0, I) here, so
that p_g is known exactly.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import softplus

from models.mixtures import Mixture

REACH = 3.0  # of the square that is compared
LEARNED_WEIGHT = ((0.9, 0.3), (0.0, 0.7))
LEARNED_BIAS = (0.3, -0.2)
TARGET = Mixture(((-1.0, 0.0), (1.0, 0.8)), 0.2)


class Optimal(NamedTuple):
    """D as trained and D* on a square grid.

    Args:
        axis: of both coordinates, [P].
        trained: sigmoid of D's logits, [P, P].
        formula: p_data / (p_data + p_g), [P, P].
        weight: (p_data + p_g) / 2 as shares of the grid, [P, P]: where D has seen anything.
    """

    axis: NDArray[np.float64]
    trained: NDArray[np.float64]
    formula: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Mean absolute difference where samples are."""
        return float((np.abs(self.trained - self.formula) * self.weight).sum())


def train_optimal(steps: int = 2000, seed: int = 0, points: int = 61) -> Optimal:
    """Train D alone against the frozen G with fresh samples, and compare it with the formula."""
    G = frozen_generator()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        D = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    stream = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(D.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        x = torch.from_numpy(TARGET.draw(512, seed=seed * steps + step))
        with torch.no_grad():
            fake = G(torch.randn(512, 2, generator=stream))
        optimiser.zero_grad()
        loss = softplus(-D(x)).mean() + softplus(D(fake)).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        optimiser.step()
        schedule.step()
    axis = np.linspace(-REACH, REACH, points)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    with torch.no_grad():
        trained = D(torch.from_numpy(grid.astype(np.float32)))[:, 0].sigmoid().double().numpy()
    p_data, p_g = TARGET.density(grid), generator_density(grid)
    weight = (p_data + p_g) / (p_data + p_g).sum()
    shape = (points, points)
    return Optimal(axis, trained.reshape(shape), (p_data / (p_data + p_g)).reshape(shape), weight.reshape(shape))


def frozen_generator() -> nn.Linear:
    """G(z) = W z + b, as if it had learned half of the truth."""
    G = nn.Linear(2, 2).requires_grad_(False)
    G.weight.copy_(torch.tensor(LEARNED_WEIGHT))
    G.bias.copy_(torch.tensor(LEARNED_BIAS))
    return G


def generator_density(points: NDArray[np.float64]) -> NDArray[np.float64]:  # [N, 2] -> [N]
    """p_g: that of N(b, W W^T)."""
    weight = np.array(LEARNED_WEIGHT)
    z = np.linalg.solve(weight, (points - np.array(LEARNED_BIAS)).T)
    density: NDArray[np.float64] = np.exp(-(z**2).sum(0) / 2) / (2 * math.pi * abs(np.linalg.det(weight)))
    return density
