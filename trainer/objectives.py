"""The games that D and G can play, each a small class on D's outputs. Knows nothing of networks or optimisers.

What D answers for an image is a number l: a logit for most objectives, a score for Wasserstein and hinge. With
softplus(l) = log(1 + e^l): -log sigmoid(l) = softplus(-l) and -log(1 - sigmoid(l)) = softplus(l), finite for every l.

Each objective says what it shows of D (`shown`) and what that is where p_g = p_data and D is at its best
(`equilibrium`): its own quantity, None where the objective has none. A D at its equilibrium does not prove that G is at
its own: a dead D says the same.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from trainer.config import Loss


class Objective:
    """What D and G minimise, from D's outputs on N real and N generated images.

    `paired`: G's loss looks at real images too. `equilibrium`: what both values of `shown` tend to, None for none.
    """

    paired: ClassVar[bool] = False
    equilibrium: ClassVar[float | None] = 0.5

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """What D minimises."""
        raise NotImplementedError

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """What G minimises; `real` is needed where the objective is paired."""
        raise NotImplementedError

    def shown(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] -> [], []
        """The two numbers that stand for D(x) and D(G(z)) in what a person reads: here the mean outputs."""
        return real.mean(), fake.mean()


class Logistic(Objective):
    """D = sigmoid(l) is the probability of "real"; D's loss is -V (Goodfellow et al. 2014, Eq. 1).

    V = E log D(x) + E log(1 - D(G(z))). The best D is p_data / (p_data + p_g), 1/2 where they are equal.
    """

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """-V; by the logits, gradient -(1 - D(x)) and D(G(z))."""
        return softplus(-real).mean() + softplus(fake).mean()

    def shown(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] -> [], []
        """The mean probabilities."""
        return real.sigmoid().mean(), fake.sigmoid().mean()


class Minimax(Logistic):
    """G minimises V itself (Goodfellow et al. 2014, Eq. 1): saturating."""

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N] -> []
        """log(1 - D(G(z))); by the logit, gradient -sigmoid(l): it vanishes while D is sure of its fakes."""
        return -softplus(fake).mean()


class NonSaturating(Logistic):
    """G maximises log D(G(z)) (Goodfellow et al. 2014, section 3): the same fixed point, a useful gradient."""

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N] -> []
        """-log D(G(z)); by the logit, gradient -(1 - sigmoid(l)): -1 while D is sure of its fakes."""
        return softplus(-fake).mean()


class LeastSquares(Objective):
    """Real is 1 and fake 0, by squares (Mao et al. 2017, Eq. 9 with a = 0, b = c = 1).

    The best D is p_data / (p_data + p_g) here too, in D's own scale and without a sigmoid: 1/2 where they are equal.
    """

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """(D(x) - 1)^2 + D(G(z))^2, halved; gradient D(x) - 1 and D(G(z)): it grows with the error."""
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N] -> []
        """(D(G(z)) - 1)^2, halved; gradient D(G(z)) - 1."""
        return (fake - 1).square().mean() / 2


class Hinge(Objective):
    """Margins of one (Lim & Ye 2017, Eq. 8-9; Miyato et al. 2018, Eq. 16-17). At p_g = p_data D may take any value."""

    equilibrium = None

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """relu(1 - D(x)) + relu(1 + D(G(z))); gradient -1 and 1 inside the margins, 0 beyond."""
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N] -> []
        """-D(G(z)); gradient -1 everywhere."""
        return -fake.mean()


class Wasserstein(Objective):
    """The earth mover's distance, by a 1-Lipschitz D (Arjovsky et al. 2017, Eq. 2-3).

    D has no scale of its own: a penalty or spectral normalisation must bound its slope. At p_g = p_data every D is
    as good as any other.
    """

    equilibrium = None

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """D(G(z)) - D(x); gradient -1 and 1 everywhere."""
        return fake.mean() - real.mean()

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N] -> []
        """-D(G(z)); gradient -1 everywhere."""
        return -fake.mean()


class Relativistic(Objective):
    """Pairs: is the real image more real than the fake one? (Jolicoeur-Martineau 2019; Huang et al. 2024, Eq. 2).

    The l-th real and the l-th fake of a batch are a pair. sigmoid(D(x) - D(G(z))) is the probability that the pair is
    told the right way round, 1/2 where p_g = p_data; D's outputs have no zero of their own.
    """

    paired = True

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """-log sigmoid(D(x) - D(G(z))); gradient by the difference -(1 - sigmoid)."""
        return softplus(fake - real).mean()

    def g_loss(self, real: Tensor | None, fake: Tensor) -> Tensor:  # [N], [N] -> []
        """-log sigmoid(D(G(z)) - D(x)); gradient by the difference -(1 - sigmoid): -1 while D is sure."""
        if real is None:
            raise ValueError("a relativistic G needs D's outputs on real images")
        return softplus(real - fake).mean()

    def shown(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:  # [N], [N] -> [], []
        """The mean probability that a pair is told the right way round, and its complement."""
        right = (real - fake).sigmoid().mean()
        return right, torch.ones_like(right) - right


OBJECTIVES: dict[Loss, type[Objective]] = {
    "non-saturating": NonSaturating,
    "minimax": Minimax,
    "least-squares": LeastSquares,
    "hinge": Hinge,
    "wasserstein": Wasserstein,
    "relativistic": Relativistic,
}


def make_objective(loss: Loss) -> Objective:
    """The objective that a configuration names."""
    return OBJECTIVES[loss]()
