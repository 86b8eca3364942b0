"""Makes the pair of networks that a configuration names. Knows nothing of losses or of training."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import Invalid
from trainer.config import Config, Preset
from trainer.convnets import ConvDiscriminator, ConvGenerator
from trainer.distributed import Crew
from trainer.network_parts import Discriminator, Generator
from trainer.networks_vector import MlpDiscriminator, MlpGenerator
from trainer.r3gan import R3Discriminator, R3Generator

Network = TypeVar("Network", bound=nn.Module)

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


def place(network: Network, crew: Crew) -> Network:
    """A network on the device that it trains on; its BatchNorms see the batch of all the processes together.

    To be called before there is an optimiser: parameters may move, and modules be replaced.
    """
    if crew.size > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch has none
        for module in network.modules():
            if isinstance(module, nn.SyncBatchNorm):  # frozen, it takes no bf16: torch casts its counts only otherwise
                module.register_forward_pre_hook(lambda module, given: (given[0].float(),))
    return network.to(crew.device)


def check_crew(config: Config, shape: tuple[int, ...], crew: Crew) -> None:
    """Refuse networks that cannot be trained by several processes.

    Raises:
        Invalid: they have BatchNorm, and the processes have no GPUs.
    """
    if crew.size == 1 or crew.device.type != "cpu":
        return
    with torch.random.fork_rng(devices=[]):
        networks = make_generator(config, shape), make_discriminator(config, shape)
    if any(isinstance(module, _BatchNorm) for network in networks for module in network.modules()):
        detail = "needs the statistics of the whole batch, and torch's SyncBatchNorm takes no CPU tensors"
        mend = "--preset r3gan or mlp (without BatchNorm), one process with --threads, or GPUs"
        raise Invalid(f"BatchNorm of {config.preset} {detail}: choose {mend}", field="preset")
