"""Pure functions of how far a run is: whose turn it is, which images come, the learning rate. Knows no torch."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from trainer.config import Config, Decay

Turn = Literal["D", "G"]


def turn(step: int, d_steps: int, g_steps: int) -> Turn:
    """Who trains in this step (from 0): D for d_steps first, then G for g_steps, and so on."""
    return "D" if step % (d_steps + g_steps) < d_steps else "G"


def d_steps_before(step: int, d_steps: int, g_steps: int) -> int:
    """How many of the steps before this one were D's."""
    rounds, rest = divmod(step, d_steps + g_steps)
    return rounds * d_steps + min(rest, d_steps)


def batch_number(step: int, d_steps: int, g_steps: int) -> int:
    """Which batch of the data a step sees: D's the next one, G's those of D's period before it, in turn."""
    before = d_steps_before(step, d_steps, g_steps)
    position = step % (d_steps + g_steps) - d_steps  # in G's period
    return before if position < 0 else before - d_steps + position % d_steps


def scheduled(first: float, last: float, progress: float, start: float, decay: Decay) -> float:
    """A scheduled value: the first one until `start`, then linearly or by half a cosine to the last at progress 1."""
    if progress <= start or start >= 1:  # the last batch may end beyond 1
        return first
    way = min(1.0, (progress - start) / (1.0 - start))
    if decay == "cosine":
        way = (1 - math.cos(math.pi * way)) / 2
    return first + (last - first) * way


class Batches:
    """The order of the data: in every epoch a new permutation, cut into whole batches.

    Args:
        num_images: in the training split.
        config: gives seed and batch_size.

    Raises:
        DataError: fewer images than one batch.
    """

    def __init__(self, num_images: int, config: Config) -> None:
        if num_images < config.batch_size:
            detail = f"{num_images} training images do not fill a batch of {config.batch_size}"
            raise DataError(f"{detail}: bring more, or lower --batch-size", field="data")
        self.num_images, self.batch_size, self.seed = num_images, config.batch_size, config.seed
        self.per_epoch = num_images // config.batch_size
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, d_step: int) -> NDArray[np.int64]:  # [batch_size]
        """The indices of the batch that D's step of this number (from 0) sees."""
        epoch, position = divmod(d_step, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.num_images)
            self._epoch = epoch
        return self._order[position * self.batch_size : (position + 1) * self.batch_size]


def period_steps(period: int, config: Config, batches: Batches) -> int:
    """A period's length in steps."""
    return period * (batches.per_epoch if config.period_unit == "epochs" else 1)
