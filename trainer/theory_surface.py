"""How far a game is from its equilibrium, and what its value looks like there. Knows no figures.

The duality gap is that of Grnarova et al. 2019: what the best answer to G wins over what the best answer to D leaves.
"""

from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from trainer.theory_game import Draw, Game, parameters

Player = Literal["G", "D"]
EVALUATED_ON = 4096  # points of each kind for a value or a second derivative


class Players(Protocol):
    """G and D in double precision, and what D ascends and G descends."""

    G: nn.Module
    D: nn.Module

    def value(self, x: Tensor, z: Tensor) -> Tensor:  # [N, d], [N, z_dim] -> []
        """V; twice differentiable by both networks' parameters, and the same whenever it is asked."""

    def copy(self) -> Self:
        """The same networks with weights of their own."""


class Slice(NamedTuple):
    """V along a direction of each player.

    Args:
        g_axis: steps of G's parameters [P], 0 in the middle.
        d_axis: steps of D's [P], likewise.
        values: V [P, P], D's steps along rows and G's along columns.
    """

    g_axis: NDArray[np.float64]
    d_axis: NDArray[np.float64]
    values: NDArray[np.float64]


class Gap(NamedTuple):
    """The duality gap at one moment of a training.

    Args:
        step: turns of both players before it.
        value: V of the two as they are.
        best_d: V with D replaced by its best answer found.
        best_g: V with G replaced by its best answer found.
    """

    step: int
    value: float
    best_d: float
    best_g: float

    @property
    def gap(self) -> float:
        """0 at an equilibrium; never below but for what K steps on other draws miss."""
        return self.best_d - self.best_g


class Curvature(NamedTuple):
    """A player's own second derivative of V at its ends.

    Args:
        lowest: smallest eigenvalue.
        highest: largest eigenvalue.
        lowest_direction: its unit eigenvector in the player's parameters [P].
        highest_direction: likewise.
    """

    lowest: float
    highest: float
    lowest_direction: NDArray[np.float64]
    highest_direction: NDArray[np.float64]


def duality_gap(game: Game, step: int, answer_steps: int, seed: int) -> Gap:
    """Best answers of `answer_steps` steps from copies, trained and measured on two streams the game has never seen."""
    draw, held_out = Draw(seed), Draw(seed + 1)
    against_g, against_d = game.copy(), game.copy()
    for _ in range(answer_steps):
        against_g.train_d(*draw())
        against_d.train_g(*draw())
    x, z = held_out(EVALUATED_ON)
    return Gap(step, *(other.value(x, z).item() for other in (game, against_g, against_d)))


def curvature(game: Players, player: Player, x: Tensor, z: Tensor, *, tolerance: float = 1e-6) -> Curvature:
    """The extreme eigenvalues of V's Hessian by one player's parameters, by Lanczos on Hessian-vector products."""
    own = parameters(_network(game, player))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(game.value(x, z), own, create_graph=True)])

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        along = gradient @ torch.from_numpy(np.ascontiguousarray(vector.ravel()))
        rows = torch.autograd.grad(along, own, retain_graph=True, materialize_grads=True)
        result: NDArray[np.float64] = torch.cat([row.flatten() for row in rows]).numpy()
        return result

    size = len(gradient)
    start = np.random.RandomState(0).standard_normal(size)
    operator: Any = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, k=2, which="BE", v0=start, tol=tolerance)
    return Curvature(float(values[0]), float(values[1]), vectors[:, 0], vectors[:, 1])


def slice_of_value(
    game: Players,
    g_direction: NDArray[np.float64],
    d_direction: NDArray[np.float64],
    x: Tensor,
    z: Tensor,
    *,
    reach: tuple[float, float] = (1.0, 1.0),
    points: int = 25,
) -> Slice:
    """V round where the game stands, along a direction of each player, as far as `reach` says of G's and of D's."""
    g_axis, d_axis = (np.linspace(-end, end, points) for end in reach)
    values = np.empty((points, points))
    other = game.copy()
    starts = [nn.utils.parameters_to_vector(network.parameters()).detach() for network in (game.G, game.D)]
    ways = [torch.from_numpy(np.array(direction)) for direction in (g_direction, d_direction)]
    for i, d_step in enumerate(d_axis):
        nn.utils.vector_to_parameters(starts[1] + d_step * ways[1], other.D.parameters())
        for j, g_step in enumerate(g_axis):
            nn.utils.vector_to_parameters(starts[0] + g_step * ways[0], other.G.parameters())
            values[i, j] = other.value(x, z).item()
    return Slice(g_axis, d_axis, values)


def _network(game: Players, player: Player) -> nn.Module:
    return game.G if player == "G" else game.D
