"""Freezes a network for a period: parameters and buffers alike. Knows nothing of which or when."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.regularisers import SpectralNorm


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within: gradients flow through the network but not into it, and nothing of it may change.

    BatchNorm still normalises by the batch, as in training: with track_running_stats off, it reads and writes no
    buffer while the module is in training mode. Spectral normalisation keeps the singular vectors that it has.

    Fused optimisers write without autograd's knowledge: `guard` them.

    Raises:
        RuntimeError: a parameter or a buffer was written to meanwhile; names it.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    spectral = [module for module in network.modules() if isinstance(module, SpectralNorm)]
    before = _versions(network)
    network.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    for module in spectral:
        module.eval()
    try:
        yield
    finally:
        network.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True
        for module in spectral:
            module.train()
    if changed := [name for name, version in _versions(network).items() if version != before[name]]:
        raise RuntimeError(f"{changed[0]} of {type(network).__name__} changed while it was frozen")


def guard(optimiser: torch.optim.Optimizer) -> None:
    """From now on a step of this optimiser on a frozen network raises RuntimeError."""
    optimiser.register_step_pre_hook(_require_thawed)


def _require_thawed(optimiser: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    if not all(p.requires_grad for group in optimiser.param_groups for p in group["params"]):
        raise RuntimeError("an optimiser would change a network while it is frozen")


def _versions(network: nn.Module) -> dict[str, int]:
    """How often each parameter and buffer was written to in place, as autograd counts: no look at the values."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return {name: tensor._version for name, tensor in tensors}
