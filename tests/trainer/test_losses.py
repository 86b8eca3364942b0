"""Losses against their closed forms."""

import math

import pytest
import torch

from trainer.losses import d_loss, g_loss, r1_penalty

LOGITS = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)


def test_d_minimises_minus_v() -> None:
    """d_loss is -(E log D(x) + E log(1 - D(G(z)))) with D the sigmoid of the logit."""
    real, fake = LOGITS, LOGITS.flip(0) + 0.3
    expected = -(torch.log(torch.sigmoid(real)).mean() + torch.log(1 - torch.sigmoid(fake)).mean())
    torch.testing.assert_close(d_loss(real, fake), expected)


def test_an_undecided_d_costs_two_logs_of_two() -> None:
    """At D = 1/2 everywhere, the equilibrium, D's loss is 2 log 2."""
    assert d_loss(torch.zeros(5), torch.zeros(5)).item() == pytest.approx(2 * math.log(2))


def test_both_losses_of_g() -> None:
    """Non-saturating is -log D(G(z)); minimax is log(1 - D(G(z)))."""
    D = torch.sigmoid(LOGITS)
    torch.testing.assert_close(g_loss(LOGITS, "non-saturating"), -torch.log(D).mean())
    torch.testing.assert_close(g_loss(LOGITS, "minimax"), torch.log(1 - D).mean())


@pytest.mark.parametrize(("loss", "at_wrong"), [("non-saturating", -1.0), ("minimax", 0.0)])
def test_the_gradient_where_d_is_right(loss: str, at_wrong: float) -> None:
    """Sure of a fake (logit -20), D leaves the non-saturating loss a gradient of -1 and the minimax loss none."""
    logit = torch.tensor([-20.0], requires_grad=True)
    g_loss(logit, loss).backward()
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(at_wrong, abs=1e-6)


def test_r1_of_a_linear_d() -> None:
    """For D(x) = w.x the gradient is w everywhere: R1 = gamma/2 |w|^2, and its gradient by w is gamma w."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(1, 2, 2).requires_grad_(True)
    penalty = r1_penalty(lambda x: (x * w).sum(dim=(1, 2, 3)), torch.randn(7, 1, 2, 2), gamma=0.4)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.2 * 14.25)
    torch.testing.assert_close(w.grad, 0.4 * w.detach())
