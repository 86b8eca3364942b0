"""The theory that is drawn: the saddle, the cycle, the gap, the best discriminator. Each figure from real runs."""

import copy
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from genserve.cli import main
from models.errors import Invalid
from trainer.run_data import load_run_data
from trainer.run_dir import RunDir
from trainer.steps import Steps
from trainer.theory_dirac import best_value, hessian, surface, train_dirac
from trainer.theory_game import Draw, Game
from trainer.theory_optimal import generator_density, train_optimal
from trainer.theory_run import NOISE_SEED, Plane, RunGame, best_answers
from trainer.theory_surface import curvature, duality_gap, slice_of_value
from trainer.training import begin

EQUILIBRIUM = -np.log(4)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_the_regularised_dirac_gan_ends_in_its_saddle() -> None:
    """With R1 the training closes in on (0, 0); without it never comes nearer than it began, nor flies away."""
    distances = np.linalg.norm(train_dirac(0.3).path, axis=1)
    assert distances[-1] < 0.01
    assert (distances[200:] < 0.2).all()
    cycling = np.linalg.norm(train_dirac(0.0).path, axis=1)
    assert cycling.min() > 0.9
    assert cycling.max() < 1.1


def test_a_dirac_run_without_r1_goes_round() -> None:
    """theta and psi each change their sign again and again: about every pi / (0.5 * step) turns."""
    path = train_dirac(0.0).path
    for parameter in path.T:
        turns = np.flatnonzero(np.diff(np.sign(parameter)))
        assert len(turns) >= 4
        np.testing.assert_allclose(np.diff(turns), np.pi / 0.05, rtol=0.15)


def test_the_equilibrium_is_a_maximum_for_d_and_a_minimum_for_g() -> None:
    """V(0, psi) is highest at 0, and the best that D can reach is lowest at theta = 0: the value there is -log 4."""
    axis, values = surface(0.3)
    assert axis[values[:, 30].argmax()] == pytest.approx(0)
    best = [best_value(theta, 0.3) for theta in axis]
    assert axis[int(np.argmin(best))] == pytest.approx(0)
    assert min(best) == pytest.approx(values[30, 30]) == pytest.approx(EQUILIBRIUM)
    with pytest.raises(ValueError, match="without R1"):
        best_value(1.0, 0.0)


def test_the_dirac_hessian_is_that_of_the_paper() -> None:
    """[[0, 1/2], [1/2, -gamma]] at the equilibrium: one eigenvalue on each side of 0."""
    np.testing.assert_allclose(hessian(0, 0, 0.3), [[0, 0.5], [0.5, -0.3]], atol=1e-12)


def test_a_trained_d_is_the_ratio_of_the_densities() -> None:
    """Within .02 on the mean where samples are (Goodfellow et al. 2014, Proposition 1); a D of 20 steps is not."""
    optimal = train_optimal(steps=600)
    assert optimal.error < 0.02
    assert optimal.weight.sum() == pytest.approx(1)
    assert optimal.formula.min() < 0.01
    assert optimal.formula.max() > 0.8
    assert train_optimal(steps=20).error > 2 * optimal.error


def test_the_frozen_generators_density_is_its_samples() -> None:
    """It integrates to 1 over the plane."""
    axis = np.linspace(-8, 8, 401)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert generator_density(grid).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-6)


def test_best_answers_leave_the_game_as_it_was() -> None:
    """D's best answer raises V, G's lowers it, so that the gap is above 0; the players themselves do not move."""
    game = Game(gamma=1.0)
    before = [parameter.clone() for network in (game.G, game.D) for parameter in network.parameters()]
    found = duality_gap(game, 0, 50, seed=5)
    assert found.best_d > found.value > found.best_g
    assert found.gap == pytest.approx(found.best_d - found.best_g)
    after = [parameter for network in (game.G, game.D) for parameter in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_extreme_directions_are_those_of_the_whole_hessian() -> None:
    """Lanczos on products finds the ends of the full matrix's spectrum, and steps along them bend V by as much."""
    game, (x, z) = Game(gamma=1.0), Draw(3)(200)
    found = curvature(game, "D", x, z)
    own = list(game.D.parameters())
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(game.value(x, z), own, create_graph=True)])
    rows = [torch.cat([r.flatten() for r in torch.autograd.grad(g, own, retain_graph=True)]) for g in gradient]
    spectrum = torch.linalg.eigvalsh(torch.stack(rows))
    assert found.lowest == pytest.approx(spectrum[0].item(), rel=1e-4)
    assert found.highest == pytest.approx(spectrum[-1].item(), rel=1e-4)
    still = np.zeros(sum(p.numel() for p in game.G.parameters()))
    still[0] = 1
    _, axis, values = slice_of_value(game, still, found.lowest_direction, x, z, reach=(1e-3, 1e-3), points=3)
    middle = values[:, 1]
    bend = (middle[0] - 2 * middle[1] + middle[2]) / axis[2] ** 2
    assert bend == pytest.approx(found.lowest, rel=1e-3)
    assert middle[1] == pytest.approx(game.value(x, z).item())


def test_the_command_draws_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four PNG files that are not blank, and the numbers behind them in print."""
    assert main(["saddle", "-o", str(tmp_path / "figures"), "--steps", "15", "--answer-steps", "2"]) == 0
    for name in ("dirac", "optimal", "gap", "surface"):
        pixels = np.asarray(Image.open(tmp_path / "figures" / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 400
        assert pixels.std() > 10
    told = capsys.readouterr().out
    for words in ("eigenvalues at the equilibrium -0.672 and 0.372", "duality gap", "by G's parameters", "p_g"):
        assert words in told


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--answer-steps", "100001"), ("--gamma", "-1")])
def test_wrong_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    """With their limits, before anything is drawn."""
    assert main(["saddle", "-o", str(tmp_path / "figures"), option, value]) == 2
    assert option.removeprefix("--").replace("-", "_") in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on the ring, with small networks."""
    folder = tmp_path_factory.mktemp("ring") / "run"
    sizes = ["--g-channels", "16", "--d-channels", "16", "--d-hidden", "12", "--blocks", "1", "--batch-size", "64"]
    assert main(["train", "ring", *sizes, "--kimg", "2", "--snapshot-kimg", "2", "--run-dir", str(folder)]) == 0
    return folder


def test_a_runs_value_is_its_own_loss_and_penalties(ring: Path) -> None:
    """V is less D's loss and gamma/2 of both slopes in units of the noise; G is not pushed by what is penalised."""
    plane, steps = opened(ring)
    game, (x, z) = RunGame(steps.state), plane.held_out()
    generator = torch.Generator().manual_seed(NOISE_SEED)
    share = torch.rand(len(x), 1, generator=generator, dtype=torch.float64)
    units = [torch.randn(*x.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    config = plane.run.config
    noise = config.noise_min * (config.noise_max / config.noise_min) ** share
    answers, penalty = [], 0.0
    for points, unit in zip((x, game.G(z).detach()), units, strict=True):
        leaf = points.clone().requires_grad_(True)
        answers.append(game.D(leaf + noise * unit, None, noise))
        (slope,) = torch.autograd.grad(answers[-1].sum(), leaf)
        penalty += 1.0 / 2 * (slope * noise).square().sum(1).mean().item()
    loss = -torch.nn.functional.logsigmoid(answers[0] - answers[1]).mean()
    assert (config.r1_gamma, config.r2_gamma) == (1.0, 1.0)
    assert game.value(x, z).item() == pytest.approx(-loss.item() - penalty, rel=1e-9)
    assert game.value(x, z).item() == game.value(x, z).item()
    without = copy.copy(game)
    without.config = msgspec.structs.replace(config, r1_gamma=0.0, r2_gamma=0.0)
    by_g = [torch.autograd.grad(g.value(x, z), list(game.G.parameters())) for g in (game, without)]
    assert all(torch.allclose(a, b) for a, b in zip(*by_g, strict=True))


def test_best_answers_to_a_run_leave_it_as_it_was(ring: Path) -> None:
    """Copies win something against the other player as it is; weights, optimisers and streams do not move."""
    plane, steps = opened(ring)
    before = copy.deepcopy(steps.state.state_dict())
    found = best_answers(steps, 60, *plane.held_out())
    assert found.best_d > found.value > found.best_g
    after = steps.state.state_dict()
    assert all(torch.equal(before[name][k], v) for name in ("G", "D", "G_ema") for k, v in after[name].items())
    assert torch.equal(before["stream"], after["stream"])
    assert (before["step"], before["num_images"]) == (after["step"], after["num_images"])
    assert str(before["d_optimiser"]) == str(after["d_optimiser"])


def test_the_three_values_of_a_gap_are_of_one_game(ring: Path) -> None:
    """Penalties weigh as in the run now, though the copies' schedules have ended: who cannot move wins nothing."""
    plane, steps = opened(ring)
    state = steps.state
    state.config = msgspec.structs.replace(state.config, gamma_end=0.1, g_lr=1e-12, d_lr=1e-12)
    state.num_images = 0
    assert state.gamma_share == 1
    found = best_answers(steps, 3, *plane.held_out())
    assert found.best_d == pytest.approx(found.value, abs=1e-6)
    assert found.best_g == pytest.approx(found.value, abs=1e-6)


@pytest.mark.parametrize(
    "options", [["--loss", "wasserstein"], ["--loss", "hinge"], ["--loss", "least-squares", "--noise-max", "0"]]
)
def test_any_objectives_run_has_a_value_and_a_curvature(tmp_path: Path, options: list[str]) -> None:
    """In double precision, through the gradient penalty, spectral normalisation and without noise."""
    sizes = ["--g-channels", "8", "--d-channels", "8", "--d-hidden", "6", "--blocks", "1", "--batch-size", "64"]
    run = [*sizes, "--kimg", "1", "--snapshot-kimg", "1", "--run-dir", str(tmp_path / "run")]
    assert main(["train", "ring", *options, *run]) == 0
    plane, steps = opened(tmp_path / "run")
    x, z = (points[:200] for points in plane.held_out())
    game = RunGame(steps.state)
    for player in ("G", "D"):
        found = curvature(game, player, x, z, tolerance=1e-2)
        assert np.isfinite([found.lowest, found.highest]).all()
        assert found.lowest <= found.highest
    assert np.isfinite(best_answers(steps, 2, x, z)).all()
    assert game.value(x, z).item() == game.value(x, z).item()


def test_a_run_is_played_again_and_drawn(ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the bits of its checkpoint; the gap on the way from its first step, and the surface at its end."""
    assert main(["saddle", "--run", str(ring), "-o", str(tmp_path), "--answer-steps", "2"]) == 0
    told = capsys.readouterr().out
    assert "played again to the same bits" in told
    last = RunDir(ring).load_checkpoint()["step"]
    turns = [int(line.split()[1]) for line in told.splitlines() if line.strip().startswith("turn")]
    assert turns[0] == 0
    assert turns[-1] == last > 50
    assert len(turns) == 16
    assert "by G's parameters" in told
    for name in ("gap", "surface"):
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.std() > 10


def test_only_runs_on_points_of_the_plane_are_drawn(
    ring: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other shapes, other options and folders without a run are refused by name, before anything is drawn."""
    run = RunDir(ring).read()
    for wrong in (msgspec.structs.replace(run, shape=(3,)), msgspec.structs.replace(run, shape=(28, 28, 1))):
        with pytest.raises(Invalid, match="plane"):
            Plane(wrong, load_run_data(run))
    out = ["-o", str(tmp_path / "figures")]
    assert main(["saddle", "--run", str(ring), "--steps", "5", *out]) == 2
    assert "steps" in capsys.readouterr().err
    assert main(["saddle", "--run", str(tmp_path / "nothing"), *out]) != 0
    assert "nothing" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()


def opened(folder: Path) -> tuple[Plane, Steps]:
    """A run's data, and the run where its checkpoint is."""
    run = RunDir(folder).read()
    plane = Plane(run, load_run_data(run))
    steps = begin(run, plane.data)
    steps.state.load_state_dict(RunDir(folder).load_checkpoint())
    return plane, steps
