"""Makes the pair of networks that a configuration names. Knows nothing of losses or of training."""

from collections.abc import Mapping

from trainer.config import Config, Preset
from trainer.convnets import ConvDiscriminator, ConvGenerator
from trainer.network_parts import Discriminator, Generator
from trainer.networks_vector import MlpDiscriminator, MlpGenerator
from trainer.r3gan import R3Discriminator, R3Generator

GENERATORS: Mapping[Preset, type[ConvGenerator] | type[R3Generator] | type[MlpGenerator]] = {
    "dcgan": ConvGenerator, "resize": ConvGenerator, "r3gan": R3Generator, "mlp": MlpGenerator,
}  # fmt: skip
DISCRIMINATORS: Mapping[Preset, type[ConvDiscriminator] | type[R3Discriminator] | type[MlpDiscriminator]] = {
    "dcgan": ConvDiscriminator, "resize": ConvDiscriminator, "r3gan": R3Discriminator, "mlp": MlpDiscriminator,
}  # fmt: skip


def make_generator(config: Config, shape: tuple[int, ...], num_classes: int = 0) -> Generator:
    """G for samples of a shape, (H, W, C) or (d,), its weights drawn from torch's global generator."""
    return GENERATORS[config.preset](config, shape, num_classes)


def make_discriminator(config: Config, shape: tuple[int, ...], num_classes: int = 0) -> Discriminator:
    """D, likewise."""
    return DISCRIMINATORS[config.preset](config, shape, num_classes)
