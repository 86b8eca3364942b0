"""Training speed: images a second of a preset against a plain float32 loop of the same networks, taking turns.

    python -m bench.training [--preset resize fashion-mnist r3gan] [--shape 28 28 1] [--threads 2] [--rounds 5]
        [--steps 20] [--compiled] [--json FILE]

The plain loop is what a tutorial would write: float32 images and weights, Adam without fusing, D called once for the
real and once for the generated images, torch's own convolutions, the average of G weight by weight, three numbers read
after every step. Losses, penalties, batch and networks are the same. Noise stands for images: their content costs
nothing. What snapshots and their scores take, every run says itself at its end.

A preset is a pair of networks with all else as it comes, or a data set's own configuration. --compiled has our steps
taken once more with both networks through torch.compile (which needs a C++ compiler); its first steps, in which it
compiles, are timed apart.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.machine import describe
from models.runtime import available_cores
from trainer.config import PRESETS_DIR, Config, make_config
from trainer.double_backward import Conv2d
from trainer.ema import draw_z, ema_beta
from trainer.networks import make_discriminator, make_generator
from trainer.objectives import make_objective
from trainer.pixels import Images, to_tensor
from trainer.precision import suited
from trainer.regularisers import Part, zero_centred
from trainer.state import Batch, State

FIRST_STEPS = 3
TESTED = tuple(path.stem for path in PRESETS_DIR.glob("*.toml"))

Indices = NDArray[np.int64]  # [batch_size]


class Ours:
    """The product's own steps, as the loop takes them."""

    def __init__(self, config: Config, images: Images) -> None:
        self.state, self.images, self.d_step = State(config, images.shape[1:]), images, 0

    def step(self, rows: Indices) -> None:
        """One step of D and one of G."""
        real = Batch(to_tensor(self.images[rows]))
        self.state.train_d(real, self.d_step)
        self.state.train_g(real)
        self.d_step += 1


class Compiled(Ours):
    """Ours, with both networks through torch.compile."""

    def __init__(self, config: Config, images: Images) -> None:
        super().__init__(config, images)
        self.state.G.compile()
        self.state.D.compile()


class Plain:
    """The same game without any of what makes it fast."""

    def __init__(self, config: Config, images: Images) -> None:
        torch.manual_seed(config.seed)
        shape = images.shape[1:]
        self.config, self.objective = config, make_objective(config.loss)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()
        self.G, self.D = make_generator(config, shape), make_discriminator(config, shape)
        self.G_ema = make_generator(config, shape)
        for network in (self.G, self.D):
            for module in network.modules():
                if isinstance(module, Conv2d):
                    module.__class__ = torch.nn.Conv2d  # type: ignore[assignment]  # torch's own second backward
        betas = (config.beta1, config.beta2)
        self.g_optimiser = torch.optim.Adam(self.G.parameters(), lr=config.g_lr, betas=betas, foreach=False)
        self.d_optimiser = torch.optim.Adam(self.D.parameters(), lr=config.d_lr, betas=betas, foreach=False)
        self.stream, self.d_step = torch.Generator().manual_seed(config.seed), 0

    def step(self, rows: Indices) -> None:
        """One step of D and one of G."""
        real = self.images[torch.from_numpy(rows)]
        self._train_d(real)
        self._train_g(real)
        self.d_step += 1

    def _train_d(self, real: torch.Tensor) -> None:
        config = self.config
        due = config.r1_interval if self.d_step % config.r1_interval == 0 else 0
        fake = self._generate().detach()
        real, fake = real.requires_grad_(bool(config.r1_gamma)), fake.requires_grad_(bool(config.r2_gamma))
        answers = self.D(real), self.D(fake)
        loss = self.objective.d_loss(*answers)
        gammas = (config.r1_gamma * due, config.r2_gamma * due)
        if parts := [Part(x, a, g) for x, a, g in zip((real, fake), answers, gammas, strict=True) if g]:
            loss = loss + zero_centred(parts)
        self.d_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        self.d_optimiser.step()
        _ = loss.item(), answers[0].sigmoid().mean().item(), answers[1].sigmoid().mean().item()

    def _train_g(self, real: torch.Tensor) -> None:
        fake_answers = self.D(self._generate())
        real_answers = self.D(real) if self.objective.paired else None
        loss = self.objective.g_loss(real_answers, fake_answers)
        self.g_optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.g_optimiser.step()
        beta = ema_beta(self.config.batch_size, self.config.ema_half_life_kimg * 1000, 1e6)
        with torch.no_grad():
            for average, weight in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                average.mul_(beta).add_(weight, alpha=1 - beta)
        _ = loss.item()

    def _generate(self) -> torch.Tensor:
        config = self.config
        images: torch.Tensor = self.G(draw_z(config.batch_size, config.z_dim, config.prior, self.stream))
        return images


Player = Ours | Plain


def images_per_second(player: Player, config: Config, steps: int) -> float:
    """Real images shown in a second, over so many steps of both networks."""
    random = np.random.RandomState(0)
    rows = [random.randint(0, 2000, config.batch_size) for _ in range(steps)]
    began = time.perf_counter()
    for row in rows:
        player.step(row)
    return steps * config.batch_size / (time.perf_counter() - began)


def compare(
    kinds: Mapping[str, Callable[[Config, Images], Player]],
    config: Config,
    shape: tuple[int, ...],
    rounds: int,
    steps: int,
) -> dict[str, list[float]]:
    """Images a second of each, round by round, in turns A B A B."""
    images = np.random.RandomState(0).randint(0, 256, (2000, *shape), dtype=np.uint8)
    players = {name: kind(config, images) for name, kind in kinds.items()}
    for name, player in players.items():
        began = time.perf_counter()
        images_per_second(player, config, FIRST_STEPS)  # they choose kernels, fill caches, compile
        print(f"    {name}: {time.perf_counter() - began:.1f} s for the first {FIRST_STEPS} steps", flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in players}
    for _ in range(rounds):
        for name, player in players.items():
            speeds[name].append(images_per_second(player, config, steps))
    return speeds


def main() -> None:
    """Print, and keep where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["resize", "fashion-mnist", "r3gan"])
    parser.add_argument("--shape", type=int, nargs=3, default=[28, 28, 1])
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compiled", action="store_true", help="through torch.compile too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    print(f"{describe()}; torch {torch.__version__}, {arguments.threads} threads")
    kinds: dict[str, Callable[[Config, Images], Player]] = {"ours": Ours, "plain": Plain}
    if arguments.compiled:
        kinds["compiled"] = Compiled
    results = {}
    for preset in arguments.preset:
        data, overrides = (preset, {}) if preset in TESTED else ("noise", {"preset": preset})
        config = make_config(data, None, overrides, suited)
        speeds = compare(kinds, config, tuple(arguments.shape), arguments.rounds, arguments.steps)
        ratios = {
            f"{name} / {of}": [one / other for one, other in zip(speeds[name], speeds[of], strict=True)]
            for name, of in (("ours", "plain"), ("compiled", "ours"))
            if name in speeds
        }
        results[preset] = {**speeds, **ratios}
        for name, values in results[preset].items():
            median, least, most = statistics.median(values), min(values), max(values)
            print(f"{preset:13} {name:15} median {median:8.2f}  {least:.2f} .. {most:.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": describe(), **results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
