"""Freezes a network for a period: parameters and BatchNorm buffers alike. Knows nothing of which or when."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within: gradients flow through the network but not into it, and its running statistics stand still.

    BatchNorm still normalises by the batch, as in training: with track_running_stats off, it reads and writes no
    buffer while the module is in training mode.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    network.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        network.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True
