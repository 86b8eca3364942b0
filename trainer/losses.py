"""The game's losses, on logits. Knows nothing of networks' insides or optimisers.

D is a binary classifier, real = 1, fake = 0, D(x) = sigmoid(logit); V = E log D(x) + E log(1 - D(G(z))) (Goodfellow et
al. 2014, Eq. 1). With softplus(l) = log(1 + e^l): -log sigmoid(l) = softplus(-l), -log(1 - sigmoid(l)) = softplus(l).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trainer.config import Loss


def d_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:  # [N], [N] -> []
    """-V: what D minimises."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def g_loss(fake_logits: Tensor, loss: Loss) -> Tensor:  # [N] -> []
    """What G minimises.

    "non-saturating": -log D(G(z)), gradient by the logit -(1 - D). "minimax": log(1 - D(G(z))), gradient -D, which
    vanishes while D is right.
    """
    return softplus(-fake_logits).mean() if loss == "non-saturating" else -softplus(fake_logits).mean()


def r1_penalty(discriminate: Callable[[Tensor], Tensor], real_images: Tensor, gamma: float) -> Tensor:
    """gamma/2 E|grad_x D(x)|^2 on real images [N, C, H, W], D's logit in fp32 (Mescheder et al. 2018, Eq. 9)."""
    images = real_images.detach().float().requires_grad_(True)
    with torch.autocast("cpu", enabled=False):
        (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gamma / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
