"""G and D of the presets `dcgan` and `resize`. Knows nothing of losses or of training.

Both G map z to a small feature map and double it to the full resolution: `dcgan` with strided transposed convolutions
(Radford et al. 2016), `resize` with nearest-neighbour upsampling and 3x3 convolutions (Odena et al. 2016, against
checkerboards). With g_hidden a fully connected layer comes first; dcgan with g_hidden 1024 has InfoGAN's G. Both use
the same D. Weights start as DCGAN's: N(0, 0.02), BatchNorm scales N(1, 0.02); those of a D without BatchNorm as He et
al. 2015 (Eq. 14) say, since nothing brings its activations back to scale.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.network_parts import SLOPE, BatchNorm1d, BatchNorm2d, Discriminator, Generator, stages
from trainer.regularisers import normalise_spectrally


class ConvGenerator(Generator):
    """G of both presets; its images are within [-1, 1].

    Args:
        config: gives preset, z_dim, g_channels and g_hidden.
        shape: of an image, (H, W, C).
        num_classes: 0 for an unconditional generator; else the class's embedding is a second z.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__(config.z_dim, num_classes)
        height, width, channels = shape
        self.start = stages(height, width)
        transposed = config.preset == "dcgan"  # its last doubling makes the image itself
        doublings = range(self.start.doublings, 0 if transposed else -1, -1)
        widths = [max(1, config.g_channels * 2**i // 2) for i in doublings]
        self.hidden = _fully_connected(self.inputs, config.g_hidden) if config.g_hidden else nn.Sequential()
        inputs = config.g_hidden or self.inputs
        self.linear = nn.Linear(inputs, widths[0] * self.start.height * self.start.width, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(widths[0])  # Identity once it is folded
        block = _transposed if transposed else _resized
        self.blocks = nn.ModuleList()
        for a, b in pairwise(widths):
            self.blocks.append(nn.Sequential(*block(a, b), nn.BatchNorm2d(b), nn.ReLU(inplace=True)))
        self.to_image = (
            nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1)
            if transposed
            else nn.Conv2d(widths[-1], channels, 3, 1, 1)
        )
        initialise(self)

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, z_dim], [N] -> [N, C, H, W]
        """Generate."""
        x = self.linear(self.hidden(self.with_class(z, class_idx)))
        x = x.view(len(z), -1, self.start.height, self.start.width)
        x = torch.relu(self.norm(x.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
        images: Tensor = self.to_image(x).tanh()
        return images


class ConvDiscriminator(Discriminator):
    """D of both presets; a class counts by projection (Miyato & Koyama 2018, Eq. 3).

    Args:
        config: gives d_channels, d_hidden and d_norm.
        shape: of an image, (H, W, C).
        num_classes: 0 for an unconditional D.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        height, width, channels = shape
        end = stages(height, width)
        widths = [config.d_channels * 2**i for i in range(end.doublings)]
        batch = config.d_norm == "batch"
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        for a, b in pairwise(widths):
            norm: list[nn.Module] = [BatchNorm2d(b)] if batch else []
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=not batch), *norm, nn.LeakyReLU(SLOPE, inplace=True)]
        self.features = nn.Sequential(*layers)
        inputs = widths[-1] * end.height * end.width
        self.hidden = nn.Sequential(
            FlattenChannelsLast(),
            nn.Linear(inputs, config.d_hidden, bias=not batch),
            *([BatchNorm1d(config.d_hidden)] if batch else []),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.head = nn.Linear(config.d_hidden, 1)
        self.projection = nn.Embedding(num_classes, config.d_hidden) if num_classes else None
        initialise(self, he=not batch)
        if config.d_norm == "spectral":
            normalise_spectrally(self)

    def forward(self, images: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, C, H, W], [N] -> [N]
        """Judge."""
        h = self.hidden(self.features(images))
        with torch.autocast(h.device.type, enabled=False):  # D's answer itself never loses bits
            h = h.float()
            answers: Tensor = self.head(h).squeeze(1)
            if self.projection is not None:
                answers = answers + (self.projection(class_idx) * h).sum(1)
        return answers


class FlattenChannelsLast(nn.Module):
    """[N, C, H, W] -> [N, H * W * C], a view of maps that are laid out channels last.

    nn.Flatten's slope comes back channels first, and LeakyReLU takes 20 times as long where the two layouts meet.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Flatten."""
        return x.permute(0, 2, 3, 1).flatten(1)


def _fully_connected(inputs: int, units: int) -> nn.Sequential:  # [N, inputs] -> [N, units]
    """As InfoGAN's G begins (Chen et al. 2016, appendix C.1)."""
    return nn.Sequential(nn.Linear(inputs, units, bias=False), nn.BatchNorm1d(units), nn.ReLU(inplace=True))


def _transposed(a: int, b: int) -> list[nn.Module]:  # [N, a, H, W] -> [N, b, 2H, 2W]
    return [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]


def _resized(a: int, b: int) -> list[nn.Module]:  # [N, a, H, W] -> [N, b, 2H, 2W]
    return [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(a, b, 3, 1, 1, bias=False)]


def initialise(network: nn.Module, *, he: bool = False) -> None:
    """DCGAN's or He's weights (see above), biases 0. Uses torch's global generator."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / (1 + SLOPE**2) / fan_in) if he else 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ConvDiscriminator) and module.projection is not None:
            nn.init.normal_(module.projection.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
