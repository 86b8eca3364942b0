"""Rows of the benchmark's table: what each is held against, and how repeats become one line. Knows no measuring."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Figures = dict[str, Any]  # "figure" is the row's; the rest explains it

TITLES = ("row", "model", "figure", "range", "target", "reached")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Args:
        name: on the command line.
        title: in the table.
        unit: of the figure.
        targets: by model.
        sense: the figure is to be at least the target, at most, or within it of 1.
        measure: one repeat: (stand, model) -> figures.
        alone: measured before everything else, while nothing runs.
    """

    name: str
    title: str
    unit: str
    targets: Mapping[str, float]
    sense: Literal[">=", "<=", "+-"]
    measure: Callable[[Any, str], Figures]
    alone: bool = False

    def reached(self, figure: float, model: str) -> bool:
        """Whether a figure is what it is to be."""
        target = self.targets[model]
        if self.sense == "+-":
            return abs(figure - 1) <= target
        return figure >= target if self.sense == ">=" else figure <= target

    def target(self, model: str) -> str:
        """In words."""
        target = self.targets[model]
        return f"1 +- {target:g}" if self.sense == "+-" else f"{self.sense} {target:g}"


@dataclass
class Result:
    """A row's repeats for one model, and those that other work disturbed."""

    row: Row
    model: str
    repeats: list[Figures] = field(default_factory=list)
    set_aside: list[Figures] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        """Of all repeats."""
        return [repeat["figure"] for repeat in self.repeats]

    @property
    def median(self) -> float:
        """Of all repeats."""
        return statistics.median(self.figures)

    def cells(self) -> tuple[str, ...]:
        """The table's line."""
        head = (f"{self.row.title}, {self.row.unit}", self.model)
        if not self.repeats:
            return (*head, "not measured", "", self.row.target(self.model), "")
        spread = f"{min(self.figures):.2f} .. {max(self.figures):.2f}"
        reached = "yes" if self.row.reached(self.median, self.model) else "no"
        return (*head, f"{self.median:.2f}", spread, self.row.target(self.model), reached)

    def document(self) -> dict[str, Any]:
        """For JSON: the median of each number, and all repeats."""
        numbers = (
            [key for key in self.repeats[0] if isinstance(self.repeats[0][key], (int, float))] if self.repeats else []
        )
        return {
            "row": self.row.name,
            "title": self.row.title,
            "unit": self.row.unit,
            "model": self.model,
            "target": self.row.target(self.model),
            "reached": self.row.reached(self.median, self.model) if self.repeats else None,
            "medians": {key: statistics.median(repeat[key] for repeat in self.repeats) for key in numbers},
            "repeats": self.repeats,
            "set_aside": self.set_aside,
        }


def table(results: list[Result]) -> str:
    """Markdown."""
    lines = [TITLES, tuple("---" for _ in TITLES), *(result.cells() for result in results)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(TITLES))]
    padded = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"| {line} |" for line in padded)


def details(results: list[Result]) -> str:
    """What explains each figure: the median of every other number, one line a row."""
    lines = []
    for result in results:
        numbers = {key: value for key, value in result.document()["medians"].items() if key != "figure"}
        lines.append(f"{result.row.name} {result.model}: " + ", ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
    return "\n".join(lines)
