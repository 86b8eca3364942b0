"""Stops a training whose numbers are no longer finite, and says where that began. Knows nothing of files.

Two numbers decide: the loss and the norm of the gradient of every step of an optimiser, which takes no step where one
of them is not finite, so no weight is ever overwritten by NaN. Only then is every tensor looked at.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.errors import GenserveError
from trainer.network_parts import Generator

HUGE = 1e15  # standard deviations; squares of differences still fit in float32
STEPS_BETWEEN_LOOKS = 32  # where the processor would wait for another device


class Diverged(GenserveError):
    """A loss, a gradient or a weight is NaN or infinite: this training cannot go on."""

    title = "Training diverged"


class Seen(NamedTuple):
    """A step that a player is about to take.

    Args:
        step: of either network, as it is said.
        player: whose weights are about to change.
        other: the frozen one.
        loss: [], what was differentiated, penalties included.
        norm: [], of the gradient over all the player's weights.
        faulty: [size], above 0 for the processes where a fault began, where several train.
    """

    step: int
    player: nn.Module
    other: nn.Module
    loss: Tensor
    norm: Tensor
    faulty: Tensor | None = None


class Lookout:
    """Asks of every step whether its numbers are finite, and waits for the answer only every so many steps.

    From the first step on whose numbers are not, optimisers leave their networks as they are: looking later loses
    nothing but the time until then.

    Args:
        every: steps between two looks; 1 where no device has to be waited for.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: list[Seen] = []
        self._stop: Tensor | None = None

    def see(self, seen: Seen) -> Tensor | None:  # []
        """Take note of a step; returns 1 where it and all later ones must not be taken, None where all may.

        Raises:
            Diverged: see `settle`.
        """
        self._seen.append(seen)
        if self._every > 1:
            bad = torch.isfinite(_numbers(seen)).all().logical_not().float()
            self._stop = bad if self._stop is None else torch.maximum(self._stop, bad)
        if len(self._seen) >= self._every:
            self.settle()
        return self._stop

    def settle(self) -> None:
        """Wait for the steps that nobody has looked at yet.

        A weight that is not finite makes everything after it so, in both networks: weights are looked at first.

        Raises:
            Diverged: names the first step at fault, and the first tensor that still is.
        """
        seen, self._seen = self._seen, []
        finite = torch.isfinite(torch.stack([_numbers(one) for one in seen])).all(1).tolist() if seen else []
        if all(finite):
            return
        step, player, other, loss, _, faulty = seen[finite.index(False)]
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


def require_sane_samples(step: int, reach: float) -> None:
    """Before a snapshot: samples must be numbers that a distance can be computed of.

    Args:
        step: as it is said.
        reach: trainer.network_parts.Generator.reach of the samples.

    Raises:
        Diverged: names the step and the size.
    """
    if not reach < HUGE:
        raise Diverged(f"step {step}: samples of G reach {reach:.0e} standard deviations of the data")


def _numbers(seen: Seen) -> Tensor:  # [2]
    return torch.stack([seen.loss.detach().float(), seen.norm.detach().float()])


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
