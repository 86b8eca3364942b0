"""What keeps D's slope in bounds: R1, R2, the gradient penalty, spectral normalisation. Knows no optimisers.

The penalties differentiate D by its images and are then differentiated by D's weights: both in float32, so D is run
outside autocast wherever one of them is due. They are sums over images of each image's own gradient, which a D with
BatchNorm does not have: trainer.compatibility refuses that.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

SPECTRAL_EPS = 1e-12


class Part(NamedTuple):
    """Images whose slope is penalised: leaves that require a gradient, D's answers to them, and how much."""

    images: Tensor  # [N, ...] float32
    answers: Tensor  # [N], made outside autocast
    gamma: float
    unit: Tensor | None = None  # [N, 1]: of length at each image, for slopes by it; None for the images' own


def zero_centred(parts: Sequence[Part]) -> Tensor:  # -> []
    """The sum of gamma/2 E|grad_x D(x)|^2: on real images R1, on generated ones R2 (Mescheder et al. 2018, Eq. 9-10).

    The parts may come from one call of D: one pass back finds all their gradients.
    """
    answers, images = [part.answers.sum() for part in parts], [part.images for part in parts]
    gradients = torch.autograd.grad(answers, images, create_graph=True)
    slopes = [g if part.unit is None else g * part.unit for part, g in zip(parts, gradients, strict=True)]
    terms = [part.gamma / 2 * slope.square().sum() / len(slope) for part, slope in zip(parts, slopes, strict=True)]
    return torch.stack(terms).sum()


def gradient_penalty(
    discriminate: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, weight: float
) -> Tensor:
    """weight E(|grad D(x_hat)| - 1)^2 between pairs of real and fake (Gulrajani et al. 2017, Eq. 3).

    Args:
        discriminate: D, [N, ...] -> [N].
        real: [N, ...].
        fake: [N, ...].
        mix: the share of `real` in each x_hat, [N], uniform on [0, 1).
        weight: lambda; the paper's is 10.
    """
    mix = mix.view(-1, *[1] * (real.dim() - 1))
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)  # mix is float32, whatever G's images are
    with torch.autocast(between.device.type, enabled=False):
        outputs = discriminate(between)
    (gradients,) = torch.autograd.grad(outputs.sum(), between, create_graph=True)
    slopes: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1)  # its gradient at 0 is 0, not NaN
    return weight * (slopes - 1).square().mean()


class SpectralNorm(nn.Module):
    """W / sigma(W), sigma by one step of power iteration at every use in training mode (Miyato et al. 2018, Alg. 1).

    The singular vector u is a buffer; it stands still in eval mode. The matrix is W with every axis but the first
    flattened, as in the paper's code; computed in float32 whatever autocast says.

    Args:
        weight: the weight to normalise.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("u", nn.functional.normalize(torch.randn(matrix.shape[0]), dim=0, eps=SPECTRAL_EPS))
        self.register_buffer("v", nn.functional.normalize(torch.randn(matrix.shape[1]), dim=0, eps=SPECTRAL_EPS))
        for _ in range(15):
            self._iterate(matrix)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        self.v.copy_(nn.functional.normalize(matrix.T @ self.u, dim=0, eps=SPECTRAL_EPS))
        self.u.copy_(nn.functional.normalize(matrix @ self.v, dim=0, eps=SPECTRAL_EPS))

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.to(self.u.dtype).flatten(1)
            if self.training:
                self._iterate(matrix)
            u, v = self.u.clone(), self.v.clone()  # a later use in the same step must not change this one's graph
            sigma: Tensor = torch.dot(u, matrix @ v)
            return weight / sigma


def normalise_spectrally(network: nn.Module) -> None:
    """Put SpectralNorm on the weight of every convolution, linear layer and embedding, in place."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))
