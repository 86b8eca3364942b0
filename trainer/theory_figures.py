"""Draws what the theory files computed, into PNG files. Needs no display."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainer.theory_dirac import DiracRun, best_value, surface
from trainer.theory_optimal import Optimal
from trainer.theory_surface import Gap, Slice

mpl.use("Agg")  # draws into files, wherever it runs

DPI = 110
PATH, G_COLOUR, D_COLOUR = "#d62728", "#1f77b4", "#2ca02c"
EQUILIBRIUM = -np.log(4)  # V where p_g = p_data and D = 1/2


def draw_dirac(regularised: DiracRun, cycling: DiracRun, path: Path) -> None:
    """Both Dirac-GANs: the surface with the run's path on it, the path from above, and what each player sees."""
    figure = Figure(figsize=(16, 9.5), layout="constrained")
    for row, run in enumerate((regularised, cycling)):
        title = f"with R1, gamma = {run.gamma:g}: it spirals in" if run.gamma else "without R1: it cycles for ever"
        axis, values = surface(run.gamma)
        above: Any = figure.add_subplot(2, 3, 3 * row + 1, projection="3d")
        above.plot_surface(*np.meshgrid(axis, axis), values, cmap="viridis", alpha=0.65, linewidth=0)
        above.plot(run.path[:, 0], run.path[:, 1], run.values + 0.01, color=PATH, linewidth=1.5, zorder=10)
        above.view_init(elev=32, azim=-50)
        above.set(xlabel="theta (G)", ylabel="psi (D)", zlabel="V", title="V, and a training on it")
        flat: Any = figure.add_subplot(2, 3, 3 * row + 2)
        flat.contourf(axis, axis, values, levels=25, cmap="viridis")
        flat.plot(run.path[:, 0], run.path[:, 1], color=PATH, linewidth=1.2)
        flat.plot(*run.path[0], "o", color=PATH)
        flat.plot(0, 0, "w+", markersize=12, markeredgewidth=2)
        flat.set(xlabel="theta (G descends)", ylabel="psi (D ascends)", title=title, aspect="equal")
    _draw_saddle(figure.add_subplot(2, 3, 3), regularised.gamma)
    turns: Any = figure.add_subplot(2, 3, 6)
    turns.plot(cycling.path[:, 0], color=G_COLOUR, label="theta (G)")
    turns.plot(cycling.path[:, 1], color=D_COLOUR, label="psi (D)")
    turns.set(xlabel="turns of both players", title="without R1: each answers the other's last move")
    turns.legend(loc="upper right")
    _save(figure, path)


def _draw_saddle(axes: Any, gamma: float) -> None:  # noqa: ANN401 matplotlib's add_subplot promises no more
    """The equilibrium as each player sees it: D a maximum, G a minimum of what D's best answers leave."""
    axis, values = surface(gamma)
    answers = [best_value(theta, gamma) for theta in axis]
    axes.plot(axis, answers, color=G_COLOUR, label="by theta, D answering at its best: a minimum")
    axes.plot(axis, values[:, len(axis) // 2], color=D_COLOUR, label="by psi at theta = 0: a maximum")
    axes.plot(0, EQUILIBRIUM, "o", color="black", label="the equilibrium, V = -log 4")
    axes.set(ylabel="V", title="with R1: the saddle, as each player sees it")
    axes.legend(loc="lower center", fontsize=8)


def draw_gap(
    gaps: Sequence[Gap],
    path: Path,
    *,
    equilibrium: float = EQUILIBRIUM,
    name: str = "-log 4",
    unit: str = "turns of both players",
) -> None:
    """V stays where it is while the gap tells how far from an equilibrium the players are.

    Args:
        gaps: through a training.
        path: of the PNG.
        equilibrium: V at p_g = p_data.
        name: of that number, for the legend.
        unit: of the gaps' steps.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    steps = [gap.step for gap in gaps]
    for place, title in ((1, "what the losses show"), (2, "what the best answers show")):
        axes: Any = figure.add_subplot(1, 2, place)
        if place == 1:
            axes.plot(steps, [gap.value for gap in gaps], color="black", label="V as they play")
            axes.axhline(equilibrium, color="grey", linestyle="--", label=f"{name}, the equilibrium's")
            reach = max(0.25, *(1.1 * abs(gap.value - equilibrium) for gap in gaps))
            axes.set_ylim(equilibrium - reach, equilibrium + reach)
        else:
            axes.plot(steps, [gap.gap for gap in gaps], color=PATH, label="duality gap")
            axes.plot(steps, [gap.best_d - gap.value for gap in gaps], color=D_COLOUR, label="D's best answer wins")
            axes.plot(steps, [gap.value - gap.best_g for gap in gaps], color=G_COLOUR, label="G's best answer wins")
            axes.set_yscale("symlog", linthresh=0.1)
        axes.set(xlabel=unit, title=title)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    _save(figure, path)


def draw_slices(slices: Sequence[tuple[str, Slice]], points: Sequence[NDArray[np.float64]], path: Path) -> None:
    """The end of a run: real and generated points, and V along pairs of directions.

    Args:
        slices: title and values of each.
        points: real ones and G's, [N, 2] each.
        path: of the PNG.
    """
    figure = Figure(figsize=(5 * (len(slices) + 1), 4.6), layout="constrained")
    plane: Any = figure.add_subplot(1, len(slices) + 1, 1)
    for cloud, colour, label in zip(points, ("black", G_COLOUR), ("real", "G(z)"), strict=True):
        plane.plot(cloud[:, 0], cloud[:, 1], ".", color=colour, markersize=2, alpha=0.5, label=label)
    plane.legend()
    plane.set(aspect="equal", title="where the run ended")
    for place, (title, (g_axis, d_axis, values)) in enumerate(slices, start=2):
        axes: Any = figure.add_subplot(1, len(slices) + 1, place, projection="3d")
        axes.plot_surface(*np.meshgrid(g_axis, d_axis), values, cmap="viridis", linewidth=0)
        axes.plot(g_axis, np.zeros_like(g_axis), values[len(d_axis) // 2], color=G_COLOUR, zorder=10)
        axes.plot(np.zeros_like(d_axis), d_axis, values[:, len(g_axis) // 2], color=D_COLOUR, zorder=10)
        axes.set(xlabel="G's step", ylabel="D's step", zlabel="V")
        axes.set_title(title, fontsize=10)
    _save(figure, path)


def draw_optimal(optimal: Optimal, path: Path) -> None:
    """The trained D beside the formula, and their difference where samples are."""
    figure = Figure(figsize=(14, 4.4), layout="constrained")
    difference = np.where(optimal.weight > optimal.weight.max() / 1000, optimal.trained - optimal.formula, np.nan)
    panels = (
        ("D, trained against a frozen G", optimal.trained, "RdBu", (0, 1)),
        ("p_data / (p_data + p_g)", optimal.formula, "RdBu", (0, 1)),
        (f"difference where samples are (mean {optimal.error:.3f})", difference, "PuOr", (-0.2, 0.2)),
    )
    for place, (title, values, colours, (low, high)) in enumerate(panels, start=1):
        axes: Any = figure.add_subplot(1, 3, place)
        shown = axes.pcolormesh(
            optimal.axis, optimal.axis, values, cmap=colours, vmin=low, vmax=high, shading="gouraud"
        )
        axes.contour(optimal.axis, optimal.axis, optimal.weight, levels=5, colors="black", linewidths=0.5)
        axes.set(title=title, aspect="equal")
        figure.colorbar(shown, ax=axes, shrink=0.8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI, metadata={"Software": None})  # the same bytes from any version's run
