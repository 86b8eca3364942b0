"""A whole GAN on points of the plane, small enough to look at from every side. Knows no figures.

G and D are smooth (tanh, softplus), so that second derivatives exist. The value is that of Goodfellow et al. 2014,
Eq. 1, in double precision: V = E log D(x) + E log(1 - D(G(z))), less R1 at the real data, which G never sees.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.mixtures import Mixture
from trainer.freezing import frozen

Z_DIM = 2
WIDTH = 24
BATCH = 256
TARGET = Mixture(((-1.0, -0.6), (1.0, -0.6), (0.0, 1.0)), 0.06)  # three soft modes


class Draw:
    """Real points and latents, fresh for every call, from one seeded stream.

    Args:
        seed: of the stream: another seed is held-out data.
        mixture: of the real points.
    """

    def __init__(self, seed: int, mixture: Mixture = TARGET) -> None:
        self.mixture = mixture
        self.stream = torch.Generator().manual_seed(seed)
        self.centres = torch.tensor(mixture.centres, dtype=torch.float64)

    def __call__(self, count: int = BATCH) -> tuple[Tensor, Tensor]:  # -> x [N, 2], z [N, Z_DIM]
        """`count` of each."""
        chosen = torch.randint(len(self.centres), (count,), generator=self.stream)
        noise = torch.randn(count, 2, generator=self.stream, dtype=torch.float64) * self.mixture.variance**0.5
        return self.centres[chosen] + noise, torch.randn(count, Z_DIM, generator=self.stream, dtype=torch.float64)


class Game:
    """G and D, the weight of R1, and their optimisers.

    Args:
        gamma: weight of R1, gamma/2 E|grad_x D(x)|^2 (Mescheder et al. 2018, Eq. 9).
        seed: of the networks' weights.
        lr: of both players' Adam.
    """

    def __init__(self, gamma: float = 0.1, seed: int = 0, lr: float = 2e-3) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.G: nn.Module = _mlp(Z_DIM, nn.Tanh, 2)
            self.D: nn.Module = _mlp(2, nn.Softplus, 1)
        self.gamma, self.lr = gamma, lr
        self.d_optimiser = torch.optim.Adam(self.D.parameters(), lr, betas=(0.5, 0.99), maximize=True)
        self.g_optimiser = torch.optim.Adam(self.G.parameters(), lr, betas=(0.5, 0.99))

    def value(self, x: Tensor, z: Tensor) -> Tensor:
        """V less R1 on real points [N, 2] and latents [N, Z_DIM]; differentiable by both networks' parameters."""
        x = x.detach().requires_grad_(True)
        real, fake = self.D(x)[:, 0], self.D(self.G(z))[:, 0]
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        return -softplus(-real).mean() - softplus(fake).mean() - self.gamma / 2 * slope.square().sum(1).mean()

    def train_d(self, x: Tensor, z: Tensor) -> None:
        """One step of D up V, G frozen."""
        self.d_optimiser.zero_grad()
        with frozen(self.G):
            self.value(x, z).backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        self.d_optimiser.step()

    def train_g(self, x: Tensor, z: Tensor) -> None:
        """One step of G down V, D frozen."""
        self.g_optimiser.zero_grad()
        with frozen(self.D):
            self.value(x, z).backward()  # type: ignore[no-untyped-call]  # as above
        self.g_optimiser.step()

    def copy(self) -> "Game":
        """The same networks in a game of their own, with fresh optimisers."""
        other = Game(self.gamma, lr=self.lr)
        other.G.load_state_dict(copy.deepcopy(self.G.state_dict()))
        other.D.load_state_dict(copy.deepcopy(self.D.state_dict()))
        return other


def parameters(network: nn.Module) -> Sequence[nn.Parameter]:
    """All of a network's parameters, in order."""
    return list(network.parameters())


def _mlp(inputs: int, activation: type[nn.Module], outputs: int) -> nn.Sequential:
    layers = (nn.Linear(inputs, WIDTH), activation(), nn.Linear(WIDTH, WIDTH), activation(), nn.Linear(WIDTH, outputs))
    return nn.Sequential(*layers).double()
