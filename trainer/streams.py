"""The random numbers of a run's steps: drawn on the processor for the whole batch, whatever trains. Knows no networks.

So they depend neither on the device nor on the number of processes. They are few: z, and a handful for each image.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from trainer.distributed import Crew


class Stream:
    """Draws for whole batches and keeps this process's rows, on its device.

    Shapes are of what this process gets; one axis is of samples, as many as its part of a batch or a multiple of that.

    Args:
        seed: of the stream.
        batch_size: of all processes together.
        crew: who they are; one process without it.
    """

    def __init__(self, seed: int, batch_size: int, crew: Crew | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.batch_size, self.crew = batch_size, crew or Crew()

    def rand(self, *shape: int, axis: int = 0) -> Tensor:
        """Uniform on [0, 1)."""
        return self._draw(partial(torch.rand, generator=self.generator), shape, axis)

    def randn(self, *shape: int, axis: int = 0) -> Tensor:
        """Standard normal."""
        return self._draw(partial(torch.randn, generator=self.generator), shape, axis)

    def randint(self, low: int, high: int, *shape: int, axis: int = 0) -> Tensor:
        """Whole numbers, low <= k < high."""
        return self._draw(partial(torch.randint, low, high, generator=self.generator), shape, axis)

    def mine(self, whole: Tensor, axis: int = 0) -> Tensor:
        """This process's rows of something drawn for the whole batch."""
        return self.crew.mine(whole, self.batch_size, axis)

    def _draw(self, draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...], axis: int) -> Tensor:
        whole = (*shape[:axis], shape[axis] * self.crew.size, *shape[axis + 1 :])
        return self.mine(draw(whole), axis)
