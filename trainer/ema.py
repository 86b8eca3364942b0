"""The exponential moving average of G that is evaluated and exported. Knows nothing of training."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.manifest import Prior, Signature
from trainer.config import Precision

NUM_STATISTICS_BATCHES = 100
STATISTICS_SEED = 0
RAMP_UP = 0.05  # the half-life is at most this share of the images seen (Karras et al. 2020)


def ema_beta(step_images: float, half_life_images: float, num_images: float) -> float:
    """The weight that the average keeps in one step of G, beta = 0.5^(step_images / half-life).

    Args:
        step_images: shown to D from one step of G to the next, on average.
        half_life_images: likewise shown to D.
        num_images: shown to D so far.
    """
    half_life = min(half_life_images, RAMP_UP * num_images)
    return 0.5 ** (step_images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update_ema(G_ema: nn.Module, G: nn.Module, beta: float) -> None:
    """G_ema <- beta G_ema + (1 - beta) G, parameters only: buffers are re-estimated when they are needed."""
    torch._foreach_lerp_(list(G_ema.parameters()), list(G.parameters()), 1.0 - beta)


@torch.no_grad()
def reestimate_statistics(G_ema: nn.Module, signature: Signature, batch_size: int, precision: Precision) -> None:
    """Give the averaged weights BatchNorm statistics of their own, from 100 fixed batches; leaves eval mode on.

    The running statistics of G belong to G's weights, and averaging them does not give the average's. In bf16 it takes
    a third of the time, and moves a statistic by less than another draw of z does: rounding averages out.
    """
    norms = [module for module in G_ema.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches
    generator, device = torch.Generator().manual_seed(STATISTICS_SEED), next(G_ema.parameters()).device
    G_ema.train()
    for _ in range(NUM_STATISTICS_BATCHES if norms else 0):
        z = draw_z(batch_size, signature.z_dim, signature.prior, generator)
        classes = draw_classes(batch_size, signature, generator)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            G_ema(z.to(device), None if classes is None else classes.to(device))
    G_ema.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def draw_z(count: int, z_dim: int, prior: Prior, generator: torch.Generator) -> Tensor:  # [count, z_dim]
    """Training's z, from a torch stream; the service's come from models.latents."""
    if prior == "normal":
        return torch.randn(count, z_dim, generator=generator)
    return torch.rand(count, z_dim, generator=generator) * 2 - 1


def draw_classes(count: int, signature: Signature, generator: torch.Generator) -> Tensor | None:  # [count] int64
    """Classes as frequent as in the data; None for an unconditional generator."""
    if signature.classes is None:
        return None
    return torch.multinomial(torch.tensor(signature.classes.frequencies), count, True, generator=generator)
