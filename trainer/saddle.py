"""`genserve saddle`: the theory of the game, drawn from real runs. Knows nothing of models or of serving."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.errors import Invalid
from models.progress import Progress
from trainer.run_data import load_run_data
from trainer.run_dir import RunDir
from trainer.saddle_arguments import GAMMA, SEED, STEPS
from trainer.theory_dirac import hessian, train_dirac
from trainer.theory_figures import draw_dirac, draw_gap, draw_optimal, draw_slices
from trainer.theory_game import Draw, Game
from trainer.theory_optimal import train_optimal
from trainer.theory_run import Plane, RunGame, best_answers, replay, value_at_chance
from trainer.theory_surface import EVALUATED_ON, Curvature, Gap, Player, Players, curvature, duality_gap, slice_of_value

DIRAC_GAMMA = 0.3
NUM_GAPS = 16  # measured through a run
TRAINED_ON, ANSWERED_ON, LOOKED_AT = 1, 1000, 2000  # streams of draws that never meet
MAX_STEPS, MAX_ANSWER_STEPS = 1_000_000, 100_000
NUM_SHOWN = 1500  # points of each kind in the plane
PLAYERS: tuple[Player, Player] = ("G", "D")
RISE = 0.1  # of V at the end of a slice through a run, where V bends so much within a step of length 1


def saddle(args: argparse.Namespace) -> int:
    """Draw dirac.png, optimal.png, gap.png and surface.png into a folder, or the last two of a run; returns 0."""
    for name, default, low, high in (
        ("steps", STEPS, 1, MAX_STEPS),
        ("answer_steps", None, 1, MAX_ANSWER_STEPS),
        ("gamma", GAMMA, 0, 1000),
        ("seed", SEED, 0, 2**31 - 1),
    ):
        value = getattr(args, name)
        if args.run_dir is not None and default is not None and value is not None:
            raise Invalid("is of the game in the plane, and --run draws a run that is there", field=name)
        if value is None:
            setattr(args, name, default)
        elif not low <= value <= high:
            raise Invalid(f"{value} is outside {low} .. {high}", field=name)
    folder: Path = args.output
    if args.run_dir is not None:
        return _draw_run(RunDir(args.run_dir), folder, args.answer_steps)
    torch.set_num_threads(1)  # the networks are too small for more
    folder.mkdir(parents=True, exist_ok=True)
    _dirac(folder / "dirac.png")
    _optimal(folder / "optimal.png")
    game = _play(args, folder / "gap.png")
    x, z = Draw(LOOKED_AT)(EVALUATED_ON)
    with torch.no_grad():
        shown = x[:NUM_SHOWN], game.G(z[:NUM_SHOWN])
    _surface(game, x, z, shown, folder / "surface.png")
    return 0


def _dirac(path: Path) -> None:
    regularised, cycling = train_dirac(DIRAC_GAMMA), train_dirac(0.0)
    low, high = torch.linalg.eigvalsh(torch.from_numpy(hessian(0, 0, DIRAC_GAMMA))).tolist()
    draw_dirac(regularised, cycling, path)
    ends = (float((run.path[-1] ** 2).sum() ** 0.5) for run in (regularised, cycling))
    print(f"{path}: eigenvalues at the equilibrium {low:.3f} and {high:.3f}: a saddle")
    print("    distance from it after {} turns: {:.4f} with R1, {:.4f} without".format(len(cycling.path) - 1, *ends))


def _optimal(path: Path) -> None:
    optimal = train_optimal()
    draw_optimal(optimal, path)
    print(f"{path}: D differs from p_data / (p_data + p_g) by {optimal.error:.4f} on the mean")


def _play(args: argparse.Namespace, path: Path) -> Game:
    """Train the game in the plane, measuring the gap on the way."""
    game, draw = Game(args.gamma, seed=args.seed), Draw(TRAINED_ON)
    gaps: list[Gap] = []
    progress = Progress("turns", args.steps)
    moments = _moments(args.steps)
    for step in range(args.steps + 1):
        if step in moments:
            gaps.append(duality_gap(game, step, args.answer_steps, ANSWERED_ON))
        if step < args.steps:
            game.train_d(*draw())
            game.train_g(*draw())
            progress.advance(1)
    draw_gap(gaps, path)
    _tell_gaps(gaps, args.answer_steps, path)
    return game


def _draw_run(run_dir: RunDir, folder: Path, answer_steps: int) -> int:
    """The gap through a run's training, played again to where its checkpoint is, and V round its end."""
    run, checkpoint = run_dir.read(), run_dir.load_checkpoint()
    plane = Plane(run, load_run_data(run))
    last = int(checkpoint["step"])
    gaps: list[Gap] = []
    progress = Progress("steps", last)
    for steps in replay(plane, last, _moments(last)):
        progress.advance(steps.state.step - progress.done)
        x, z = plane.held_out()
        gaps.append(best_answers(steps, answer_steps, x, z))
    folder.mkdir(parents=True, exist_ok=True)
    chance = value_at_chance(run.config.loss)
    draw_gap(gaps, folder / "gap.png", equilibrium=chance, name=f"{chance:.3f}", unit="steps of either player")
    _tell_gaps(gaps, answer_steps, folder / "gap.png")
    state = steps.state
    same = all(torch.equal(a, checkpoint[n][k]) for n in ("G", "D") for k, a in getattr(state, n).state_dict().items())
    told = "to the same bits" if same else "to other bits than the run's: another machine, library or version"
    print(f"    played again {told}")
    state.load_state_dict(checkpoint)
    game = RunGame(state)
    with torch.no_grad():
        shown = tuple(state.G.finish(points) for points in (x[:NUM_SHOWN], game.G(z[:NUM_SHOWN])))
    _surface(game, x, z, shown, folder / "surface.png", bounded=True)
    return 0


def _moments(last: int) -> set[int]:
    """Steps 0 .. last at which the gap is measured."""
    return {round(i * last / (NUM_GAPS - 1)) for i in range(NUM_GAPS)}


def _tell_gaps(gaps: Sequence[Gap], answer_steps: int, path: Path) -> None:
    print(f"{path}: best answers of {answer_steps} steps, on held-out draws")
    for gap in gaps:
        print(f"    turn {gap.step:6}  V {gap.value:7.4f}  duality gap {gap.gap:7.4f}")


def _surface(
    game: Players, x: Tensor, z: Tensor, shown: Sequence[Tensor], path: Path, *, bounded: bool = False
) -> None:
    """V round the end of a run, along both pairs of the players' extreme directions.

    Args:
        game: as it ended.
        x: held-out points [N, 2].
        z: held-out latents [N, z_dim].
        shown: points and samples, in the data's units.
        path: of the figure.
        bounded: go only as far along a direction as V bends by RISE there, and never beyond a length of 1.
    """
    tolerance, points = (1e-2, 15) if bounded else (1e-6, 25)  # a run's networks are fifty times as large
    of_g, of_d = (curvature(game, player, x, z, tolerance=tolerance) for player in PLAYERS)
    pairs = (
        ("most like a saddle", of_g.highest, of_g.highest_direction, of_d.lowest, of_d.lowest_direction),
        ("least like one", of_g.lowest, of_g.lowest_direction, of_d.highest, of_d.highest_direction),
    )
    slices = []
    for name, g, g_way, d, d_way in pairs:
        reach = (_reach(g), _reach(d)) if bounded else (1.0, 1.0)
        title = f"{name}: eigenvalues G {g:.3g}, D {d:.3g}"
        slices.append((title, slice_of_value(game, g_way, d_way, x, z, reach=reach, points=points)))
    draw_slices(slices, [points.numpy() for points in shown], path)
    _tell_curvature(of_g, of_d, path)


def _reach(eigenvalue: float) -> float:
    """The step at which half of an eigenvalue times its square is RISE; at most 1."""
    return min(1.0, math.sqrt(2 * RISE / max(abs(eigenvalue), RISE)))


def _tell_curvature(of_g: Curvature, of_d: Curvature, path: Path) -> None:
    print(f"{path}: eigenvalues of V's Hessian at the end")
    print(f"    by G's parameters {of_g.lowest:.4f} .. {of_g.highest:.4f}  (a minimum has none below 0)")
    print(f"    by D's parameters {of_d.lowest:.4f} .. {of_d.highest:.4f}  (a maximum has none above 0)")
