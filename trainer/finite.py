"""Stops a training whose numbers are no longer finite, and says where that began. Knows nothing of files.

One number decides: the loss and the norm of the gradient, looked at before every step of an optimiser, so no weight is
ever overwritten by NaN. Only when that fails is every tensor looked at.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.errors import GenserveError
from models.splits import Samples
from trainer.network_parts import Generator

HUGE = 1e15  # squares of differences still fit in float32


class Diverged(GenserveError):
    """A loss, a gradient or a weight is NaN or infinite: this training cannot go on."""

    title = "Training diverged"


def require_finite(
    step: int, player: nn.Module, other: nn.Module, loss: Tensor, norm: Tensor, faulty: Tensor | None = None
) -> None:
    """Before a player's step: its loss and its gradient's norm must be finite.

    A weight that is not finite makes everything after it so, in both networks: weights are looked at first.

    Args:
        step: of either network, as it is said.
        player: whose weights are about to change.
        other: the frozen one.
        loss: what was differentiated, penalties included.
        norm: of the gradient over all the player's weights.
        faulty: [size], above 0 for the processes where this began, where several train.

    Raises:
        Diverged: names the step and the first tensor at fault.
    """
    if torch.isfinite(torch.stack([loss.detach().float(), norm.detach().float()])).all():
        return
    where = _first_weight(player, other) or _first_gradient(player)
    what = "loss" if not torch.isfinite(loss) else "norm of the gradient"
    raise Diverged(f"step {step}{_processes(faulty)}: {where or f'the {what} of {_name(player)}'} is not finite")


def require_finite_weights(step: int, *networks: nn.Module) -> None:
    """Before a checkpoint: every weight must be finite.

    Raises:
        Diverged: names the step and the first tensor at fault.
    """
    if where := _first_weight(*networks):
        raise Diverged(f"step {step}: {where} is not finite")


def require_sane_samples(step: int, samples: Samples) -> None:
    """Before a snapshot: samples of vectors must be numbers that a distance can be computed of; pixels always are.

    Raises:
        Diverged: names the step and the size.
    """
    size = float(np.abs(samples).max()) if samples.dtype != np.uint8 else 0.0
    if not size < HUGE:
        raise Diverged(f"step {step}: samples of G reach {size:.0e}")


def _first_weight(*networks: nn.Module) -> str | None:
    for network in networks:
        for name, parameter in network.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"{name} of {_name(network)}"
    return None


def _first_gradient(network: nn.Module) -> str | None:
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name} of {_name(network)}"
    return None


def _processes(faulty: Tensor | None) -> str:
    """Which of them, unless it is all."""
    ranks = [] if faulty is None else faulty.nonzero().flatten().tolist()
    some = faulty is not None and 0 < len(ranks) < len(faulty)
    return f" (process {', '.join(map(str, ranks))})" if some else ""


def _name(network: nn.Module) -> str:
    return "G" if isinstance(network, Generator) else "D"
