"""A run of `genserve train` on points of the plane, as the theory looks at one. Knows no figures and no command line.

V is what D ascends: less its own loss and its penalties, as the run has them. G is looked at as if it descended the
same V, though most objectives give it a loss of its own with the same end (Goodfellow et al. 2014, section 3).

A run's folder keeps no D but the last one, so its training is played again: where machine, threads and libraries are
the same, to the same bits.
"""

import copy
from collections.abc import Iterator
from functools import partial

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from models.datasets import Dataset
from models.errors import Invalid
from models.standardising import standardisation
from trainer.diagnosis import CHANCE
from trainer.ema import draw_z
from trainer.regularisers import Part, gradient_penalty, zero_centred
from trainer.run_dir import Run
from trainer.state import State, adam
from trainer.steps import Steps
from trainer.streams import Stream
from trainer.theory_surface import Gap
from trainer.training import begin

HELD_OUT = 2048  # points of each kind for a value: a D with penalties on both takes a minute for its second derivatives
NOISE_SEED = 77  # of the noise that D sees points through while it is looked at: the same for every value
HELD_OUT_SEED = 2**40  # of the latents that no training has seen


class RunGame:
    """A run's G and D as they are now, in double precision.

    Args:
        state: of the run; copied.
    """

    def __init__(self, state: State) -> None:
        self.config, self.objective, self.gamma_share = state.config, state.objective, state.gamma_share
        self.G: nn.Module = copy.deepcopy(state.G).double().eval()
        self.D: nn.Module = copy.deepcopy(state.D).double().eval()

    def value(self, x: Tensor, z: Tensor) -> Tensor:  # [N, 2] in standard units, [N, z_dim] -> []
        """V; G's part in it is what it generates, not what is penalised."""
        config = self.config
        generator = torch.Generator().manual_seed(NOISE_SEED)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        noise = self._noise(torch.rand(len(x), 1, generator=generator, dtype=torch.float64))
        judges = [partial(self._judge, noise=noise, unit=draw(*x.shape)) for _ in ("real", "fake")]
        x, fake = x.detach().requires_grad_(True), self.G(z)
        real_answers, fake_answers = judges[0](x), judges[1](fake)
        value = -self.objective.d_loss(real_answers, fake_answers)
        parts = []
        if config.r1_gamma:
            parts.append(Part(x, real_answers, config.r1_gamma * self.gamma_share, noise))
        if config.r2_gamma:
            still = fake.detach().requires_grad_(True)
            parts.append(Part(still, judges[1](still), config.r2_gamma * self.gamma_share, noise))
        if parts:
            value = value - zero_centred(parts)
        if config.gp_lambda:
            mix = torch.rand(len(x), generator=generator, dtype=torch.float64)
            value = value - gradient_penalty(judges[0], x, fake, mix, config.gp_lambda)
        return value

    def copy(self) -> "RunGame":
        """The same networks with weights of their own."""
        other = copy.copy(self)
        other.G, other.D = copy.deepcopy(self.G), copy.deepcopy(self.D)
        return other

    def _noise(self, share: Tensor) -> Tensor | None:  # [N, 1] on [0, 1) -> [N, 1]
        """The deviation of each pair's noise, log-uniform as in training; None where D sees none."""
        low, high = self.config.noise_min, self.config.noise_max
        return low * (high / low) ** share if high else None

    def _judge(self, points: Tensor, noise: Tensor | None, unit: Tensor) -> Tensor:  # [N, 2] -> [N]
        answers: Tensor = self.D(points) if noise is None else self.D(points + noise * unit, None, noise)
        return answers


class Plane:
    """A run on points of the plane, and its data.

    Args:
        run: of vectors with two columns, without classes.
        data: of the run.

    Raises:
        Invalid: it is another kind of run.
    """

    def __init__(self, run: Run, data: Dataset) -> None:
        if run.config.preset != "mlp" or run.shape != (2,) or run.classes is not None:
            what = "x".join(map(str, run.shape)) + (" with classes" if run.classes else "")
            raise Invalid(f"runs on points of the plane are drawn, and this one is of shape {what}", field="run")
        self.run, self.data = run, data
        self.standard = standardisation(np.asarray(data.split("train").samples, np.float32))

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Points [N, 2] of the validation split in standard units, latents [N, z_dim] of no training; N <= 2,048."""
        points = np.asarray(self.data.split("validation").samples, np.float32)[:HELD_OUT]
        x = torch.from_numpy(self.standard.apply(points)).double()
        stream = torch.Generator().manual_seed(HELD_OUT_SEED)
        return x, draw_z(len(x), self.run.config.z_dim, self.run.config.prior, stream).double()


def replay(plane: Plane, last: int, moments: set[int]) -> Iterator[Steps]:
    """Train a run again, in memory, and show it before each of these steps, of 0 .. last.

    Yields:
        The same object every time, with its state as it is then.
    """
    steps = begin(plane.run, plane.data)
    for step in range(last + 1):
        if step in moments:
            yield steps
        if step < last:
            steps.take()


def best_answers(steps: Steps, count: int, x: Tensor, z: Tensor) -> Gap:
    """What copies of D and of G win by `count` steps against the other as it is, on held-out points and latents.

    Each goes through the run's whole schedule in those steps, with an optimiser and an order of the data of its own;
    G by its own loss. The run does not move.
    """
    state = steps.state
    against_g, against_d = (_student(steps, count) for _ in ("D", "G"))
    for step in range(count):
        against_g.state.train_d(against_g.batch(step), step)
        against_d.state.train_g(against_d.batch(step))
        against_d.state.num_images += state.config.batch_size  # by which the schedule goes
    games = [RunGame(other) for other in (state, against_g.state, against_d.state)]
    for game in games[1:]:
        game.gamma_share = games[0].gamma_share  # one V for all three, wherever the students' schedules have ended
    return Gap(state.step, *(game.value(x, z).item() for game in games))


def value_at_chance(loss: str) -> float:
    """V where p_g = p_data and D cannot tell them apart."""
    return 0.0 - CHANCE.get(loss, 0.0)


def _student(steps: Steps, count: int) -> Steps:
    """A copy of a run that is about to take its whole schedule in `count` steps."""
    other = copy.copy(steps)
    other.state = state = copy.deepcopy(steps.state)
    kimg = count * state.config.batch_size / 1000
    state.config = msgspec.structs.replace(state.config, kimg=kimg, seed=state.config.seed + 1)
    state.num_images, state.stream = 0, Stream(state.config.seed, state.config.batch_size, state.crew)
    state.g_optimiser = adam(state.G, state.config.g_lr, state.config)
    state.d_optimiser = adam(state.D, state.config.d_lr, state.config)
    other.batches = type(steps.batches)(steps.batches.num_images, state.config)
    return other
