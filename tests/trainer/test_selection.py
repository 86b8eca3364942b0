"""Samples that snapshots are measured and shown by: in batches that fit, and the same in any."""

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.manifest import Signature
from trainer.config import Config
from trainer.networks import make_generator
from trainer.selection import MAX_BATCH_VALUES, sample
from trainer.signatures import signature_of


class Counting(nn.Module):
    """A generator of black images that keeps how many it was asked for at once."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.asked, self.weight = shape, [], nn.Parameter(torch.zeros(1))

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:
        self.asked.append(len(z))
        return torch.zeros(1, dtype=torch.uint8).expand(len(z), *self.shape)

    def finish(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize(
    ("shape", "count", "asked"),
    [
        ((2,), 130, [64, 64, 2]),
        ((28, 28, 1), 130, [64, 64, 2]),
        ((64, 64, 3), 130, [64, 64, 2]),  # all that was measured until now: as fast, in the same bits
        ((128, 128, 3), 40, [16, 16, 8]),
        ((256, 256, 3), 9, [4, 4, 1]),
        ((1024, 1024, 3), 2, [1, 1]),
    ],
)
def test_large_samples_are_made_few_at_once(shape: tuple[int, ...], count: int, asked: list[int]) -> None:
    """As many values at once as 64 images of 64 pixels have, whatever the resolution; always at least one sample."""
    kind = "vector" if len(shape) == 1 else "image"
    G = Counting(shape)
    samples = sample(G, Signature(kind=kind, prior="normal", z_dim=2, shape=shape), np.arange(count))
    assert G.asked == asked
    assert samples.shape == (count, *shape)
    assert all(batch == 1 or batch * np.prod(shape) <= MAX_BATCH_VALUES for batch in G.asked)


@pytest.mark.parametrize("preset", ["resize", "dcgan", "r3gan"])
def test_samples_do_not_depend_on_their_batch(tiny: Config, preset: str) -> None:
    """Each in its place, alone as among others: within one level, and all but one value in a thousand exactly."""
    config = msgspec.structs.replace(tiny, preset=preset, d_norm="none", r1_gamma=1.0)
    torch.manual_seed(0)
    G = make_generator(config, (32, 32, 3)).eval()
    for p in G.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.3)
    signature, seeds = signature_of(config, (32, 32, 3)), np.arange(70)
    whole = sample(G, signature, seeds).astype(int)
    assert whole.std() > 10
    for batch_size in (1, 4, 16):
        apart = np.abs(sample(G, signature, seeds, batch_size=batch_size) - whole)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3
