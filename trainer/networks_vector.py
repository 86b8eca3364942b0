"""G and D of the preset `mlp`, for vectors in standard units. Knows nothing of losses or of training.

G sees the signs of z, and z itself made small. A continuous G draws bridges between the modes of its data, since
neighbouring z make neighbouring samples; signs jump, so that they choose a mode and z fills it. Beside signs of its own
size z would first have to be flattened within each mode, which takes most of a training. No gradient by z is needed.

D is told how much noise was added to what it sees: with wide noise the data's modes are one, so none is lost; with
narrow noise D sees how wide a mode is (Wang et al. 2023, "Diffusion-GAN", section 3). Beside the coordinates it sees
random Fourier features at three scales (Tancik et al. 2020), each faded as the noise fades it: a plain network needs
long to find 25 narrow modes.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from models.splits import Samples
from models.standardising import Standardisation
from trainer.config import Config
from trainer.network_parts import Discriminator, Generator
from trainer.regularisers import normalise_spectrally

Z_SCALE = 0.2  # of z beside its signs
SCALES = (2.0, 12.0, 60.0)  # of the Fourier features, radians in a standard deviation along the diagonal


class MlpGenerator(Generator):
    """G: z [N, z_dim] -> [N, d] in standard units.

    Args:
        config: gives z_dim, g_channels (units of a hidden layer) and blocks (hidden layers).
        shape: of a sample, (d,).
        num_classes: 0 for an unconditional generator; else the class's embedding is a second z.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__(config.z_dim, num_classes)
        self.layers = _mlp(self.inputs + config.z_dim, config.g_channels, config.blocks, shape[0])
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def adopt(self, standard: Standardisation) -> None:
        """Take the data's units, which `finish` gives back."""
        self.mean.copy_(torch.from_numpy(standard.mean))
        self.scale.copy_(torch.from_numpy(standard.scale))

    def forward(self, z: Tensor, class_idx: Tensor | None = None) -> Tensor:  # [N, z_dim], [N] -> [N, d]
        """Generate."""
        samples: Tensor = self.layers(torch.cat([z.sign(), self.with_class(z * Z_SCALE, class_idx)], dim=1))
        return samples

    def finish(self, samples: Tensor) -> Tensor:  # [N, d] in standard units -> [N, d] in the data's
        """What is served: models.standardising.Standardisation.undo."""
        return samples * self.scale + self.mean

    def reach(self, samples: Samples) -> float:
        """See Generator.reach."""
        standard = (samples - self.mean.numpy(force=True)) / self.scale.numpy(force=True)
        return float(abs(standard).max())


class MlpDiscriminator(Discriminator):
    """D: [N, d] in standard units, noise of deviation [N, 1] added, -> [N]; a class enters by its embedding.

    Args:
        config: gives z_dim (the embedding's length), d_channels (units of a hidden layer), d_hidden (Fourier features),
            blocks, d_norm and noise_min.
        shape: of a sample, (d,).
        num_classes: 0 for an unconditional D.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, config: Config, shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.lowest = config.noise_min or 1.0
        self.embedding = nn.Embedding(num_classes, config.z_dim) if num_classes else None
        scales = torch.tensor(SCALES).repeat(config.d_hidden)[: config.d_hidden]
        self.register_buffer("frequencies", torch.randn(shape[0], config.d_hidden) * scales / math.sqrt(shape[0]))
        self.register_buffer("phases", torch.rand(config.d_hidden) * math.tau)
        inputs = shape[0] + 1 + config.d_hidden + (config.z_dim if num_classes else 0)
        self.layers = _mlp(inputs, config.d_channels, config.blocks, 1)
        if config.d_norm == "spectral":
            normalise_spectrally(self)

    def forward(self, samples: Tensor, class_idx: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Judge; without `noise`, as if it were the least that D has seen."""
        noise = samples.new_full((len(samples), 1), self.lowest) if noise is None else noise
        variance = noise.square()
        fading = torch.exp(-self.frequencies.square().sum(0) / 2 * variance)  # E cos(w (x + noise)) over E cos(w x)
        waves = torch.cos(samples @ self.frequencies + self.phases) * fading
        seen = [samples * torch.rsqrt(1 + variance), noise.log() / 2, waves]
        if self.embedding is not None:
            seen.append(self.embedding(class_idx))
        answers: Tensor = self.layers(torch.cat(seen, dim=1)).squeeze(1)
        return answers


def _mlp(inputs: int, width: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear layers with SiLU between them; weights N(0, 2 / fan_in) (He et al. 2015), biases 0."""
    layers: list[nn.Module] = []
    for a, b in pairwise([inputs, *[width] * hidden, outputs]):
        linear = nn.Linear(a, b)
        nn.init.normal_(linear.weight, 0.0, math.sqrt(2 / a))
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])
