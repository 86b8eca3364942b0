"""The smallest GAN there is, whose whole game can be drawn: real data at 0, G a single point, D a line through 0.

The Dirac-GAN of Mescheder et al. 2018 ("Which Training Methods for GANs do actually Converge?", Definition 2.1): G(z) =
theta, D(x) = psi x, f(t) = -log(1 + e^-t). Knows no figures.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

REACH = 1.5  # of the surface, in both parameters
START = (1.0, 0.0)  # theta, psi: G is wrong, D knows nothing
STEP = 0.1  # the learning rate of both players


class DiracRun(NamedTuple):
    """What a training of the Dirac-GAN passed through.

    Args:
        gamma: weight of R1; 0 for none.
        path: (theta, psi) before the first step and after every turn of both players, [T + 1, 2].
        values: V there, [T + 1].
    """

    gamma: float
    path: NDArray[np.float64]
    values: NDArray[np.float64]


def value(theta: Tensor, psi: Tensor, gamma: float) -> Tensor:
    """V = f(psi theta) + f(0) - gamma/2 psi^2: D ascends it, G descends it (their Eq. 2, and R1 at the data, Eq. 9).

    R1 is on D's gradient by x at the real data, which is psi whatever theta is: G's own gradient is left as it was.
    """
    return -softplus(-psi * theta) - softplus(torch.zeros_like(theta)) - gamma / 2 * psi.square()


def train_dirac(gamma: float, steps: int = 400) -> DiracRun:
    """Alternating gradient steps, D first: a training like any other, on two parameters."""
    theta = torch.tensor(START[0], dtype=torch.float64, requires_grad=True)
    psi = torch.tensor(START[1], dtype=torch.float64, requires_grad=True)
    d_optimiser = torch.optim.SGD([psi], lr=STEP, maximize=True)
    g_optimiser = torch.optim.SGD([theta], lr=STEP)
    path, values = [(theta.item(), psi.item())], [value(theta, psi, gamma).item()]
    for _ in range(steps):
        for optimiser in (d_optimiser, g_optimiser):
            theta.grad = psi.grad = None
            value(theta, psi, gamma).backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
            optimiser.step()
        path.append((theta.item(), psi.item()))
        values.append(value(theta, psi, gamma).item())
    return DiracRun(gamma, np.array(path), np.array(values))


def surface(gamma: float, points: int = 61) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The axis of both parameters [P], and V [P, P] with psi along rows and theta along columns."""
    axis = torch.linspace(-REACH, REACH, points, dtype=torch.float64)
    theta, psi = axis[None, :].expand(points, -1), axis[:, None].expand(-1, points)
    return axis.numpy(), value(theta, psi, gamma).numpy()


def best_value(theta: float, gamma: float) -> float:
    """max over psi of V(theta, psi), which D would reach against a G that waits: lowest at theta = 0.

    Raises:
        ValueError: without R1 there is no maximum.
    """
    if gamma <= 0:
        raise ValueError("without R1 V grows with psi for ever")
    psi = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    fixed = torch.tensor(theta, dtype=torch.float64)
    optimiser = torch.optim.LBFGS([psi], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        psi.grad = None
        cost = -value(fixed, psi, gamma)
        cost.backward()  # type: ignore[no-untyped-call]  # as above
        return cost

    optimiser.step(loss)  # type: ignore[no-untyped-call]  # as above
    return value(fixed, psi, gamma).item()


def hessian(theta: float, psi: float, gamma: float) -> NDArray[np.float64]:
    """Second derivatives of V by (theta, psi): [2, 2]."""

    def of(parameters: Tensor) -> Tensor:
        return value(parameters[0], parameters[1], gamma)

    at = torch.tensor((theta, psi), dtype=torch.float64)
    result: NDArray[np.float64] = torch.autograd.functional.hessian(of, at).numpy()  # type: ignore[no-untyped-call]
    return result
