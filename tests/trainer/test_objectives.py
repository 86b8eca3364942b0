"""Every objective and penalty against its closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from trainer.objectives import OBJECTIVES, make_objective
from trainer.regularisers import Part, SpectralNorm, gradient_penalty, normalise_spectrally, zero_centred

REAL = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)
FAKE = torch.tensor([2.3, 0.4, -0.2, -2.7], dtype=torch.float64)


def sigmoid(l: Tensor) -> Tensor:  # noqa: E741 - the logit, as everywhere here
    return 1 / (1 + torch.exp(-l))


def relu(l: Tensor) -> Tensor:  # noqa: E741
    return torch.where(l > 0, l, 0)


# Each objective by its textbook form: (loss of D, loss of G), on outputs for which exp and log are harmless.
LOGISTIC_D = lambda r, f: -(sigmoid(r).log().mean() + (1 - sigmoid(f)).log().mean())  # noqa: E731
CLOSED = {
    "minimax": (LOGISTIC_D, lambda r, f: (1 - sigmoid(f)).log().mean()),
    "non-saturating": (LOGISTIC_D, lambda r, f: -sigmoid(f).log().mean()),
    "least-squares": (lambda r, f: (((r - 1) ** 2).mean() + (f**2).mean()) / 2, lambda r, f: ((f - 1) ** 2).mean() / 2),
    "hinge": (lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda r, f: -f.mean()),
    "wasserstein": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "relativistic": (lambda r, f: -sigmoid(r - f).log().mean(), lambda r, f: -sigmoid(f - r).log().mean()),
}
# The gradients by one output each, times N: (D's by real, D's by fake, G's by fake).
GRADIENTS = {
    "minimax": (lambda r, f: sigmoid(r) - 1, lambda r, f: sigmoid(f), lambda r, f: -sigmoid(f)),
    "non-saturating": (lambda r, f: sigmoid(r) - 1, lambda r, f: sigmoid(f), lambda r, f: sigmoid(f) - 1),
    "least-squares": (lambda r, f: r - 1, lambda r, f: f, lambda r, f: f - 1),
    "hinge": (
        lambda r, f: torch.where(r < 1, -1.0, 0.0).double(),
        lambda r, f: torch.where(f > -1, 1.0, 0.0).double(),
        lambda r, f: -torch.ones_like(f),
    ),
    "wasserstein": (
        lambda r, f: -torch.ones_like(r), lambda r, f: torch.ones_like(f), lambda r, f: -torch.ones_like(f),
    ),
    "relativistic": (
        lambda r, f: sigmoid(r - f) - 1, lambda r, f: 1 - sigmoid(r - f), lambda r, f: sigmoid(f - r) - 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_losses_are_those_of_the_papers(loss: str) -> None:
    """Both players' losses on fixed outputs."""
    objective, (d_loss, g_loss) = make_objective(loss), CLOSED[loss]
    torch.testing.assert_close(objective.d_loss(REAL, FAKE), d_loss(REAL, FAKE))
    torch.testing.assert_close(objective.g_loss(REAL, FAKE), g_loss(REAL, FAKE))


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_gradients_are_those_of_the_papers(loss: str) -> None:
    """Of D's loss by its outputs on real and generated images, and of G's by those on generated ones."""
    objective = make_objective(loss)
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    by_real, by_fake = torch.autograd.grad(objective.d_loss(real, fake), (real, fake))
    (g_by_fake,) = torch.autograd.grad(objective.g_loss(real, fake), fake)
    for ours, closed in zip((by_real, by_fake, g_by_fake), GRADIENTS[loss], strict=True):
        torch.testing.assert_close(ours * len(REAL), closed(REAL, FAKE))


@pytest.mark.parametrize(("loss", "limit"), [("minimax", 0.0), ("non-saturating", -1.0), ("relativistic", -1.0)])
def test_the_gradient_where_d_is_sure(loss: str, limit: float) -> None:
    """As D becomes sure of a fake, minimax leaves G no gradient, non-saturating and relativistic one of -1."""
    objective, before = make_objective(loss), math.inf
    for logit in (-1.0, -3.0, -10.0, -30.0):
        fake = torch.tensor([logit], requires_grad=True)
        (gradient,) = torch.autograd.grad(objective.g_loss(torch.zeros(1), fake), fake)
        distance = abs(gradient.item() - limit)
        assert distance < before or distance == 0
        before = distance
    assert before < 1e-6


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_overflows(loss: str, dtype: torch.dtype) -> None:
    """At outputs of -100 and 100, losses and gradients are finite."""
    objective = make_objective(loss)
    for r, f in ((100, -100), (-100, 100), (100, 100), (-100, -100)):
        real = torch.full((3,), r, dtype=dtype, requires_grad=True)
        fake = torch.full((3,), f, dtype=dtype, requires_grad=True)
        losses = objective.d_loss(real, fake), objective.g_loss(real, fake)
        (sum(losses)).backward()
        for value in (*losses, real.grad, fake.grad, *objective.shown(real.detach(), fake.detach())):
            assert torch.isfinite(value).all()


@pytest.mark.parametrize(
    ("loss", "best"),
    [("minimax", 0.0), ("non-saturating", 0.0), ("least-squares", 0.5), ("relativistic", 7.0)],
)
def test_the_best_d_on_equal_distributions_shows_the_equilibrium(loss: str, best: float) -> None:
    """Where real and fake are the same, D's loss is least at a constant answer, and shows 1/2 and 1/2 there.

    The relativistic D may add any constant to its answers.
    """
    objective = make_objective(loss)
    answers = torch.full((4,), best, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective.d_loss(answers, answers), answers)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    assert [x.item() for x in objective.shown(answers, answers)] == pytest.approx([objective.equilibrium] * 2)
    for shift in (-0.1, 0.1):
        tilted = answers.detach() + torch.tensor([shift, 0, 0, -shift])
        assert objective.d_loss(tilted, tilted) >= objective.d_loss(answers, answers)


@pytest.mark.parametrize("loss", ["hinge", "wasserstein"])
def test_scores_without_a_scale_have_no_equilibrium(loss: str) -> None:
    """On equal distributions, different constant answers cost D the same."""
    objective = make_objective(loss)
    costs = [objective.d_loss(torch.full((4,), c), torch.full((4,), c)).item() for c in (-0.7, 0.0, 0.9)]
    assert costs == pytest.approx([costs[0]] * 3)
    assert objective.equilibrium is None


def test_an_undecided_d_costs_two_logs_of_two() -> None:
    """At D = 1/2 everywhere, D's logistic loss is 2 log 2."""
    zeros = torch.zeros(5)
    assert make_objective("minimax").d_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))


def test_pairs_need_real_images() -> None:
    """The relativistic G says what it misses."""
    with pytest.raises(ValueError, match="real images"):
        make_objective("relativistic").g_loss(None, FAKE)


# Penalties.


def test_zero_centred_penalties_of_a_linear_d() -> None:
    """For D(x) = w.x the gradient is w everywhere: gamma/2 |w|^2 for each part, and by w its gradient is gamma w."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0]).view(1, 2, 2).requires_grad_(True)
    real, fake = (torch.randn(7, 1, 2, 2, requires_grad=True) for _ in range(2))
    answers = [(x * w).sum(dim=(1, 2, 3)) for x in (real, fake)]
    penalty = zero_centred([Part(real, answers[0], 0.4), Part(fake, answers[1], 0.2)])
    penalty.backward()
    assert penalty.item() == pytest.approx(0.3 * 14.25)
    torch.testing.assert_close(w.grad, 0.6 * w.detach())


def test_zero_centred_penalty_of_a_quadratic_d() -> None:
    """For D(x) = a |x|^2 / 2 the gradient is a x: gamma/2 a^2 E|x|^2, by a differentiated gamma a E|x|^2."""
    a = torch.tensor(1.5, requires_grad=True)
    x = torch.randn(9, 3, 2, 2, requires_grad=True)
    penalty = zero_centred([Part(x, a * x.square().sum(dim=(1, 2, 3)) / 2, 0.8)])
    penalty.backward()
    mean_square = x.detach().square().sum(dim=(1, 2, 3)).mean().item()
    assert penalty.item() == pytest.approx(0.4 * 2.25 * mean_square)
    assert a.grad.item() == pytest.approx(0.8 * 1.5 * mean_square)


def test_gradient_penalty_of_a_linear_d() -> None:
    """lambda (|w| - 1)^2, with gradient 2 lambda (|w| - 1) w / |w| by w; nothing and finite for w = 0."""
    w = torch.tensor([3.0, 0.0, 4.0, 0.0]).view(1, 2, 2).requires_grad_(True)
    real, fake, mix = torch.randn(5, 1, 2, 2), torch.randn(5, 1, 2, 2), torch.rand(5)
    penalty = gradient_penalty(lambda x: (x * w).sum(dim=(1, 2, 3)), real, fake, mix, 10.0)
    penalty.backward()
    assert penalty.item() == pytest.approx(10 * 16)
    torch.testing.assert_close(w.grad, 2 * 10 * 4 * w.detach() / 5)
    zero = torch.zeros(1, 2, 2, requires_grad=True)
    gradient_penalty(lambda x: (x * zero).sum(dim=(1, 2, 3)), real, fake, mix, 10.0).backward()
    assert torch.isfinite(zero.grad).all()


def test_gradient_penalty_is_taken_between_the_pair() -> None:
    """For D(x) = |x|^2 / 2 the slope at x_hat is |x_hat|: with the share m of real, x_hat = m real + (1 - m) fake."""
    real, fake, mix = torch.full((2, 1, 1, 1), 5.0), torch.full((2, 1, 1, 1), 1.0), torch.tensor([0.25, 1.0])
    penalty = gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, mix, 1.0)
    assert penalty.item() == pytest.approx(((2.0 - 1) ** 2 + (5.0 - 1) ** 2) / 2)


@pytest.mark.parametrize("autocast", [False, True])
def test_spectral_norm_makes_the_largest_singular_value_one(autocast: bool) -> None:
    """After a few uses, against the exact decomposition; bf16 autocast around it takes nothing from its precision."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    normalise_spectrally(network)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for _ in range(100):
            network(torch.zeros(1, 3, 8, 8))
        weights = [network[0].weight.flatten(1), network[2].weight]
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.float(), 2).item() == pytest.approx(1, abs=1e-3)


def test_spectral_norm_stands_still_in_eval_mode() -> None:
    """Training mode turns the singular vectors, eval mode reads them."""
    norm = SpectralNorm(torch.randn(4, 6))
    weight = torch.randn(4, 6)
    before = norm.u.clone()
    norm.eval()(weight)
    assert torch.equal(norm.u, before)
    norm.train()(weight)
    assert not torch.equal(norm.u, before)
