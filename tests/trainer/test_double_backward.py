"""Convolutions with a cheap second backward are torch's own in every value."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainer.double_backward import Conv2d

CASES = [(4, 6, 3, 1, 1, 1), (4, 4, 3, 2, 1, 4), (3, 5, 1, 1, 0, 1), (6, 4, 4, 1, 0, 2)]


def penalised(layer: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """The slopes of a loss and of its squared slope, by weight, bias and input."""
    x = x.clone().requires_grad_(True)
    answer = softplus(layer(torch.tanh(x))).sum()
    (slope,) = torch.autograd.grad(answer, x, create_graph=True)
    (slope.square().sum() + answer).backward()
    assert x.grad is not None
    return [parameter.grad for parameter in layer.parameters() if parameter.grad is not None] + [x.grad]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride", "padding", "groups"), CASES)
def test_both_backwards_are_those_of_torch(
    inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int
) -> None:
    """In double precision, with a bias and without, whatever the layout."""
    torch.manual_seed(0)
    for bias in (True, False):
        settings = {"stride": stride, "padding": padding, "groups": groups, "bias": bias, "dtype": torch.float64}
        ours, theirs = (kind(inputs, outputs, kernel, **settings) for kind in (Conv2d, nn.Conv2d))
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(3, inputs, 9, 8, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
        for a, b in zip(penalised(ours, x), penalised(theirs, x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_torch_agrees_that_they_are_derivatives() -> None:
    """Numerical differentiation, once and twice."""
    torch.manual_seed(0)
    layer = Conv2d(2, 3, 3, padding=1, dtype=torch.float64)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_rounded_and_flat_inputs_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under autocast, and where nobody asks for a slope, nothing of ours runs: exports see a plain convolution."""
    layer = Conv2d(2, 3, 3, padding=1)
    x = torch.randn(1, 2, 5, 5)
    monkeypatch.setattr("trainer.double_backward._convolve", None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x.clone().requires_grad_(True)).dtype == torch.bfloat16
    assert layer(x).shape == (1, 3, 5, 5)
    with torch.no_grad():
        assert layer(x.clone().requires_grad_(True)).shape == (1, 3, 5, 5)
