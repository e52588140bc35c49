"""Charts as SVG text, coloured by classes of the page's style sheet.

Where a chart stretches with a table's cell its coordinates are per cent of the width; else units of a view box.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rocketjax.report.elements import esc, number


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` with its ticks; `digits` behind the point of their labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int
    label: str = ""
    names: tuple[str, ...] = ()  # in place of the ticks' numbers

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1; what is outside lies at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def texts(self) -> list[str]:
        return list(self.names) or [number(tick, self.digits).replace(",", "") for tick in self.ticks]


def axis(values: Iterable[float | None], label: str = "", steps: int = 5) -> Axis:
    """An axis with round ticks around all finite values."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough / 1.3)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(first * step, last * step, tuple(i * step for i in range(first, last + 1)), digits, label)


UNIT = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 1)


def chance_axis(lowest: float) -> Axis:
    """From chance, 0, to perfect, 1, and so far below that the lowest value is on it."""
    return Axis(-0.25 if lowest >= -0.25 else -1.0, 1.0, (0.0, 1.0), 0, names=("chance", "perfect"))


def short(text: str, most: int) -> str:
    """A name that has to fit; a mouse sees the whole of it."""
    return esc(text) if len(text) <= most else f"<title>{esc(text)}</title>{esc(text[: most - 1])}\u2026"


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def interval_bar(
    value: float | None, low: float | None, high: float | None, scale: Axis, text: str, known: bool = True
) -> str:
    """A dot with its interval on a scale that fills the cell; an end that is None runs to the edge. `known` is whether
    there is an interval at all."""
    parts = [f'<line class="grid" x1="{percent(s)}" x2="{percent(s)}" y1="0" y2="100%"/>'
             for s in (scale.share(tick) for tick in scale.ticks)]  # fmt: skip
    if known:
        a = 0.0 if low is None else scale.share(low)
        b = 1.0 if high is None else scale.share(high)
        parts.append(f'<rect class="span" x="{percent(a)}" width="{percent(b - a)}" y="25%" height="50%" rx="3"/>')
        parts.append(f'<line class="whisker" x1="{percent(a)}" x2="{percent(b)}" y1="50%" y2="50%"/>')
    if value is not None:
        parts.append(f'<circle class="dot" cx="{percent(scale.share(value))}" cy="50%" r="4.5"/>')
    return f'<svg class="bar" role="img" aria-label="{esc(text)}">{"".join(parts)}</svg>'


def axis_bar(scale: Axis) -> str:
    """The tick labels under a column of `interval_bar`s."""
    # A word at the end may not reach over the edge, a number may.
    last = scale.high if scale.names else None
    texts = "".join(
        f'<text class="{"ty" if tick == last else "tx"}" x="{percent(scale.share(tick))}" y="70%">{text}</text>'
        for tick, text in zip(scale.ticks, scale.texts(), strict=True)
    )
    return f'<svg class="bar ticks" aria-hidden="true">{texts}</svg>'


WIDTH, HEIGHT = 440.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 14.0, 12.0, 46.0

Point = tuple[float, float]


class Plot:
    """A frame with two axes that marks are drawn into."""

    def __init__(self, x: Axis, y: Axis, title: str, text: str) -> None:
        """`title` names the chart and `text` says what it shows, for people who cannot see it."""
        self.x, self.y, self.title, self.text = x, y, title, text
        self.marks: list[str] = []

    def at(self, x: float, y: float) -> Point:
        """Coordinates of a point."""
        return (
            LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM),
        )

    def line(self, points: Sequence[Point], kind: str) -> None:
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*p)) for p in points)
        self.marks.append(f'<polyline class="{kind}" points="{places}"/>')

    def band(self, low: Sequence[Point], high: Sequence[Point]) -> None:
        places = " ".join("{:.1f},{:.1f}".format(*self.at(*p)) for p in (*low, *reversed(high)))
        self.marks.append(f'<polygon class="band" points="{places}"/>')

    def whisker(self, x: float, low: float, high: float) -> None:
        """An interval upright."""
        (a, bottom), (_, top) = self.at(x, low), self.at(x, high)
        self.marks.append(f'<line class="whisker" x1="{a:.1f}" x2="{a:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')

    def dot(self, x: float, y: float, radius: float, tip: str, inside: str = "") -> None:
        """A point with what it says when it is pointed at, and a short text inside."""
        a, b = self.at(x, y)
        word = f'<text class="in" x="{a:.1f}" y="{b + 3.6:.1f}">{esc(inside)}</text>' if inside else ""
        circle = f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="{radius:.1f}"/>'
        self.marks.append(f"<g><title>{esc(tip)}</title>{circle}{word}</g>")

    def svg(self) -> str:
        """The chart."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        grid, ticks = [], []
        for tick, text in zip(self.x.ticks, self.x.texts(), strict=True):
            a, _ = self.at(tick, self.y.low)
            grid.append(f'<line class="grid" x1="{a:.1f}" x2="{a:.1f}" y1="{TOP}" y2="{bottom}"/>')
            ticks.append(f'<text class="tx" x="{a:.1f}" y="{bottom + 16}">{text}</text>')
        for tick, text in zip(self.y.ticks, self.y.texts(), strict=True):
            _, b = self.at(self.x.low, tick)
            grid.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{b:.1f}" y2="{b:.1f}"/>')
            ticks.append(f'<text class="ty" x="{LEFT - 7}" y="{b + 4:.1f}">{text}</text>')
        middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
        names = (
            f'<text class="name" x="{middle_x}" y="{HEIGHT - 8}">{short(self.x.label, 56)}</text>'
            f'<text class="name" transform="translate(13 {middle_y}) rotate(-90)">{short(self.y.label, 38)}</text>'
        )
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{esc(self.title)}">'
            f"<desc>{esc(self.text)}</desc>{''.join(grid)}{''.join(ticks)}{names}{''.join(self.marks)}</svg>"
        )
