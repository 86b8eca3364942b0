"""Makes the pair of networks that a configuration names. Knows nothing of losses or of training."""

from trainer.config import Config
from trainer.convnets import ConvDiscriminator, ConvGenerator
from trainer.network_parts import Discriminator, Generator
from trainer.r3gan import R3Discriminator, R3Generator


def make_generator(config: Config, shape: tuple[int, ...], num_classes: int = 0) -> Generator:
    """G for images of a shape (H, W, C), its weights drawn from torch's global generator."""
    kind = R3Generator if config.preset == "r3gan" else ConvGenerator
    return kind(config, shape, num_classes)


def make_discriminator(config: Config, shape: tuple[int, ...], num_classes: int = 0) -> Discriminator:
    """D, likewise."""
    kind = R3Discriminator if config.preset == "r3gan" else ConvDiscriminator
    return kind(config, shape, num_classes)
