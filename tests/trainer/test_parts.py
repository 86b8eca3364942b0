"""Networks, frozen periods, schedules, the average of G."""

import copy
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

import trainer.precision
from models.errors import DataError, Invalid
from tests.trainer.conftest import SHAPE
from trainer.arguments import OPTIONS
from trainer.config import Config, make_config
from trainer.ema import draw_z, ema_beta, reestimate_statistics, update_ema
from trainer.freezing import frozen
from trainer.network_parts import InParts, in_parts, stages
from trainer.networks import make_discriminator, make_generator
from trainer.objectives import OBJECTIVES
from trainer.pixels import to_tensor, to_uint8
from trainer.precision import suited
from trainer.recipes import recipe
from trainer.regularisers import Part, zero_centred
from trainer.schedule import Batches, batch_number, d_steps_before, period_steps, scheduled, turn
from trainer.signatures import signature_of
from trainer.state import Batch, State


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def changed(network: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def noise() -> Batch:
    return Batch(to_tensor(np.random.RandomState(0).randint(0, 256, (16, *SHAPE), dtype=np.uint8)))


# Networks.


@pytest.mark.parametrize("preset", ["dcgan", "resize"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (8, 16, 1)])
def test_shapes(tiny: Config, preset: str, shape: tuple[int, int, int]) -> None:
    """G maps z to images of the data's shape in [-1, 1], and D maps those to one float32 logit each."""
    config = Config(**{**{f: getattr(tiny, f) for f in tiny.__struct_fields__}, "preset": preset})
    images = make_generator(config, shape)(torch.randn(3, config.z_dim))
    assert tuple(images.shape) == (3, shape[2], shape[0], shape[1])
    assert images.abs().max() <= 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = make_discriminator(config, shape)(images)
    assert (tuple(logits.shape), logits.dtype) == ((3,), torch.float32)


def test_sides_that_do_not_halve_are_refused() -> None:
    """27 pixels cannot be doubled to; 28 are 7, 14, 28."""
    assert stages(28, 28) == (7, 7, 2)
    with pytest.raises(Invalid, match="27 x 27"):
        stages(27, 27)


def test_the_default_generator_is_small() -> None:
    """At 28 x 28 the default G has fewer than 1.5 million weights: 6 MB of float32."""
    assert sum(p.numel() for p in make_generator(Config(data="x"), (28, 28, 1)).parameters()) < 1_500_000


# Frozen periods.


def test_g_stands_still_while_d_trains(tiny: Config) -> None:
    """D's step changes all of D, its running statistics too, and nothing of G: no weight and no buffer."""
    state = State(tiny, SHAPE)
    G, G_ema, D = weights(state.G), weights(state.G_ema), weights(state.D)
    state.train_d(noise(), 0)
    assert changed(state.G, G) == changed(state.G_ema, G_ema) == set()
    assert {"head.weight", "hidden.2.running_mean", "features.0.weight"} <= changed(state.D, D)


def test_d_stands_still_while_g_trains(tiny: Config) -> None:
    """G's step changes all of G, its running statistics too, and nothing of D; afterwards D can train again."""
    state = State(tiny, SHAPE)
    G, D = weights(state.G), weights(state.D)
    state.train_g(noise())
    assert changed(state.D, D) == set()
    assert {"linear.weight", "norm.running_mean", "to_image.weight"} <= changed(state.G, G)
    assert all(p.requires_grad for p in state.D.parameters())


@pytest.mark.parametrize("loss", ["hinge", "wasserstein", "relativistic", "least-squares", "minimax"])
def test_frozen_networks_keep_every_bit_in_every_game(tiny: Config, loss: str) -> None:
    """Spectral normalisation's vectors, penalties and pairs included: the other player's step changes nothing."""
    state = State(Config(**{**_fields(tiny), **recipe(None, loss), "loss": loss}), SHAPE)
    G = weights(state.G)
    state.train_d(noise(), 0)
    assert changed(state.G, G) == set()
    D = weights(state.D)
    state.train_g(noise())
    assert changed(state.D, D) == set()
    assert changed(state.G, G)
    state.train_d(noise(), 1)
    assert changed(state.D, D)


def test_a_write_to_a_frozen_network_is_found() -> None:
    """A write to a parameter or a buffer inside the period raises with its name."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(RuntimeError, match=r"0\.weight of Sequential changed"), frozen(network), torch.no_grad():
        network[0].weight.add_(1)
    with pytest.raises(RuntimeError, match=r"1\.running_mean"), frozen(network):
        network[1].running_mean.add_(1)


def test_an_optimiser_refuses_a_frozen_network(tiny: Config) -> None:
    """Fused Adam's writes are counted by nobody, so its step itself is refused; afterwards it works again."""
    state = State(tiny, SHAPE)
    state.train_d(noise(), 0)
    before = weights(state.D)
    with pytest.raises(RuntimeError, match="while it is frozen"), frozen(state.D):
        state.d_optimiser.step()
    assert changed(state.D, before) == set()
    state.d_optimiser.step()
    assert changed(state.D, before)


@pytest.mark.parametrize("penalty", ["r1_gamma", "r2_gamma", "gp_lambda"])
def test_penalties_reach_d(tiny: Config, penalty: str) -> None:
    """With a penalty the same step of D ends elsewhere than without."""
    plain = State(Config(**{**_fields(tiny), "d_norm": "none"}), SHAPE)
    regularised = State(Config(**{**_fields(tiny), "d_norm": "none", penalty: 10.0}), SHAPE)
    plain.train_d(noise(), 0)
    regularised.train_d(noise(), 0)
    assert changed(plain.D, weights(regularised.D))


def test_lazy_penalties_come_every_so_many_steps(tiny: Config) -> None:
    """With an interval of 4, step 1 is as without R1, and step 4 is the first to be regularised again."""
    lazy = Config(**{**_fields(tiny), "d_norm": "none", "r1_gamma": 10.0, "r1_interval": 4})
    plain = Config(**{**_fields(tiny), "d_norm": "none"})
    for d_step, same in ((1, True), (3, True), (4, False), (0, False)):
        a, b = State(plain, SHAPE), State(lazy, SHAPE)
        a.train_d(noise(), d_step)
        b.train_d(noise(), d_step)
        assert (changed(a.D, weights(b.D)) == set()) == same


def test_r1_and_r2_in_one_call_are_those_of_two(tiny: Config) -> None:
    """In float32, R1 and R2 through one call of D give the gradient that separate calls give."""
    config = Config(**{**_fields(tiny), "d_norm": "none", "precision": "fp32"})
    both = State(Config(**{**_fields(config), "r1_gamma": 3.0, "r2_gamma": 3.0, "r1_interval": 1}), SHAPE)
    both.train_d(noise(), 0)
    apart = State(config, SHAPE)
    real, fake = noise().images.requires_grad_(), apart._generate(None).detach().requires_grad_()
    answers = apart.D(real), apart.D(fake)
    penalties = [zero_centred([Part(x, a, 3.0)]) for x, a in zip((real, fake), answers, strict=True)]
    (apart.objective.d_loss(*answers) + sum(penalties)).backward()
    for ours, theirs in zip(both.D.parameters(), apart.D.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_batch_normalisation_in_one_call_is_that_of_two(tiny: Config) -> None:
    """Real and generated images each by their own statistics: answers, slopes and running statistics are the same."""
    once = make_discriminator(tiny, SHAPE).train()
    twice = copy.deepcopy(once)
    assert [module for module in once.modules() if isinstance(module, InParts)]
    generator = torch.Generator().manual_seed(3)
    real, fake = (torch.randn(4, SHAPE[2], *SHAPE[:2], generator=generator) * scale for scale in (0.3, 2.0))
    with in_parts(once, 2):
        together = once(torch.cat([real, fake]))
    apart = torch.cat([twice(real), twice(fake)])
    torch.testing.assert_close(together, apart)
    assert not torch.allclose(together, copy.deepcopy(twice)(torch.cat([real, fake])), rtol=1e-2)
    for answers in (together, apart):
        OBJECTIVES["non-saturating"]().d_loss(*answers.chunk(2)).backward()
    for one, other in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    for one, other in zip(once.buffers(), twice.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    once.eval()
    with in_parts(once, 2):
        torch.testing.assert_close(once(real), once(torch.cat([real, fake]))[:4])


def _fields(config: Config) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__struct_fields__}


# Schedules.


def test_d_goes_first_and_turns_alternate() -> None:
    """Two steps of D, then three of G, and so on; what D saw before a step is the count of its turns."""
    turns = [turn(step, 2, 3) for step in range(12)]
    assert "".join(turns) == "DDGGGDDGGGDD"
    assert [d_steps_before(step, 2, 3) for step in range(12)] == [turns[:step].count("D") for step in range(12)]


def test_g_sees_the_batches_that_d_saw_last() -> None:
    """Where pairs need real images, G's steps take those of D's period before, in order, again and again."""
    assert [batch_number(step, 2, 3) for step in range(10)] == [0, 1, 0, 1, 0, 2, 3, 2, 3, 2]
    assert [batch_number(step, 1, 1) for step in range(6)] == [0, 0, 1, 1, 2, 2]


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


@pytest.mark.parametrize(("progress", "value"), [(0, 8), (0.5, 8), (0.75, 5), (1, 2), (1.01, 2)])
def test_schedules_change_linearly_or_by_a_cosine(progress: float, value: float) -> None:
    """From half of the run on, 8 becomes 2: half of the way at three quarters; never changing is a start of 1."""
    for decay in ("linear", "cosine"):
        assert scheduled(8, 2, progress, 0.5, decay) == pytest.approx(value)
    assert scheduled(8, 2, min(progress, 1), 1.0, "linear") == 8
    assert scheduled(0, 1, 1 / 3, 0.0, "cosine") == pytest.approx(0.25)
    assert scheduled(0, 1, 1 / 3, 0.0, "linear") == pytest.approx(1 / 3)


def test_a_schedule_that_never_begins_does_not_at_the_end_either() -> None:
    """The last batch may hold more images than were left: progress is beyond 1 for a step of G."""
    assert scheduled(2.0, 0.0, 1.0001, 1.0, "linear") == 2.0
    assert scheduled(2.0, 0.5, 1.0001, 0.5, "cosine") == pytest.approx(0.5)


def test_schedules_reach_the_optimisers(tiny: Config) -> None:
    """Learning rate and beta2 of a step are those of its place in the run: at half of it, half-way by the cosine."""
    settings = {"decay": "cosine", "lr_decay_start": 0.0, "lr_end": 0.25, "beta2": 0.9, "beta2_end": 0.99}
    state = State(Config(**{**_fields(tiny), **settings}), SHAPE)
    state.num_images = round(tiny.kimg * 500)
    state.train_g(noise())
    (group,) = state.g_optimiser.param_groups
    assert group["lr"] == pytest.approx(tiny.g_lr * 0.625)
    assert group["betas"] == pytest.approx((tiny.beta1, 0.945))


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


@pytest.mark.parametrize(("d_period", "g_period"), [(1, 1), (5, 1), (2, 6)])
@pytest.mark.parametrize("unit", ["steps", "epochs"])
def test_the_half_life_is_of_images_shown_to_d(tiny: Config, d_period: int, g_period: int, unit: str) -> None:
    """Whatever the periods: steps of G are as many images apart as D sees for each of them."""
    periods = {"d_period": d_period, "g_period": g_period, "period_unit": unit}
    settings = {"ema_half_life_kimg": 0.04, "g_lr": 0.1, "lr_decay_start": 1.0}
    state = State(Config(**{**_fields(tiny), **periods, **settings}), SHAPE)
    state.num_images = 10**6
    before = next(state.G_ema.parameters()).clone()
    state.train_g(noise())
    expected = before.lerp(next(state.G.parameters()), 1 - 0.5 ** (16 * d_period / g_period / 40))
    assert not torch.equal(before, expected)
    torch.testing.assert_close(next(state.G_ema.parameters()), expected)


def test_the_average_starts_short() -> None:
    """The half-life is at most 5 % of the images seen, and without images the average is G itself."""
    assert ema_beta(64, 1e6, 2000) == pytest.approx(0.5 ** (64 / 100))
    assert ema_beta(64, 1e6, 0) == 0


@torch.no_grad()
def test_statistics_are_those_of_the_averaged_weights(tiny: Config) -> None:
    """Re-estimated, the first BatchNorm holds the moments of its own input over the prior; twice, the same bits."""
    G = make_generator(tiny, SHAPE)
    G.norm.running_mean.fill_(99.0)
    reestimate_statistics(G, signature_of(tiny, SHAPE), 64, "fp32")
    first = weights(G)
    covariance = G.linear.weight @ G.linear.weight.T
    expected = covariance.diagonal().view(len(G.norm.running_var), -1).mean(1)
    torch.testing.assert_close(G.norm.running_var, expected, rtol=0.1, atol=0)
    assert G.norm.running_mean.abs().max() < 0.1 * expected.sqrt().max()
    reestimate_statistics(G, signature_of(tiny, SHAPE), 64, "fp32")
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


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"r1_gamma": 1.0}, "r1_gamma: with BatchNorm"),
        ({"r2_gamma": 1.0}, "r2_gamma: with BatchNorm"),
        ({"loss": "wasserstein", "gp_lambda": 10.0}, "gp_lambda: with BatchNorm"),
        ({"loss": "wasserstein", "d_norm": "none"}, "loss: wasserstein needs a D of bounded slope"),
        ({"preset": "r3gan", "loss": "minimax", "d_norm": "none"}, "r1_gamma: r3gan's D has no normalisation"),
        ({"blocks": 2}, "blocks: resize has no blocks"),
        ({"d_norm": "none", "gp_lambda": 10.0, "r1_gamma": 1.0}, "gp_lambda: the gradient penalty wants slopes of 1"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(settings: dict[str, Any], complaint: str) -> None:
    """The error names the field and says why."""
    with pytest.raises(Invalid, match=complaint):
        Config(data="x", **settings)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_every_objective_brings_what_it_needs(loss: str) -> None:
    """Asked for alone, an objective is a configuration that is not refused; what is said beats what it brings."""
    assert make_config("x", None, {"loss": loss}).loss == loss
    assert make_config("x", None, {"loss": loss, "d_lr": 0.5}).d_lr == 0.5


def test_another_game_leaves_the_tested_configuration_behind() -> None:
    """fashion-mnist's own file holds for its own objective only."""
    assert make_config("fashion-mnist", None, {}).g_hidden == 128
    config = make_config("fashion-mnist", None, {"loss": "wasserstein"})
    assert (config.gp_lambda, config.d_lr, config.d_period) == (10.0, 1e-4, 5)


def test_the_command_line_knows_every_choice() -> None:
    """Options with choices offer exactly those that Config takes."""
    hints = get_type_hints(Config)
    for name, _, choices, _ in OPTIONS:
        if choices is not None:
            assert set(choices) == set(get_args(hints[name])), name


@pytest.mark.parametrize(
    ("units", "expected"),
    [({"avx2", "avx512f"}, "fp32"), ({"avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16"), (set(), "fp32")],
)
def test_processors_without_bf16_train_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, units: set[str], expected: str
) -> None:
    """Unless the command line, a file or a recipe says otherwise; what was chosen is kept with the run."""
    monkeypatch.setattr(trainer.precision, "features", lambda: frozenset(units))
    assert suited("cpu") == expected
    assert make_config("x", None, {"device": "cpu"}, suited).precision == expected
    assert make_config("x", None, {"precision": "bf16"}, suited).precision == "bf16"
    assert make_config("ring", None, {}, suited).precision == "fp32"
    file = tmp_path / "settings.toml"
    file.write_text('precision = "fp32"\n')
    assert make_config("x", file, {}, suited).precision == "fp32"
