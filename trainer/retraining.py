"""Trains a fresh D against a frozen G: the only way to say that no D tells them apart. Knows no files.

A D that says 1/2 may be at the equilibrium, may have given up, or may be too small to see anything. What is trained
here has the layers of the run's D, but never few or narrow ones, without BatchNorm, noise and penalties, the logistic
loss and a seed of its own, so neither the run nor its D is touched.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from models.latents import draw
from models.manifest import Signature
from models.splits import Samples
from trainer.config import Config
from trainer.ema import draw_z
from trainer.network_parts import Discriminator, Generator, use_channels_last
from trainer.networks import make_discriminator
from trainer.pixels import post_process, to_tensor
from trainer.recipes import recipe

STEPS = 400
EVALUATED_EVERY = 100
BATCH_SIZE = 64
NUM_LEARNT = 6400  # of each kind that D learns from, over and over: fresh ones for every step took longer than D itself
LR = 1e-3
BETAS = (0.5, 0.99)
SEED = 2014
SIZES = ("d_channels", "d_hidden", "blocks")  # of a D
# Half as wide as the preset's own, which the thresholds were not set with (docs/decisions/0011-diagnosis.md).
LEAST: Mapping[str, Mapping[str, int]] = {"mlp": {"d_channels": 64, "d_hidden": 48}}
MIN_HELD_OUT = 200  # fewer give the accuracy a standard error above 0.025
NUM_HELD_OUT = 1000
FIRST_SEED = 3 * 2**30 + 2**20  # of the latents it is tried on


class Reals(NamedTuple):
    """A split as D's batches come from it: uint8 [N, H, W, C] or standardised float32 [N, d], with labels or None."""

    samples: Samples
    labels: NDArray[np.int64] | None

    def some(self, count: int) -> "Reals":
        """So many of them, always the same ones; all where there are fewer."""
        return self.rows(np.random.RandomState(SEED).permutation(len(self.samples))[:count])

    def rows(self, rows: NDArray[np.intp]) -> "Reals":
        """Some of them."""
        return Reals(self.samples[rows], None if self.labels is None else self.labels[rows])

    def tensor(self, device: torch.device) -> Tensor:
        """What D sees of them."""
        return to_tensor(self.samples).to(device)

    def classes(self, device: torch.device) -> Tensor | None:
        """The labels [N] int64."""
        return None if self.labels is None else torch.from_numpy(self.labels).to(device)


def accuracy(real: Tensor, fake: Tensor) -> float:  # [N], [N] -> []
    """The share of D's answers that are right, if it calls the upper half of both together real.

    So 1/2 is chance for every objective, whatever the zero of its D. Answers at the threshold count one half.
    """
    pooled = torch.cat([real, fake]).sort().values
    threshold = (pooled[len(pooled) // 2 - 1] + pooled[len(pooled) // 2]) / 2
    above = ((real > threshold).double() + (real == threshold).double() / 2).mean()
    below = ((fake < threshold).double() + (fake == threshold).double() / 2).mean()
    return float(above + below) / 2


def retrained_accuracy(G_ema: Generator, config: Config, signature: Signature, train: Reals, held_out: Reals) -> float:
    """The best accuracy on held-out samples that a fresh D reaches against a frozen generator.

    Args:
        G_ema: in eval mode.
        config: of the run; gives the layers, the prior and the precision.
        signature: of G_ema.
        train: what D learns from.
        held_out: what it is tried on, at four points of its training; the best counts.
    """
    device = next(G_ema.parameters()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        D = make_discriminator(examining(config), signature.shape, signature.num_classes)
    use_channels_last(D.to(device))
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")
    optimiser = torch.optim.Adam(D.parameters(), lr=LR, betas=BETAS)
    stream, rows = torch.Generator().manual_seed(SEED), np.random.RandomState(SEED)
    tried, learnt = held_out.some(NUM_HELD_OUT), train.rows(rows.randint(len(train.samples), size=NUM_LEARNT))
    drawn = draw(signature, np.arange(len(tried.samples)) + FIRST_SEED, class_idx=_listed(tried))
    against = _generate(G_ema, torch.from_numpy(drawn.z), tried.classes(device))
    fakes = _generate(G_ema, draw_z(NUM_LEARNT, config.z_dim, config.prior, stream), learnt.classes(device))
    best = 0.5
    for step in range(1, STEPS + 1):
        at = rows.randint(NUM_LEARNT, size=BATCH_SIZE)
        real, fake = learnt.rows(at), fakes[torch.from_numpy(at).to(device)]
        class_idx = real.classes(device)
        with autocast:  # D alone: rounding G's images would be something to tell them by
            answers = D(torch.cat([real.tensor(device), fake]), None if class_idx is None else class_idx.repeat(2))
        loss = softplus(-answers[:BATCH_SIZE]).mean() + softplus(answers[BATCH_SIZE:]).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        optimiser.step()
        if step % EVALUATED_EVERY == 0:
            with autocast:
                best = max(best, _tried(D, tried, against, device))
    return best


def examining(config: Config) -> Config:
    """What the fresh D of a run is made by: the run's sizes, or what the preset has anyway where that is more.

    As small as the run's own it would be as blind, where that one sees nothing.
    """
    preset = config.preset
    fields = {"data": config.data, "preset": preset, **recipe(preset, None), **LEAST.get(preset, {})}
    least = msgspec.convert(fields, Config)  # and not the run itself, which may be nothing without its penalties
    sizes = {name: max(getattr(config, name), getattr(least, name)) for name in SIZES}
    kept = {"z_dim": config.z_dim, "noise_min": config.noise_min}
    return msgspec.structs.replace(least, d_norm="none", noise_max=0.0, **kept, **sizes)


@torch.no_grad()
def _tried(D: Discriminator, reals: Reals, fakes: Tensor, device: torch.device) -> float:
    classes = reals.classes(device)
    return accuracy(D(reals.tensor(device), classes), D(fakes, classes))


@torch.no_grad()
def _generate(G: Generator, z: Tensor, class_idx: Tensor | None) -> Tensor:  # [N, z_dim], [N] -> [N, ...]
    """As D's reals are: images rounded to whole levels, vectors in standard units; in batches that fit the caches."""
    device = next(G.parameters()).device
    parts = torch.split(z.to(device), BATCH_SIZE)
    classes: Sequence[Tensor | None] = [None] * len(parts)
    if class_idx is not None:
        classes = torch.split(class_idx, BATCH_SIZE)
    samples = torch.cat([G(*part) for part in zip(parts, classes, strict=True)])
    if samples.dim() == 2:
        return samples
    return post_process(samples).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _listed(reals: Reals) -> list[int] | None:
    return None if reals.labels is None else reals.labels.tolist()
