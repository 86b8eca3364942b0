"""Sums up steps into statistics and shows them as one live line on stderr. Knows nothing of networks."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import SupportsFloat, TextIO

from trainer.diagnosis import Verdict
from trainer.signals import Stats

REDRAW_SECONDS = 1.0


def duration(seconds: float) -> str:
    """A time left, for a person: 42s, 7m 05s, 3h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


class Meter:
    """Means since the last line of statistics, and the live line.

    Args:
        total_kimg: of the whole run.
        out: where the line goes, stderr unless told; redrawn in place on a terminal, else one line for each `report`.
        clock: seconds, monotonic.
    """

    def __init__(
        self, total_kimg: float, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total_kimg, self.out, self.clock = total_kimg, out or sys.stderr, clock
        self.live = self.out.isatty()
        self.note = ""  # the last snapshot's score
        self.verdict = ""  # the last diagnosis, by its short name
        self._told: set[str] = set()
        self._drawn = clock()
        self._restart(0.0)

    def _restart(self, kimg: float) -> None:
        self._since, self._first_kimg = self.clock(), kimg
        self._d: list[Sequence[SupportsFloat]] = []
        self._g: list[Sequence[SupportsFloat]] = []

    def begin(self, kimg: float) -> None:
        """Count from here: at the start, and after anything that is not training."""
        self._restart(kimg)

    def add_d(self, step: Sequence[SupportsFloat]) -> None:
        """One step of D: its loss, D(x), D(G(z)) and |grad|. They are looked at when they are shown, not before."""
        self._d.append(step)

    def add_g(self, step: Sequence[SupportsFloat]) -> None:
        """One step of G: its loss and |grad|."""
        self._g.append(step)

    @property
    def counting(self) -> bool:
        """Whether there were steps since the last report."""
        return bool(self._d or self._g)

    def show(self, kimg: float) -> None:
        """Redraw the live line, at most once a second."""
        if self.live and self.clock() - self._drawn >= REDRAW_SECONDS and self._d:
            self._drawn = self.clock()
            print(f"\r\033[K{self.line(self._stats(kimg))}", end="", file=self.out, flush=True)

    def report(self, kimg: float) -> Stats:
        """The statistics since the last report; prints them where there is no live line."""
        stats = self._stats(kimg)
        if not self.live:
            print(self.line(stats), file=self.out, flush=True)
        self._restart(kimg)
        return stats

    def tell(self, verdicts: Sequence[Verdict]) -> None:
        """Show verdicts from now on; a new one is explained once, on a line of its own."""
        for verdict in verdicts:
            if verdict.alarm and verdict.name not in self._told:
                self._told.add(verdict.name)
                self.say(f"{verdict.name}: {verdict.evidence} Try: {verdict.advice}")
        self.verdict = ", ".join(verdict.name for verdict in verdicts)

    def line(self, stats: Stats) -> str:
        """Statistics as a person reads them."""
        parts = [f"{stats.kimg:.1f}/{self.total_kimg:g} kimg"]
        if stats.d_real is not None and stats.d_fake is not None:
            parts.append(f"D(x) {stats.d_real:.2f}  D(G(z)) {stats.d_fake:.2f}")
        if stats.images_per_second:
            left = (self.total_kimg - stats.kimg) * 1000 / stats.images_per_second
            parts.append(f"{stats.images_per_second:.0f} images/s  {duration(max(0.0, left))} left")
        return "  ".join(filter(None, [*parts, self.verdict, self.note]))

    def say(self, text: str) -> None:
        """A line of its own."""
        print(f"\r\033[K{text}" if self.live else text, file=self.out, flush=True)

    def end(self) -> None:
        """Leave the live line."""
        if self.live:
            print(file=self.out)

    def _stats(self, kimg: float) -> Stats:
        seconds = self.clock() - self._since
        d_loss, d_real, d_fake, d_norm = _means(self._d, 4)
        g_loss, g_norm = _means(self._g, 2)
        return Stats(
            kimg=kimg,
            d_loss=d_loss,
            d_real=d_real,
            d_fake=d_fake,
            d_norm=d_norm,
            g_loss=g_loss,
            g_norm=g_norm,
            images_per_second=(kimg - self._first_kimg) * 1000 / seconds if seconds > 0 else None,
        )


def _means(steps: list[Sequence[SupportsFloat]], columns: int) -> list[float | None]:
    """The mean of each column; None without any step."""
    if not steps:
        return [None] * columns
    return [sum(map(float, column)) / len(steps) for column in zip(*steps, strict=True)]
