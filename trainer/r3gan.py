"""G and D of the preset `r3gan` (Huang et al. 2024, "The GAN is dead; long live the GAN!", section 3 and Table 2).

Residual blocks without normalisation: 1x1 convolution to twice the channels, 3x3, 1x1 back, biased LeakyReLU(0.2)
between them, plus the block's input. The weights start as FixUp (Zhang et al. 2019) has it: scaled by L^(-1/4) with L
the network's blocks, the last 1x1 of a block at zero, so every block begins as the identity. Resampling by [1, 2, 1]
filters and 1x1 convolutions; G begins with a learned basis times a linear map of z, D ends in a depthwise convolution
over the whole map and a linear map.

Differs from the paper's networks in three ways. For processors the 3x3 convolutions are dense (grouped ones are slow
there), and the widths double with every halving of the resolution in place of being equal. And G's images are clipped:
without bounds D knows fakes by backgrounds that are not quite -1 (docs/decisions/0014-r3gan-bounds.md).
"""

import contextlib
import math
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from trainer.config import Config
from trainer.double_backward import Conv2d
from trainer.network_parts import SLOPE, Discriminator, Generator, stages

GAIN = math.sqrt(2 / (1 + SLOPE**2))  # keeps the variance through LeakyReLU (He et al. 2015)
EXPANSION = 2  # of the channels within a block

Layer = TypeVar("Layer", Conv2d, nn.Linear)


class R3Generator(Generator):
    """G; its images are within [-1, 1].

    Args:
        config: gives z_dim, g_channels and blocks.
        shape: of an image, (H, W, C).
        num_classes: 0 for an unconditional generator; else the class's embedding is a second z.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__(config.z_dim, num_classes)
        start, widths = stages(*shape[:2]), _widths(config.g_channels, shape)[::-1]
        self.basis = nn.Parameter(torch.randn(widths[0], start.height, start.width))
        self.linear = _scaled(nn.Linear(self.inputs, widths[0], bias=False), 1.0)
        total = len(widths) * config.blocks
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            layers += [Up(widths[i - 1], width)] if i else []
            layers += [Block(width, total) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers)
        self.to_image = _scaled(Conv2d(widths[-1], shape[2], 1, bias=False), 1.0)

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, z_dim], [N] -> [N, C, H, W]
        """Generate."""
        x = self.basis * self.linear(self.with_class(z, class_idx))[:, :, None, None]
        return clipped(self.to_image(self.layers(x.contiguous(memory_format=torch.channels_last))))


class _Clipped(torch.autograd.Function):
    """Clipping to [-1, 1] whose slope is 1 for whatever would come back into it, and 0 for what would go farther."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ANN401 - torch does not type it
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:  # noqa: ANN401 - as above
        (x,), (slope,) = ctx.saved_tensors, slopes
        outward = ((x > 1) & (slope < 0)) | ((x < -1) & (slope > 0))  # descent moves against the slope
        return slope.masked_fill(outward, 0)


def clipped(x: Tensor) -> Tensor:
    """Images from a linear layer: bounds are said exactly, and nothing beyond them is lost to learning.

    A tanh's slope vanishes exponentially beyond them, and with it a G that D pushes there in its first steps.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        images: Tensor = _Clipped.apply(x)  # type: ignore[no-untyped-call]
        return images
    return x.clamp(-1, 1)


class R3Discriminator(Discriminator):
    """D; with classes its answer is the inner product of what it sees and the class's embedding, as in its code.

    Args:
        config: gives d_channels, d_hidden (the length of that embedding) and blocks.
        shape: of an image, (H, W, C).
        num_classes: 0 for an unconditional D.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        end, widths = stages(*shape[:2]), _widths(config.d_channels, shape)
        self.from_image = _scaled(Conv2d(shape[2], widths[0], 1, bias=False), 1.0)
        total = len(widths) * config.blocks
        layers: list[nn.Module] = []
        for i, width in enumerate(widths):
            layers += [Down(widths[i - 1], width)] if i else []
            layers += [Block(width, total) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers)
        last = widths[-1]
        self.basis = _scaled(Conv2d(last, last, (end.height, end.width), groups=last, bias=False), 1.0)
        self.head = _scaled(nn.Linear(last, config.d_hidden if num_classes else 1, bias=False), 1.0)
        self.embedding = nn.Embedding(num_classes, config.d_hidden) if num_classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, config.d_hidden**-0.5)

    def forward(self, images: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, C, H, W], [N] -> [N]
        """Judge."""
        x = self.layers(self.from_image(images))
        with torch.autocast(x.device.type, enabled=False):  # D's answer itself never loses bits
            seen: Tensor = self.head(self.basis(x.float()).flatten(1))
            if self.embedding is not None:
                seen = seen * self.embedding(class_idx)
            return seen.sum(1)


class Block(nn.Module):
    """A residual block that begins as the identity: [N, C, H, W] -> the same.

    Args:
        channels: C.
        total: blocks in the whole network, L.
    """

    def __init__(self, channels: int, total: int) -> None:
        super().__init__()
        inner, gain = EXPANSION * channels, GAIN * total**-0.25
        self.expand = _scaled(Conv2d(channels, inner, 1, bias=True), gain)
        self.mix = _scaled(Conv2d(inner, inner, 3, padding=1, bias=True), gain)
        self.reduce = _scaled(Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """The biases are those of the activations after the convolutions."""
        y = leaky_relu(self.expand(x), SLOPE)
        y = leaky_relu(self.mix(y), SLOPE)
        result: Tensor = x + self.reduce(y)
        return result


class Up(nn.Module):
    """1x1 convolution, then twice the size by zeros between and the filter: [N, a, H, W] -> [N, b, 2H, 2W]."""

    kernel: Tensor

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.change = _scaled(Conv2d(a, b, 1, bias=False), 1.0)
        self.register_buffer("kernel", 4 * _filter(b), persistent=False)  # 3 of 4 inputs are zeros

    def forward(self, x: Tensor) -> Tensor:
        """Even pixels are the input's, odd ones the mean of their neighbours; zeros beyond the border."""
        x = self.change(x)
        with _exactly(x):
            groups = len(self.kernel)
            return conv_transpose2d(x.float(), self.kernel, stride=2, padding=1, output_padding=1, groups=groups)


class Down(nn.Module):
    """The filter at every other pixel, then a 1x1 convolution: [N, a, 2H, 2W] -> [N, b, H, W]."""

    kernel: Tensor

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _filter(a), persistent=False)
        self.change = _scaled(Conv2d(a, b, 1, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Halve."""
        with _exactly(x):
            x = conv2d(x.float(), self.kernel, stride=2, padding=1, groups=len(self.kernel))
        halved: Tensor = self.change(x)
        return halved


def _exactly(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """No autocast: depthwise convolutions are 20 times slower in bf16 than in float32 on a CPU with AMX."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()  # nothing for the exporter to trace


def _filter(channels: int) -> Tensor:  # [channels, 1, 3, 3], each summing to 1
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(line, line).repeat(channels, 1, 1, 1)


def _widths(channels: int, shape: tuple[int, ...]) -> list[int]:
    """Of the feature maps, from the full resolution to the smallest; half of `channels` first, as in `resize`."""
    return [max(1, channels * 2**i // 2) for i in range(stages(*shape[:2]).doublings + 1)]


def _scaled(layer: Layer, gain: float) -> Layer:
    """Weights N(0, gain^2 / fan_in), bias 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
