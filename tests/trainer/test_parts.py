"""Networks, frozen periods, schedules, the average of G."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import DataError, Invalid
from tests.trainer.conftest import SHAPE
from trainer.config import Config
from trainer.ema import draw_z, ema_beta, reestimate_statistics, update_ema
from trainer.networks import Discriminator, Generator, stages
from trainer.pixels import to_tensor, to_uint8
from trainer.schedule import Batches, d_steps_before, lr_scale, period_steps, turn
from trainer.state import State


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def changed(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


# Networks.


@pytest.mark.parametrize("preset", ["dcgan", "resize"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 16, 1)])
def test_shapes(tiny: Config, preset: str, shape: tuple[int, int, int]) -> None:
    """G maps z to images of the data's shape in [-1, 1], and D maps those to one float32 logit each."""
    config = Config(**{**{f: getattr(tiny, f) for f in tiny.__struct_fields__}, "preset": preset})
    images = Generator(config, shape)(torch.randn(3, config.z_dim))
    assert tuple(images.shape) == (3, shape[2], shape[0], shape[1])
    assert images.abs().max() <= 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = Discriminator(config, shape)(images)
    assert (tuple(logits.shape), logits.dtype) == ((3,), torch.float32)


def test_sides_that_do_not_halve_are_refused() -> None:
    """27 pixels cannot be doubled to; 28 are 7, 14, 28."""
    assert stages(28, 28) == (7, 7, 2)
    with pytest.raises(Invalid, match="27 x 27"):
        stages(27, 27)


def test_the_default_generator_is_small() -> None:
    """At 28 x 28 the default G has fewer than 1.5 million weights: 6 MB of float32."""
    assert sum(p.numel() for p in Generator(Config(data="x"), (28, 28, 1)).parameters()) < 1_500_000


# Frozen periods.


def test_g_stands_still_while_d_trains(tiny: Config) -> None:
    """D's step changes all of D, its running statistics too, and nothing of G: no weight and no buffer."""
    state = State(tiny, SHAPE)
    G, G_ema, D = weights(state.G), weights(state.G_ema), weights(state.D)
    state.train_d(to_tensor(np.random.RandomState(0).randint(0, 256, (16, *SHAPE), dtype=np.uint8)), 0)
    assert changed(state.G, G) == changed(state.G_ema, G_ema) == set()
    assert {"head.weight", "hidden.2.running_mean", "features.0.weight"} <= changed(state.D, D)


def test_d_stands_still_while_g_trains(tiny: Config) -> None:
    """G's step changes all of G, its running statistics too, and nothing of D; afterwards D can train again."""
    state = State(tiny, SHAPE)
    G, D = weights(state.G), weights(state.D)
    state.train_g()
    assert changed(state.D, D) == set()
    assert {"linear.weight", "norm.running_mean", "to_image.weight"} <= changed(state.G, G)
    assert all(p.requires_grad for p in state.D.parameters())


def test_r1_reaches_d(tiny: Config) -> None:
    """With R1 the same step of D ends elsewhere than without."""
    real_images = to_tensor(np.random.RandomState(0).randint(0, 256, (16, *SHAPE), dtype=np.uint8))
    plain, regularised = State(tiny, SHAPE), State(Config(**{**_fields(tiny), "r1_gamma": 10.0}), SHAPE)
    plain.train_d(real_images, 0)
    regularised.train_d(real_images, 0)
    assert changed(plain.D, weights(regularised.D))


def _fields(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


# Schedules.


def test_d_goes_first_and_turns_alternate() -> None:
    """Two steps of D, then three of G, and so on; what D saw before a step is the count of its turns."""
    turns = [turn(step, 2, 3) for step in range(12)]
    assert "".join(turns) == "DDGGGDDGGGDD"
    assert [d_steps_before(step, 2, 3) for step in range(12)] == [turns[:step].count("D") for step in range(12)]


def test_periods_in_epochs(tiny: Config) -> None:
    """A period of two epochs is two times the batches that fill the training split."""
    config = Config(**{**_fields(tiny), "period_unit": "epochs"})
    assert period_steps(2, config, Batches(100, config)) == 12
    assert period_steps(2, tiny, Batches(100, tiny)) == 2


def test_every_epoch_shows_each_image_at_most_once_in_a_new_order(tiny: Config) -> None:
    """48 images make 3 whole batches of 16: each image once an epoch, and any batch can be asked for out of order."""
    batches = Batches(48, tiny)
    epochs = [np.concatenate([batches[3 * epoch + i] for i in range(3)]) for epoch in range(2)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(48))
    assert epochs[0].tolist() != epochs[1].tolist()
    np.testing.assert_array_equal(Batches(48, tiny)[4], batches[4])


def test_fewer_images_than_a_batch_are_refused(tiny: Config) -> None:
    """15 images do not fill a batch of 16."""
    with pytest.raises(DataError, match="15 training images"):
        Batches(15, tiny)


@pytest.mark.parametrize(("progress", "scale"), [(0, 1), (0.5, 1), (0.75, 0.5), (1, 0), (1.01, 0)])
def test_the_learning_rate_falls_linearly(progress: float, scale: float) -> None:
    """1 until half of the run, then linearly to 0; never decaying is decay_start 1."""
    assert lr_scale(progress, 0.5) == pytest.approx(scale)
    assert lr_scale(min(progress, 1), 1.0) == 1


# The average of G.


def test_a_half_life_halves() -> None:
    """After half-life images the first weights count for one half, whatever the batch size."""
    for batch_size in (10, 50):
        first, G = nn.Linear(1, 1), nn.Linear(1, 1)
        nn.init.zeros_(G.weight)
        nn.init.ones_(first.weight)
        for _ in range(1000 // batch_size):
            update_ema(first, G, ema_beta(batch_size, 1000.0, 1e9))
        assert first.weight.item() == pytest.approx(0.5, rel=1e-5)


def test_the_average_starts_short() -> None:
    """The half-life is at most 5 % of the images seen, and without images the average is G itself."""
    assert ema_beta(64, 1e6, 2000) == pytest.approx(0.5 ** (64 / 100))
    assert ema_beta(64, 1e6, 0) == 0


@torch.no_grad()
def test_statistics_are_those_of_the_averaged_weights(tiny: Config) -> None:
    """Re-estimated, the first BatchNorm holds the moments of its own input over the prior; twice, the same bits."""
    G = Generator(tiny, SHAPE)
    G.norm.running_mean.fill_(99.0)
    reestimate_statistics(G, tiny.z_dim, "normal", 64)
    first = weights(G)
    covariance = G.linear.weight @ G.linear.weight.T
    expected = covariance.diagonal().view(len(G.norm.running_var), -1).mean(1)
    torch.testing.assert_close(G.norm.running_var, expected, rtol=0.1, atol=0)
    assert G.norm.running_mean.abs().max() < 0.1 * expected.sqrt().max()
    reestimate_statistics(G, tiny.z_dim, "normal", 64)
    assert changed(G, first) == set()
    assert not G.training


def test_training_draws_from_both_priors() -> None:
    """The uniform prior stays in [-1, 1] with variance 1/3; the normal one has variance 1."""
    stream = torch.Generator().manual_seed(0)
    uniform, normal = (draw_z(4000, 4, prior, stream) for prior in ("uniform", "normal"))
    assert uniform.abs().max() <= 1
    assert uniform.var().item() == pytest.approx(1 / 3, rel=0.05)
    assert normal.var().item() == pytest.approx(1, rel=0.05)


def test_pixels_survive_the_way_there_and_back() -> None:
    """Every level maps into [-1, 1] and back to itself; beyond it is clamped, not wrapped around."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_uint8(to_tensor(levels)), levels)
    assert to_uint8(torch.tensor([-9.0, 9.0]).view(1, 1, 1, 2)).ravel().tolist() == [0, 255]


# Configuration.


def test_settings_outside_their_limits_are_named() -> None:
    """The error names the field and its limits."""
    with pytest.raises(Invalid, match=r"batch_size: 1 is outside 2 \.\. 8192"):
        Config(data="x", batch_size=1)
