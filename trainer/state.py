"""Everything a run carries from one step to the next, and its two steps. Knows no files and no terminal."""

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.manifest import Classes
from models.standardising import Standardisation
from trainer.augment import augment
from trainer.config import Config
from trainer.distributed import Crew
from trainer.ema import draw_z, ema_beta, update_ema
from trainer.finite import STEPS_BETWEEN_LOOKS, Lookout, Seen
from trainer.freezing import frozen, guard
from trainer.network_parts import in_parts, use_channels_last
from trainer.networks import make_discriminator, make_generator, place
from trainer.objectives import make_objective
from trainer.regularisers import Part, gradient_penalty, zero_centred
from trainer.schedule import scheduled
from trainer.signatures import signature_of
from trainer.streams import Stream


class Batch(NamedTuple):
    """Real images [N, C, H, W] in [-1, 1], or vectors [N, d] in standard units, and their classes [N] int64 or None.

    N is this process's part of the batch, on its device.
    """

    images: Tensor
    class_idx: Tensor | None = None


class DStep(NamedTuple):
    """What a step of D saw, as tensors that nobody waits for: its loss without penalties, and what the objective shows.

    `d_real` and `d_fake` are trainer.objectives.Objective.shown; `d_norm` is |grad| of all its weights.
    """

    loss: Tensor
    d_real: Tensor
    d_fake: Tensor
    d_norm: Tensor


class GStep(NamedTuple):
    """What a step of G saw: its loss, and |grad| of all its weights."""

    loss: Tensor
    g_norm: Tensor


class State:
    """G, D, the average of G, their optimisers, the stream of random numbers and the position.

    Args:
        config: of the run.
        shape: of an image, (H, W, C), or of a vector, (d,).
        classes: of a conditional run.
        standard: of the training split, for vectors.
        crew: the processes that train together, and this one's device; without it one, on the processor.
    """

    def __init__(
        self,
        config: Config,
        shape: tuple[int, ...],
        classes: Classes | None = None,
        standard: Standardisation | None = None,
        crew: Crew | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.signature = config, signature_of(config, shape, classes)
        self.crew = crew or Crew()
        self.objective = make_objective(config.loss)
        num_classes = self.signature.num_classes
        self.G, self.D = make_generator(config, shape, num_classes), make_discriminator(config, shape, num_classes)
        if standard is not None:
            self.G.adopt(standard)
        use_channels_last(self.G)
        use_channels_last(self.D)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False).to(self.crew.device)
        self.G, self.D = place(self.G, self.crew), place(self.D, self.crew)
        self._synced = any(isinstance(module, nn.SyncBatchNorm) for module in self.D.modules())  # knows no halves
        self.g_optimiser = adam(self.G, config.g_lr, config)
        self.d_optimiser = adam(self.D, config.d_lr, config)
        self.lookout = Lookout(1 if self.crew.device.type == "cpu" else STEPS_BETWEEN_LOOKS)
        self.stream = Stream(config.seed, config.batch_size, self.crew)  # of z and of whatever else a step draws
        self.step = 0  # of either network
        self.num_images = 0  # real ones shown to D

    @property
    def done(self) -> bool:
        """Whether D has seen all the images of the configuration."""
        return self.num_images >= self.config.kimg * 1000

    @property
    def gamma_share(self) -> float:
        """What the schedule leaves of both gammas now."""
        return self._now(1.0, self.config.gamma_end)

    def train_d(self, real: Batch, d_step: int) -> DStep:
        """One step of D on real images and as many generated ones of the same classes, G frozen.

        Raises:
            Diverged: a value is not finite, perhaps some steps ago (trainer.finite); D is as it was before.
        """
        self._schedule(self.d_optimiser, self.config.d_lr)
        with frozen(self.G):
            with torch.no_grad():
                fake = self._generate(real.class_idx)
            loss, penalty, shown = self._play_d(real, fake, d_step)
            objective = loss if penalty is None else loss + penalty
            told = self._descend(self.d_optimiser, self.D, self.G, objective, loss.detach(), *shown)
        self.step += 1
        self.num_images += len(real.images) * self.crew.size
        return DStep(*told)

    def train_g(self, real: Batch) -> GStep:
        """One step of G with D frozen, and of the average; real images for objectives that pair, classes for G.

        Raises:
            Diverged: a value is not finite, perhaps some steps ago (trainer.finite); G is as it was before.
        """
        config = self.config
        self._schedule(self.g_optimiser, config.g_lr)
        with frozen(self.D):
            real_answers, noise = None, self._draw_noise()
            if self.objective.paired:
                with torch.no_grad():
                    real_answers = self._judge(*real, noise)
            fake = self._generate(real.class_idx)
            if noise is not None and not config.gp_lambda:
                # D's slope grows as the noise narrows, unless it is held near 1: in units of it, all count alike.
                fake.register_hook(lambda slope: slope * noise)  # type: ignore[no-untyped-call]  # torch has no type
            loss = self.objective.g_loss(real_answers, self._judge(fake, real.class_idx, noise))
            told = self._descend(self.g_optimiser, self.G, self.D, loss, loss.detach())
        step_images = config.batch_size * config.d_period / config.g_period
        update_ema(self.G_ema, self.G, ema_beta(step_images, config.ema_half_life_kimg * 1000, self.num_images))
        self.step += 1
        return GStep(*told)

    def state_dict(self) -> dict[str, Any]:
        """All of it, as torch's weights_only form holds it."""
        return {
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "G_ema": self.G_ema.state_dict(),
            "g_optimiser": self.g_optimiser.state_dict(),
            "d_optimiser": self.d_optimiser.state_dict(),
            "stream": self.stream.generator.get_state(),
            "step": self.step,
            "num_images": self.num_images,
            "shape": list(self.signature.shape),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        for name in ("G", "D", "G_ema", "g_optimiser", "d_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.stream.generator.set_state(state["stream"])
        self.step, self.num_images = state["step"], state["num_images"]

    def _play_d(
        self, batch: Batch, fake: Tensor, d_step: int
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor]]:  # loss, penalty, what is shown
        """D's loss and penalties; whatever is penalised is answered in float32, once for the loss and the penalty."""
        config = self.config
        lazily = config.r1_interval if d_step % config.r1_interval == 0 else 0
        scale = lazily * self.gamma_share
        r1, r2, classes = config.r1_gamma * scale, config.r2_gamma * scale, batch.class_idx
        real, fake, noise = _leaf(batch.images, r1), _leaf(fake, r2), self._draw_noise()
        if bool(r1) == bool(r2) and not self._synced:  # one call, D's weights are read and their slopes made once
            twice = None if classes is None else classes.repeat(2)
            both = None if noise is None else noise.repeat(2, 1)
            with in_parts(self.D, 2):
                real_answers, fake_answers = self._judge(torch.cat([real, fake]), twice, both, exact=bool(r1)).chunk(2)
        else:
            with self._autocast():  # one for both: it keeps the weights that it has rounded
                real_answers = self._judge(real, classes, noise, exact=bool(r1))
                fake_answers = self._judge(fake, classes, noise, exact=bool(r2))
        parts = [Part(x, a, g, noise) for x, a, g in ((real, real_answers, r1), (fake, fake_answers, r2)) if g]
        penalty = zero_centred(parts) if parts else None
        if config.gp_lambda:
            mix = self.stream.rand(len(real))
            judge = partial(self._judge, class_idx=classes, noise=noise, exact=True)
            penalty = gradient_penalty(judge, real, fake, mix, config.gp_lambda)
        with torch.no_grad():
            shown = self.objective.shown(real_answers, fake_answers)
        return self.objective.d_loss(real_answers, fake_answers), penalty, shown

    def _generate(self, class_idx: Tensor | None) -> Tensor:  # [N] -> [N, C, H, W], this process's part of the batch
        config = self.config
        z = self.stream.mine(draw_z(config.batch_size, config.z_dim, config.prior, self.stream.generator))
        with self._autocast():
            images: Tensor = self.G(z, class_idx)
        return images

    def _judge(
        self, images: Tensor, class_idx: Tensor | None, noise: Tensor | None = None, *, exact: bool = False
    ) -> Tensor:  # [N, ...], [N], [N, 1] -> [N]
        """D's answers to images or vectors, each changed in its own random way where the configuration says so."""
        images = augment(images, self.config.augment, self.stream)
        told: tuple[Tensor, ...] = ()
        if noise is not None:
            images, told = images + noise * self.stream.randn(*images.shape), (noise,)
        with self._autocast(exact=exact):
            answers: Tensor = self.D(images, class_idx, *told)
        return answers

    def _draw_noise(self) -> Tensor | None:  # [N, 1]
        """A deviation for each pair of real and generated, log-uniform; None where D sees none."""
        config = self.config
        if not config.noise_max:
            return None
        share = self.stream.rand(config.batch_size // self.crew.size, 1)
        return config.noise_min * (config.noise_max / config.noise_min) ** share

    def _autocast(self, *, exact: bool = False) -> torch.autocast:
        enabled = self.config.precision == "bf16" and not exact
        return torch.autocast(self.crew.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _schedule(self, optimiser: torch.optim.Optimizer, lr: float) -> None:
        """Give an optimiser the learning rate and beta2 of now."""
        config = self.config
        beta2 = config.beta2 if config.beta2_end is None else self._now(config.beta2, config.beta2_end)
        for group in optimiser.param_groups:
            group["lr"] = self._now(lr, lr * config.lr_end)
            group["betas"] = (config.beta1, beta2)

    def _now(self, first: float, last: float) -> float:
        config = self.config
        return scheduled(first, last, self.num_images / (config.kimg * 1000), config.lr_decay_start, config.decay)

    def _descend(
        self, optimiser: torch.optim.Optimizer, player: nn.Module, other: nn.Module, objective: Tensor, *told: Tensor
    ) -> tuple[Tensor, ...]:
        """One step down; returns what was told, of all processes, and |grad| over all the player's weights.

        Nothing changes where a value is not finite.
        """
        optimiser.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]  # torch publishes no type for it
        gradients = [p.grad for p in player.parameters() if p.grad is not None]
        (loss, *means), faulty = self.crew.average(gradients, [objective.detach(), *told])
        norm = torch.nn.utils.get_total_norm(gradients)
        stop = self.lookout.see(Seen(self.step, player, other, loss, norm, faulty))
        if stop is not None:
            optimiser.found_inf = stop  # type: ignore[attr-defined]  # what torch's gradient scaler sets, too
        optimiser.step()
        return *means, norm


def _leaf(images: Tensor, gamma: float) -> Tensor:
    """Float32 images that D's answers can be differentiated by, where a penalty asks for it."""
    return images.detach().float().requires_grad_(True) if gamma else images


def adam(network: nn.Module, lr: float, config: Config) -> torch.optim.Adam:
    """The optimiser of a network; it refuses to step while the network is frozen."""
    optimiser = torch.optim.Adam(network.parameters(), lr=lr, betas=(config.beta1, config.beta2), fused=True)
    guard(optimiser)
    return optimiser
