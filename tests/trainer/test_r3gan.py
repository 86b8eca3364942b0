"""The preset r3gan: its initialisation, its resampling, its shapes."""

import math

import msgspec
import numpy as np
import pytest
import torch

from models.errors import Invalid
from models.generator import Generator as OnnxGenerator
from models.latents import draw
from trainer.config import Config, make_config
from trainer.networks import make_discriminator, make_generator
from trainer.onnx_export import Servable, parity, to_onnx
from trainer.r3gan import GAIN, Block, Down, Up, clipped
from trainer.signatures import signature_of

SMALL = {"preset": "r3gan", "z_dim": 16, "g_channels": 16, "d_channels": 16}


@pytest.fixture
def small() -> Config:
    """r3gan with its recipe, in miniature."""
    return make_config("x", None, SMALL)


def test_the_recipe_is_the_papers(small: Config) -> None:
    """Relativistic pairs, R1 and R2 in every step, Adam without momentum, cosines to a quarter of the learning rate."""
    assert (small.loss, small.d_norm, small.decay) == ("relativistic", "none", "cosine")
    assert (small.r1_gamma, small.r2_gamma, small.r1_interval, small.gamma_end) == (0.05, 0.05, 1, 0.1)
    assert (small.g_lr, small.d_lr, small.lr_end) == (2e-4, 2e-4, 0.25)
    assert (small.beta1, small.beta2, small.beta2_end) == (0.0, 0.9, 0.99)


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_shapes(small: Config, shape: tuple[int, int, int]) -> None:
    """G makes images of the data's shape and D answers each with one float32, under autocast too."""
    G, D = make_generator(small, shape), make_discriminator(small, shape)
    assert tuple(G.basis.shape[1:]) == ((7, 7) if shape[0] == 28 else (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        images = G(torch.randn(3, small.z_dim))
        answers = D(images)
    assert tuple(images.shape) == (3, shape[2], shape[0], shape[1])
    assert (tuple(answers.shape), answers.dtype) == ((3,), torch.float32)


def test_no_layer_normalises_and_only_images_are_bounded(small: Config) -> None:
    """No BatchNorm anywhere; G's images are clipped, so that it can say -1 exactly."""
    for network in (make_generator(small, (32, 32, 3)), make_discriminator(small, (32, 32, 3))):
        kinds = {type(module) for module in network.modules()}
        assert not any("Norm" in kind.__name__ for kind in kinds)
    assert make_generator(small, (32, 32, 3))(300 * torch.randn(9, small.z_dim)).abs().max() == 1
    assert make_discriminator(small, (32, 32, 3))(300 * torch.randn(9, 3, 32, 32)).abs().max() > 1


def test_what_is_clipped_can_come_back() -> None:
    """Beyond a bound only the slope that leads farther away is gone; within them nothing is."""
    x = torch.tensor([-3.0, -3.0, -0.5, 0.5, 3.0, 3.0, -1.0, 1.0], requires_grad=True)
    slope = torch.tensor([1.0, -1.0, 2.0, -2.0, -1.0, 1.0, 1.0, -1.0])
    images = clipped(x)
    assert images.tolist() == [-1, -1, -0.5, 0.5, 1, 1, -1, 1]
    images.backward(slope)
    assert x.grad is not None
    assert x.grad.tolist() == [0, -1, 2, -2, 0, 1, 1, -1]
    with torch.no_grad():
        assert torch.equal(clipped(x), images)


def test_a_generator_far_beyond_its_bounds_still_learns(small: Config) -> None:
    """All images at a bound, by many times the range: their slope towards grey reaches every weight."""
    torch.manual_seed(0)
    G = make_generator(small, (28, 28, 1))
    G.to_image.weight.data.mul_(1000)
    images = G(torch.randn(16, small.z_dim))
    assert (images.abs() == 1).float().mean() > 0.95
    images.square().mean().backward()
    assert G.basis.grad is not None
    assert G.basis.grad.norm() > 0.1


def test_a_block_begins_as_the_identity_with_scaled_weights() -> None:
    """The last 1x1 is zero; the others are N(0, GAIN^2 L^(-1/2) / fan_in) for L blocks, GAIN = sqrt(2 / 1.04)."""
    torch.manual_seed(0)
    block, x = Block(64, total=16), torch.randn(2, 64, 5, 5)
    assert torch.equal(block(x), x)
    assert pytest.approx(math.sqrt(2 / 1.04)) == GAIN
    for layer, fan_in in ((block.expand, 64), (block.mix, 9 * 128)):
        assert layer.weight.std().item() == pytest.approx(GAIN / 2 / math.sqrt(fan_in), rel=0.03)
    assert not block.reduce.weight.any()
    block.reduce.weight.data.normal_()
    assert not torch.allclose(block(x), x)


def test_every_weight_of_d_learns(small: Config) -> None:
    """Zeros at the ends of blocks stop nothing but the blocks' insides, and those only until the first step."""
    D = make_discriminator(small, (28, 28, 1))
    optimiser = torch.optim.SGD(D.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        D(torch.randn(4, 1, 28, 28)).square().sum().backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.any() for p in D.parameters())


def identity(layer: Up | Down) -> None:
    layer.change.weight.data.copy_(torch.eye(layer.change.weight.shape[0])[:, :, None, None])


def test_resampling_is_by_1_2_1() -> None:
    """Up: a pixel stays and its neighbours get half, a quarter diagonally. Down: the mean with weights 1 2 1 / 4."""
    up, down, dot = Up(2, 2), Down(2, 2), torch.zeros(1, 2, 4, 4)
    dot[0, :, 1, 2] = 1
    for layer in (up, down):
        identity(layer)
    line = torch.zeros(8)
    line[1:4] = torch.tensor([0.5, 1, 0.5])
    column = torch.zeros(8)
    column[3:6] = torch.tensor([0.5, 1, 0.5])
    torch.testing.assert_close(up(dot)[0, 0], torch.outer(line, column))
    ramp = torch.arange(8.0).expand(1, 2, 8, 8).clone()
    torch.testing.assert_close(down(ramp)[0, 0, 1:, 1:], torch.tensor([2.0, 4, 6]).expand(3, 3))


def test_normalisation_in_d_is_refused() -> None:
    """Blocks that begin at zero have no spectral norm, and the recipe is made to work without any."""
    for norm in ("batch", "spectral"):
        with pytest.raises(Invalid, match="d_norm: r3gan's D"):
            make_config("x", None, {**SMALL, "d_norm": norm, "r1_gamma": 0.0, "r2_gamma": 0.0})


@pytest.mark.parametrize("shape", [(28, 28, 1), (16, 16, 3)])
def test_the_exported_graph_is_the_network(small: Config, shape: tuple[int, int, int]) -> None:
    """G0: ONNX Runtime makes torch's pixels within a level, at every batch size, and they are not all alike."""
    torch.manual_seed(0)
    G = make_generator(msgspec.structs.replace(small, g_channels=8), shape).eval().requires_grad_(False)
    for p in G.parameters():
        p.data.add_(torch.randn_like(p), alpha=0.1)
    signature, servable = signature_of(small, shape), Servable(G)
    data = to_onnx(servable, signature)
    assert all(proof.within_one >= 0.999 for proof in parity(servable, data, signature))
    assert OnnxGenerator.from_bytes(data).generate(draw(signature, np.arange(4)).z).std() > 10
