"""Draws curves as HTML that fits any width: stretched SVG for lines, text beside it at its own size. Knows no runs.

An SVG whose text scales with it is unreadable on a phone: here only the geometry is stretched, strokes keep their
width, and labels are placed by percentages. Colours are classes, so that the page's style decides light and dark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

EXTENT = 1000  # of the SVG's own units, both ways
MOST_POINTS = 400  # of a line: about what a screen can show
LABEL_GAP = 8.0  # between labels at lines' ends, percent of the height


@dataclass(frozen=True)
class Scale:
    """An axis from low to high.

    Args:
        low: at its beginning; positive where it is logarithmic.
        high: at its end.
        log: whether equal ratios are equal lengths.
    """

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 .. 1 from the axis's beginning to its end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, about as many as asked for."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_ones = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
            there = [tick for tick in round_ones if self.low <= tick <= self.high]
            return there[:: math.ceil(len(there) / most)] if there else [self.low, self.high]
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_of(values: Sequence[float], *, log: bool = False, margin: float = 0.06) -> Scale:
    """A scale that holds all values, with some room at both ends."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** margin, 1.05)
        return Scale(low / room, high * room, log=True)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return Scale(low - room, high + room)


class Plot:
    """A frame with two axes, and what is drawn into it.

    Args:
        x: from left to right.
        y: from bottom to top.
        x_title: of the axis, with its unit.
        follows: whether the page's cursor, which is at some kimg, is shown in it.
    """

    def __init__(self, x: Scale, y: Scale, x_title: str, *, follows: bool = False) -> None:
        self.x, self.y, self.x_title, self.follows = x, y, x_title, follows
        self._marks: list[str] = []
        self._labels: list[tuple[float, str, str]] = []  # at a line's end: top in percent, style, text

    def line(self, xs: Sequence[float], ys: Sequence[float], style: str, label: str = "") -> None:
        """A line through points, thinned to what a screen shows, with its name at its end."""
        if not xs:
            return
        if label:
            self._labels.append((100 - 100 * self.y.share(ys[-1]), style, label))
        xs, ys = thinned(xs), thinned(ys)
        points = " ".join(f"{self._left(x)},{self._top(y)}" for x, y in zip(xs, ys, strict=True))
        self._marks.append(f'<polyline class="line {style}" points="{points}"/>')

    def dots(self, xs: Sequence[float], ys: Sequence[float], style: str) -> None:
        """A dot at every point: a line without length and with round ends stays round when it is stretched."""
        path = "".join(f"M{self._left(x)} {self._top(y)}h0" for x, y in zip(xs, ys, strict=True))
        self._marks.append(f'<path class="dot {style}" d="{path}"/>')

    def level(self, y: float, label: str) -> None:
        """A dashed line across, with its meaning; left out where it is not on the axis."""
        if self.y.low <= y <= self.y.high:
            self._marks.append(f'<path class="level" d="M0 {self._top(y)}H{EXTENT}"/>')
            self._labels.append((100 - 100 * self.y.share(y), "level", label))

    def bar(self, x: float, low: float, high: float, style: str) -> None:
        """An error bar."""
        ends = (self._top(min(max(y, self.y.low), self.y.high)) for y in (low, high))
        self._marks.append(f'<path class="bar {style}" d="M{self._left(x)} {next(ends)}V{next(ends)}"/>')

    def html(self) -> str:
        """The plot; its caption is the caller's."""
        grid = "".join(f"M0 {self._top(tick)}H{EXTENT}" for tick in self.y.ticks())
        side = "".join(
            f'<span class="y" style="top:{100 - 100 * self.y.share(tick):.2f}%">{tick:g}</span>'
            for tick in map(_tidy, self.y.ticks())
        )
        foot = "".join(
            f'<span class="x" style="left:{100 * self.x.share(tick):.2f}%">{tick:g}</span>'
            for tick in map(_tidy, self.x.ticks(5))
        )
        ends = "".join(
            f'<span class="end {style}" style="top:{top:.2f}%">{escape(text)}</span>'
            for top, style, text in _apart(self._labels)
        )
        follows = f' data-low="{self.x.low:g}" data-high="{self.x.high:g}"' if self.follows else ""
        return (
            f'<div class="plot"><div class="field"{follows}>'
            f'<svg viewBox="0 0 {EXTENT} {EXTENT}" preserveAspectRatio="none" aria-hidden="true">'
            f'<path class="grid" d="{grid}"/>{"".join(self._marks)}</svg>{side}{foot}{ends}'
            f'<span class="x-title">{escape(self.x_title)}</span></div></div>'
        )

    def _left(self, x: float) -> str:
        return f"{EXTENT * self.x.share(x):.1f}"

    def _top(self, y: float) -> str:
        return f"{EXTENT - EXTENT * self.y.share(y):.1f}"


def thinned(values: Sequence[float], most: int = MOST_POINTS) -> list[float]:
    """Means of equal runs of values, so that at most so many are left."""
    width = math.ceil(len(values) / most)
    parts = (values[start : start + width] for start in range(0, len(values), width))
    return list(values) if width <= 1 else [math.fsum(part) / len(part) for part in parts]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * 0.999)


def _tidy(tick: float) -> float:
    """Without the last bits of its multiplication."""
    return float(f"{tick:.10g}")


def _apart(labels: Sequence[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Labels from top to bottom, none over another; those that would leave the frame are pushed up again."""
    ordered = sorted(labels)
    tops = [top for top, *_ in ordered]
    for i in range(1, len(tops)):
        tops[i] = max(tops[i], tops[i - 1] + LABEL_GAP)
    over = max(0.0, tops[-1] - 100) if tops else 0.0
    return [(top - over, style, text) for top, (_, style, text) in zip(tops, ordered, strict=True)]
