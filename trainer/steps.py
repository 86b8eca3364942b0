"""Takes a run's steps, one after the other, each on its batch of the data. Knows no files and no terminal."""

import numpy as np
import torch
from numpy.typing import NDArray

from models.flips import chosen_half
from models.splits import Samples
from trainer.pixels import to_tensor
from trainer.schedule import Batches, batch_number, period_steps, turn
from trainer.state import Batch, DStep, GStep, State


class Steps:
    """The whole training split on the device, images as uint8, and whose turn it is.

    Args:
        state: fresh, or loaded from a checkpoint.
        samples: the training split, uint8 [N, H, W, C], or float32 [N, d] in standard units; None in any process but
            the first, which shares it.
        labels: of them, int64 [N], for a conditional run; else None.
    """

    def __init__(self, state: State, samples: Samples | None, labels: NDArray[np.int64] | None) -> None:
        self.state, crew = state, state.crew
        self.samples = crew.share_array(samples)
        self.labels = crew.share_array(labels) if state.config.conditional else None
        self.batches = Batches(len(self.samples), state.config)
        self.d_steps = period_steps(state.config.d_period, state.config, self.batches)
        self.g_steps = period_steps(state.config.g_period, state.config, self.batches)

    def batch(self, d_step: int) -> Batch:
        """Of D's step of this number (from 0), this process's part; about half mirrored where that is asked for."""
        config, stream = self.state.config, self.state.stream
        rows = stream.mine(torch.from_numpy(self.batches[d_step]))
        samples = self.samples[rows]
        if config.flip:
            chosen = chosen_half(config.batch_size, seed=config.seed, position=d_step * config.batch_size)
            mirrored = stream.mine(torch.from_numpy(chosen))[:, None, None, None]
            samples = torch.where(mirrored, samples.flip(2), samples)
        return Batch(to_tensor(samples), None if self.labels is None else self.labels[rows])

    def take(self) -> DStep | GStep:
        """One step of D or of G.

        Raises:
            Diverged: a value is not finite.
        """
        state = self.state
        d_step = batch_number(state.step, self.d_steps, self.g_steps)
        real = self.batch(d_step)
        if turn(state.step, self.d_steps, self.g_steps) == "D":
            return state.train_d(real, d_step)
        return state.train_g(real)
