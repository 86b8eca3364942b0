"""`genserve saddle`: the theory of the game, drawn from real runs. Knows nothing of models or of serving."""

import argparse
from pathlib import Path

import torch

from models.errors import Invalid
from models.progress import Progress
from trainer.theory_dirac import hessian, train_dirac
from trainer.theory_figures import draw_dirac, draw_gap, draw_optimal, draw_slices
from trainer.theory_game import Draw, Game
from trainer.theory_optimal import train_optimal
from trainer.theory_surface import EVALUATED_ON, Gap, curvature, duality_gap, slice_of_value

DIRAC_GAMMA = 0.3
NUM_GAPS = 16  # measured through a run
TRAINED_ON, ANSWERED_ON, LOOKED_AT = 1, 1000, 2000  # streams of draws that never meet
MAX_STEPS, MAX_ANSWER_STEPS = 1_000_000, 100_000


def saddle(args: argparse.Namespace) -> int:
    """Draw dirac.png, optimal.png, gap.png and surface.png into a folder; returns the exit status 0."""
    for name, high in (("steps", MAX_STEPS), ("answer_steps", MAX_ANSWER_STEPS)):
        if not 1 <= getattr(args, name) <= high:
            raise Invalid(f"{getattr(args, name)} is outside 1 .. {high}", field=name)
    if not 0 <= args.gamma <= 1000:
        raise Invalid(f"{args.gamma:g} is outside 0 .. 1000", field="gamma")
    torch.set_num_threads(1)  # the networks are too small for more
    folder: Path = args.output
    folder.mkdir(parents=True, exist_ok=True)
    _dirac(folder / "dirac.png")
    _optimal(folder / "optimal.png")
    game = _play(args, folder / "gap.png")
    _surface(game, folder / "surface.png")
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
    moments = {round(i * args.steps / (NUM_GAPS - 1)) for i in range(NUM_GAPS)}
    for step in range(args.steps + 1):
        if step in moments:
            gaps.append(duality_gap(game, step, args.answer_steps, ANSWERED_ON))
        if step < args.steps:
            game.train_d(*draw())
            game.train_g(*draw())
            progress.advance(1)
    draw_gap(gaps, path)
    print(f"{path}: best answers of {args.answer_steps} steps, on held-out draws")
    for gap in gaps:
        print(f"    turn {gap.step:6}  V {gap.value:7.4f}  duality gap {gap.gap:7.4f}")
    return game


def _surface(game: Game, path: Path) -> None:
    """V round the end of a run, along both pairs of the players' extreme directions."""
    x, z = Draw(LOOKED_AT)(EVALUATED_ON)
    of_g, of_d = curvature(game, "G", x, z), curvature(game, "D", x, z)
    pairs = (
        ("most like a saddle", of_g.highest, of_g.highest_direction, of_d.lowest, of_d.lowest_direction),
        ("least like one", of_g.lowest, of_g.lowest_direction, of_d.highest, of_d.highest_direction),
    )
    slices = [
        (f"{name}: eigenvalues G {g:.3f}, D {d:.3f}", *slice_of_value(game, g_way, d_way, x, z))
        for name, g, g_way, d, d_way in pairs
    ]
    with torch.no_grad():
        draw_slices(slices, (x[:1500].numpy(), game.G(z[:1500]).numpy()), path)
    print(f"{path}: eigenvalues of V's Hessian at the end")
    print(f"    by G's parameters {of_g.lowest:.4f} .. {of_g.highest:.4f}  (a minimum has none below 0)")
    print(f"    by D's parameters {of_d.lowest:.4f} .. {of_d.highest:.4f}  (a maximum has none above 0)")
