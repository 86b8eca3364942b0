"""A progress bar on stderr, for work that a person waits for. Knows nothing of the work."""

import sys


class Progress:
    """A bar; silent where stderr is not a terminal, so that logs stay clean.

    Args:
        name: of the work.
        total: steps in all; None where nobody knows.
        done: steps done already.
        unit: of what is shown: done / scale units.
        scale: steps in a unit.
    """

    def __init__(self, name: str, total: int | None, *, done: int = 0, unit: str = "", scale: float = 1) -> None:
        self.name, self.total, self.done = name, total, done
        self.unit, self.scale = unit, scale
        self.visible = sys.stderr.isatty()

    def line(self) -> str:
        """The bar as text, without its newline."""
        digits = 0 if self.scale == 1 else 1
        done = f"{self.done / self.scale:.{digits}f}"
        unit = f" {self.unit}" if self.unit else ""
        if not self.total:
            return f"{self.name} {done}{unit}"
        filled = min(30, 30 * self.done // self.total)
        return f"{self.name} [{'#' * filled:<30}] {done} of {self.total / self.scale:.{digits}f}{unit}"

    def advance(self, steps: int) -> None:
        """Count steps that were done, and redraw; leaves the line when the last is done."""
        self.done += steps
        if self.visible:
            print(f"\r{self.line()}", end="", file=sys.stderr, flush=True)
            if self.total is not None and self.done >= self.total:
                self.end()

    def end(self) -> None:
        """Leave the bar's line."""
        if self.visible:
            print(file=sys.stderr)
            self.visible = False
