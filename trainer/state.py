"""Everything a run carries from one step to the next, and its one step. Knows no files and no terminal."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.ema import draw_z, ema_beta, update_ema
from trainer.freezing import frozen
from trainer.losses import d_loss, g_loss, r1_penalty
from trainer.networks import Discriminator, Generator, use_channels_last
from trainer.schedule import lr_scale


class DStep(NamedTuple):
    """What a step of D saw: its loss without R1, and the means of D(x) and D(G(z)), probabilities of "real"."""

    loss: float
    d_real: float
    d_fake: float


class State:
    """G, D, the average of G, their optimisers, the stream of z and the position.

    Args:
        config: of the run.
        shape: of an image, (H, W, C).
    """

    def __init__(self, config: Config, shape: tuple[int, ...]) -> None:
        torch.manual_seed(config.seed)
        self.config, self.shape = config, shape
        self.G, self.D = Generator(config, shape), Discriminator(config, shape)
        use_channels_last(self.G)
        use_channels_last(self.D)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.g_optimiser = _adam(self.G, config.g_lr, config)
        self.d_optimiser = _adam(self.D, config.d_lr, config)
        self.stream = torch.Generator().manual_seed(config.seed)
        self.step = 0  # of either network
        self.num_images = 0  # real ones shown to D

    @property
    def done(self) -> bool:
        """Whether D has seen all the images of the configuration."""
        return self.num_images >= self.config.kimg * 1000

    def train_d(self, real_images: Tensor, d_step: int) -> DStep:
        """One step of D on real images [N, C, H, W] in [-1, 1] and as many fakes, G frozen."""
        config = self.config
        _set_lr(self.d_optimiser, config.d_lr * self._lr_scale())
        with frozen(self.G), self._autocast():
            with torch.no_grad():
                fake_images = self.G(self._draw())
            real_logits, fake_logits = self.D(real_images), self.D(fake_images)
        loss = objective = d_loss(real_logits, fake_logits)
        if config.r1_gamma and d_step % config.r1_interval == 0:
            objective = loss + r1_penalty(self.D, real_images, config.r1_gamma * config.r1_interval)
        _descend(self.d_optimiser, objective)
        self.step += 1
        self.num_images += len(real_images)
        with torch.no_grad():
            return DStep(loss.item(), real_logits.sigmoid().mean().item(), fake_logits.sigmoid().mean().item())

    def train_g(self) -> float:
        """One step of G with D frozen, and of the average; returns G's loss."""
        config = self.config
        _set_lr(self.g_optimiser, config.g_lr * self._lr_scale())
        with frozen(self.D), self._autocast():
            fake_logits = self.D(self.G(self._draw()))
        objective = g_loss(fake_logits, config.loss)
        _descend(self.g_optimiser, objective)
        beta = ema_beta(config.batch_size, config.ema_half_life_kimg * 1000, self.num_images)
        update_ema(self.G_ema, self.G, beta)
        self.step += 1
        return objective.item()

    def state_dict(self) -> dict[str, Any]:
        """All of it, as torch's weights_only form holds it."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "g_optimiser": self.g_optimiser.state_dict(),
            "d_optimiser": self.d_optimiser.state_dict(),
            "stream": self.stream.get_state(),
            "step": self.step,
            "num_images": self.num_images,
            "shape": list(self.shape),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for name in ("G", "D", "G_ema", "g_optimiser", "d_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.stream.set_state(state["stream"])
        self.step, self.num_images = state["step"], state["num_images"]

    def _draw(self) -> Tensor:  # [batch_size, z_dim]
        return draw_z(self.config.batch_size, self.config.z_dim, self.config.prior, self.stream)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.config.precision == "bf16")

    def _lr_scale(self) -> float:
        return lr_scale(self.num_images / (self.config.kimg * 1000), self.config.lr_decay_start)


def _adam(network: nn.Module, lr: float, config: Config) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr, betas=(config.beta1, config.beta2), fused=True)


def _set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr


def _descend(optimiser: torch.optim.Optimizer, objective: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    objective.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
    optimiser.step()
