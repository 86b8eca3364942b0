"""The preset mlp: vectors in standard units, signs for G, noise for D, and the data's units in what is exported."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from models.errors import DataError, Invalid
from models.generator import Generator as OnnxGenerator
from models.latents import draw
from models.manifest import Classes
from models.standardising import standardisation
from trainer import commands
from trainer.config import Config, make_config
from trainer.loop import Trainer
from trainer.networks import make_discriminator, make_generator
from trainer.onnx_export import Servable, parity, to_onnx
from trainer.recipes import recipe
from trainer.regularisers import Part, zero_centred
from trainer.run_dir import RunDir
from trainer.selection import sample
from trainer.signatures import signature_of
from trainer.state import Batch, State

TWO = Classes(names=("left", "right"), frequencies=(0.5, 0.5))
ROWS = np.random.RandomState(0).standard_normal((400, 3)).astype(np.float32) * [1e-3, 1.0, 1e3] + [5.0, 0.0, -1e4]
SMALL = {"g_channels": 16, "d_channels": 16, "d_hidden": 6, "batch_size": 32, "threads": 1}


def small(**settings: object) -> Config:
    """The recipe in miniature."""
    return Config(**{"data": "rows", "preset": "mlp", **recipe("mlp", None), **SMALL, **settings})


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """400 rows of three columns on very different scales."""
    path = tmp_path / "rows.csv"
    np.savetxt(path, ROWS, delimiter=",", header="a,b,c", comments="")
    return path


@pytest.mark.parametrize("classes", [None, TWO])
def test_the_exported_graph_gives_the_datas_units(classes: Classes | None) -> None:
    """G0: ONNX Runtime agrees with torch within 1e-4 deviations of each column, in the columns' own scales."""
    torch.manual_seed(0)
    G = make_generator(small(), (3,), 2 if classes else 0).eval().requires_grad_(False)
    G.adopt(standardisation(ROWS.astype(np.float32)))
    signature = signature_of(small(), (3,), classes)
    servable = Servable(G)
    data = to_onnx(servable, signature)
    assert all(proof.within_one >= 0.999 for proof in parity(servable, data, signature))
    made = OnnxGenerator.from_bytes(data).generate(*draw(signature, np.arange(500)))
    np.testing.assert_allclose(made, sample(G, signature, np.arange(500)), rtol=1e-5, atol=1e-5)
    assert signature.kind == "vector"
    spread = made.std(0) / ROWS.std(0)
    assert (spread > 0.05).all()
    assert (spread < 20).all()


def test_signs_let_g_jump() -> None:
    """As one coordinate of z passes zero, samples jump; as it moves on either side, they move with it."""
    torch.manual_seed(0)
    G = make_generator(small(), (2,)).eval()
    z = torch.randn(64, 8).repeat(4, 1, 1)
    z[:, :, 3] = torch.tensor([-0.002, -0.001, 0.001, 0.002])[:, None]
    with torch.no_grad():
        a, b, c, d = (G(part) for part in z)
    across = (c - b).norm(dim=1).mean()
    assert across > 50 * (b - a).norm(dim=1).mean()
    assert across > 50 * (d - c).norm(dim=1).mean()
    assert (d != c).any()


def test_d_is_told_of_the_noise() -> None:
    """Its answer depends on the noise; without any told, it is that of the narrowest."""
    D = make_discriminator(small(), (2,))
    x = torch.randn(8, 2)
    narrow, wide = torch.full((8, 1), 0.004), torch.full((8, 1), 3.0)
    assert torch.equal(D(x), D(x, None, narrow))
    assert not torch.allclose(D(x, None, narrow), D(x, None, wide))


def test_waves_fade_as_noise_fades_them() -> None:
    """D weighs each Fourier feature by what the noise leaves of it: its mean over noised copies of a vector."""
    torch.manual_seed(0)
    D = make_discriminator(small(d_hidden=30), (2,))
    seen: list[torch.Tensor] = []
    D.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 3:]))
    x = torch.tensor([[0.3, -1.1]])
    D(x, None, torch.tensor([[0.2]]))
    D((x + 0.2 * torch.randn(40_000, 2)), None, torch.full((40_000, 1), 1e-6))
    torch.testing.assert_close(seen[0][0], seen[1].mean(0), atol=0.03, rtol=0)  # 6 standard errors
    assert seen[0].abs().max() > 0.1


def test_slopes_are_penalised_in_units_of_the_noise() -> None:
    """The penalty of a D with slope 1 / noise is gamma/2 at every noise."""
    x = torch.randn(16, 1, requires_grad=True)
    noise = torch.logspace(-2, 1, 16)[:, None]
    assert zero_centred([Part(x, (x / noise).sum(1), 4.0, noise)]).item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(("loss", "in_units"), [("wasserstein", False), ("hinge", True)])
def test_gs_slope_is_in_units_of_the_noise_unless_ds_is_held_near_one(
    monkeypatch: pytest.MonkeyPatch, loss: str, in_units: bool
) -> None:
    """Of a D with slope 1, G's last bias gets the noise's mean; with the gradient penalty all of it."""
    state, noise = State(small(**{**recipe("mlp", loss), **SMALL, "loss": loss}), (3,)), torch.logspace(-2, 0, 32)
    monkeypatch.setattr(state, "_draw_noise", lambda: noise[:, None])
    monkeypatch.setattr(state, "_judge", lambda images, *_: images.sum(1))
    state.train_g(Batch(torch.randn(32, 3)))
    expected = -noise.mean() if in_units else torch.tensor(-1.0)
    torch.testing.assert_close(state.G.layers[-1].bias.grad, expected.expand(3))


@pytest.mark.parametrize("loss", ["relativistic", "hinge", "non-saturating"])
def test_frozen_networks_keep_every_bit(loss: str) -> None:
    """D's and G's steps change all of their own weights and nothing of the other's, buffers included."""
    config = small(**{**recipe("mlp", loss), **SMALL, "loss": loss})
    state = State(config, (3,), None, standardisation(ROWS.astype(np.float32)))
    real = Batch(torch.randn(32, 3))
    before = {name: value.clone() for name, value in state.G.state_dict().items()}
    state.train_d(real, 0)
    assert all(torch.equal(value, before[name]) for name, value in state.G.state_dict().items())
    D = {name: value.clone() for name, value in state.D.state_dict().items()}
    state.train_g(real)
    assert all(torch.equal(value, D[name]) for name, value in state.D.state_dict().items())
    changed = {name for name, value in state.G.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in state.G.named_parameters()}


def test_a_stopped_run_ends_bit_identical(tmp_path: Path, csv: Path, parse: Any, monkeypatch: Any) -> None:
    """train, stopped in the middle of an epoch, and --resume: the same bits as in one go, in the data's units."""
    words = ("--kimg", 2, "--snapshot-kimg", 1, "--batch-size", 32, "--threads", 1, "--g-channels", 16)
    assert commands.train(parse("train", csv, *words, "--run-dir", tmp_path / "whole")) == 0
    step = Trainer._step

    def stops(self: Trainer) -> None:
        step(self)
        if self.state.step == 37:
            self.stop()

    monkeypatch.setattr(Trainer, "_step", stops)
    assert commands.train(parse("train", csv, *words, "--run-dir", tmp_path / "stopped")) == commands.INTERRUPTED
    assert commands.train(parse("train", "--resume", tmp_path / "stopped")) == 0
    whole, stopped = (RunDir(tmp_path / name) for name in ("whole", "stopped"))
    for kimg in whole.snapshots():
        a, b = whole.load_snapshot(kimg), stopped.load_snapshot(kimg)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert a["scale"].numpy() == pytest.approx(ROWS.std(0), rel=0.2)


def test_what_does_not_go_together_is_refused(csv: Path, blobs: Path, tmp_path: Path, parse: Any) -> None:
    """Vectors with networks for images, images with those for vectors, noise for a D that is not told of it."""
    run = ("--run-dir", tmp_path / "run", "--batch-size", 16)
    with pytest.raises(DataError, match="holds vectors, and resize makes images: --preset mlp"):
        commands.train(parse("train", csv, "--preset", "resize", *run))
    with pytest.raises(DataError, match="holds images, and mlp makes vectors"):
        commands.train(parse("train", blobs, "--preset", "mlp", *run))
    with pytest.raises(Invalid, match="noise_max: resize's D is not told of noise"):
        make_config("mnist", None, {"noise_max": 1.0})
    with pytest.raises(Invalid, match="g_hidden: mlp's G has no such layer"):
        make_config("ring", None, {"g_hidden": 8})
    with pytest.raises(Invalid, match=r"noise_min: 4 is above noise_max, 3"):
        small(noise_min=4.0)
    with pytest.raises(Invalid, match="d_norm: mlp's D has no BatchNorm"):
        small(d_norm="batch", r1_gamma=0.0, r2_gamma=0.0)
    assert not (tmp_path / "run").exists()


def test_a_table_trains_mlp_unless_told_otherwise(csv: Path) -> None:
    """A CSV needs no preset; the networks' recipe stands, and another objective brings its own."""
    assert make_config(str(csv), None, {}).preset == "mlp"
    assert make_config("grid", None, {}) == msgspec.structs.replace(make_config("ring", None, {}), data="grid")
    assert make_config("ring", None, {}).g_lr == recipe("mlp", None)["g_lr"]
    assert make_config("ring", None, {"loss": "wasserstein", "r1_gamma": 0.0, "r2_gamma": 0.0}).g_lr == 1e-4
