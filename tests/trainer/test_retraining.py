"""The fresh D that a run's own is held against: whatever that one is like, it can be made, and sees enough."""

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from models.mixtures import GRID
from tests.trainer.conftest import SHAPE
from tests.trainer.test_diagnosis import Normal
from trainer import retraining
from trainer.config import Config, make_config
from trainer.networks import make_discriminator, make_generator
from trainer.retraining import Reals, examining, retrained_accuracy
from trainer.signatures import signature_of

PRESETS = ("dcgan", "resize", "r3gan", "mlp")
USUAL = {"dcgan": (64, 256, 1), "resize": (64, 256, 1), "r3gan": (32, 256, 1), "mlp": (128, 96, 3)}
LEAST = {**USUAL, "mlp": (64, 48, 3)}


def shape_of(preset: str) -> tuple[int, ...]:
    """Of a sample."""
    return (2,) if preset == "mlp" else SHAPE


def sizes(config: Config) -> tuple[int, int, int]:
    """Of a D."""
    return config.d_channels, config.d_hidden, config.blocks


@pytest.mark.parametrize("preset", PRESETS)
def test_the_fresh_d_of_a_run_of_usual_widths_is_the_runs_own(preset: str) -> None:
    """The same layers and, of the same seed, the same bits: without BatchNorm there is nothing to be changed."""
    config = make_config("x", None, {"preset": preset, "d_norm": "none", "z_dim": 5})
    assert sizes(examining(config)) == sizes(config) == USUAL[preset]
    made = []
    for each in (config, examining(config)):
        torch.manual_seed(0)
        made.append(make_discriminator(each, shape_of(preset), 3).state_dict())
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize("preset", PRESETS)
def test_it_is_never_small(preset: str) -> None:
    """Each size is the larger of the run's and the preset's; of mlp's, of what the thresholds were set with."""
    small = make_config("x", None, {"preset": preset, "d_channels": 2, "d_hidden": 1, "blocks": 1})
    assert sizes(examining(small)) == LEAST[preset]
    wide = msgspec.structs.replace(small, d_channels=300, blocks=5 if preset in ("r3gan", "mlp") else 1)
    assert sizes(examining(wide)) == (300, LEAST[preset][1], wide.blocks)


GAMES: list[dict[str, Any]] = [
    *({"preset": preset} for preset in PRESETS),
    {"preset": "r3gan", "loss": "wasserstein"},
    {"preset": "resize", "loss": "wasserstein", "gp_lambda": 0.0, "d_norm": "spectral"},
    {"preset": "mlp", "noise_max": 0.0, "noise_min": 5.0},
]


@pytest.mark.parametrize("game", GAMES, ids=lambda game: " ".join(map(str, game.values())))
def test_every_run_can_have_one(game: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused of a run (an r3gan whose slope nothing bounds) is no matter for some hundred steps."""
    monkeypatch.setattr(retraining, "STEPS", 2)
    monkeypatch.setattr(retraining, "EVALUATED_EVERY", 1)
    monkeypatch.setattr(retraining, "NUM_LEARNT", 64)
    config = make_config("x", None, {"z_dim": 4, "g_channels": 4, "precision": "fp32", **game})
    shape = shape_of(config.preset)
    G = make_generator(config, shape).eval()
    random = np.random.RandomState(0)
    samples = random.randint(0, 256, (20, *shape), dtype=np.uint8)
    real = Reals(samples if len(shape) == 3 else samples.astype(np.float32), None)
    assert 0.5 <= retrained_accuracy(G, config, signature_of(config, shape), real, real) <= 1


def test_what_is_wrong_is_seen_whatever_the_size_of_the_runs_own() -> None:
    """25 narrow modes against one broad Gaussian of the same mean and variance: a D of two hidden units says 1/2."""
    config = make_config("grid", None, {"d_channels": 2, "d_hidden": 1, "blocks": 1, "z_dim": 2})
    points = GRID.draw(7000)
    points = (points - points.mean(0)) / points.std(0)
    real, held_out = Reals(points[:6000], None), Reals(points[6000:], None)
    assert retrained_accuracy(Normal(), config, signature_of(config, (2,)), real, held_out) > 0.8
