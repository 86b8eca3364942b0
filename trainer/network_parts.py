"""What all pairs of networks share: their interface, how a shape halves, how classes enter. Knows no single preset."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.errors import Invalid
from models.splits import Samples
from models.standardising import Standardisation
from trainer.pixels import post_process

MIN_EXTENT = 4  # of the smallest feature map, pixels
SLOPE = 0.2  # of LeakyReLU


class Stages(NamedTuple):
    """How often a shape halves: (height, width) of the smallest map, and the number of doublings from there."""

    height: int
    width: int
    doublings: int


def stages(height: int, width: int) -> Stages:
    """Halve while both sides are even and at least 4 pixels remain.

    Raises:
        Invalid: the sides cannot be halved once.
    """
    count, h, w = 0, height, width
    while h % 2 == 0 and w % 2 == 0 and min(h, w) // 2 >= MIN_EXTENT:
        count, h, w = count + 1, h // 2, w // 2
    if not count or max(h, w) > 32:
        detail = f"images of {height} x {width} do not halve to a map of 4 .. 32 pixels a side"
        raise Invalid(f"{detail}; of 28, 32, 64 or 128 they do (a folder: --resolution 32)", field="data")
    return Stages(h, w, count)


class Generator(nn.Module):
    """G: z [N, z_dim] and, if conditional, class_idx [N] int64 -> images [N, C, H, W], [-1, 1] being the data's range.

    Args:
        z_dim: length of z.
        num_classes: 0 for an unconditional generator.
    """

    def __init__(self, z_dim: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, z_dim) if num_classes else None  # N(0, 1), as z is
        self.inputs = 2 * z_dim if num_classes else z_dim

    def with_class(self, z: Tensor, class_idx: Tensor | None) -> Tensor:  # [N, z_dim], [N] -> [N, inputs]
        """What the first layer sees: z, and beside it the embedding of the class."""
        if self.embedding is None:
            return z
        return torch.cat([z, self.embedding(class_idx)], dim=1)

    def adopt(self, standard: Standardisation) -> None:
        """Take the data's units: only generators of vectors have any."""

    def finish(self, samples: Tensor) -> Tensor:
        """What is served of what G makes: pixels of images [N, C, H, W], uint8 [N, H, W, C]."""
        return post_process(samples)

    def reach(self, samples: Samples) -> float:
        """How far what is served reaches, in standard deviations of the data; 0 of pixels, which are bounded."""
        return 0.0


class Discriminator(nn.Module):
    """D: images [N, C, H, W] and, if conditional, class_idx [N] int64 -> [N] float32, which the objective reads."""


class InParts(nn.Module):
    """Of a BatchNorm: what it is given may be several batches in a row, each normalised by its own statistics.

    So D's one call for real and generated images does what two calls do, and every other layer sees one large batch.
    """

    batches = 1

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        normalise = super().forward  # of the BatchNorm
        if self.batches == 1 or not self.training:
            whole: Tensor = normalise(x)
            return whole
        return torch.cat([normalise(part) for part in x.chunk(self.batches)])


class BatchNorm1d(InParts, nn.BatchNorm1d):
    """[N, C]."""


class BatchNorm2d(InParts, nn.BatchNorm2d):
    """[N, C, H, W]."""


@contextmanager
def in_parts(network: nn.Module, batches: int) -> Iterator[None]:
    """Within it, a network's BatchNorms take what comes as so many batches of one size."""
    norms = [module for module in network.modules() if isinstance(module, InParts)]
    for norm in norms:
        norm.batches = batches
    try:
        yield
    finally:
        for norm in norms:
            norm.batches = 1


def use_channels_last(network: nn.Module) -> None:
    """Lay the network's weights out as its feature maps are, in place: channels innermost, faster on CPUs."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out of its types
