"""Small charts as SVG: lines, bars, a matrix. Knows nothing of what they show; text is escaped here.

Drawn by hand so that a report is one file without scripts, prints well, and can be opened years later.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 14, 34
# Of Okabe and Ito: told apart by people with any kind of colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Line:
    """Points (x, y) in order of x, under a name."""

    name: str
    points: Sequence[tuple[float, float]]


def lines(title: str, drawn: Sequence[Line], x_label: str = "", *, diagonal: bool = False) -> str:
    """A chart of lines over common axes; `diagonal`: both go from 0 to 1, as shares do, and y = x stands beside."""
    drawn = [one for one in drawn if one.points]
    if not drawn:
        return ""
    ends = (0.0, 1.0) if diagonal else ()
    xs = _Axis.over([*ends, *(x for one in drawn for x, _ in one.points)], _LEFT, WIDTH - _RIGHT)
    ys = _Axis.over([*ends, *(y for one in drawn for _, y in one.points)], HEIGHT - _BOTTOM, _TOP)
    body = [_grid(xs, ys, x_label)]
    if diagonal:
        body.append(f'<line class="guide" x1="{xs.at(0)}" y1="{ys.at(0)}" x2="{xs.at(1)}" y2="{ys.at(1)}"/>')
    for number, one in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{xs.at(x)},{ys.at(y)}" for x, y in one.points)
        body.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
        if len(one.points) <= 20:
            body.extend(f'<circle cx="{xs.at(x)}" cy="{ys.at(y)}" r="2.6" fill="{colour}"/>' for x, y in one.points)
        if len(drawn) > 1:
            body.append(
                f'<text x="{WIDTH - _RIGHT - 4}" y="{_TOP + 12 + 14 * number}" text-anchor="end" style="fill:{colour}">'
                f"{html.escape(one.name)}</text>"
            )
    return _figure(title, "".join(body), HEIGHT)


def bars(title: str, values: Sequence[tuple[str, float]], unit: str = "") -> str:
    """Horizontal bars from zero, each with its name and its value."""
    if not values:
        return ""
    row, most = 24, max(value for _, value in values) or 1.0
    body = []
    for number, (name, value) in enumerate(values):
        y = _TOP + number * row
        width = max(1.0, (WIDTH - 270) * value / most)
        body.append(f'<text x="170" y="{y + 14}" text-anchor="end">{html.escape(name[:28])}</text>')
        body.append(f'<rect x="178" y="{y + 3}" width="{width:.1f}" height="15" fill="{COLOURS[0]}"/>')
        body.append(f'<text x="{184 + width:.1f}" y="{y + 14}">{_said(value)}{html.escape(unit)}</text>')
    return _figure(title, "".join(body), _TOP + row * len(values) + 8)


def matrix(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A square of counts, rows the truth and columns the answers, shaded by share of the row."""
    if not names:
        return ""
    side = max(18, min(52, 320 // len(names)))
    left, top = 120, 30
    body = [f'<text x="{left}" y="16">answered, from left to right as from top to bottom</text>']
    for row, (name, line) in enumerate(zip(names, counts, strict=True)):
        y, total = top + row * side, max(1, sum(line))
        body.append(f'<text x="{left - 6}" y="{y + side / 2 + 4}" text-anchor="end">{html.escape(name[:18])}</text>')
        for column, count in enumerate(line):
            x, share = left + column * side, count / total
            body.append(
                f'<rect x="{x}" y="{y}" width="{side - 1}" height="{side - 1}" fill="{COLOURS[0]}" '
                f'fill-opacity="{0.06 + 0.94 * share:.2f}"/>'
            )
            colour = "#fff" if share > 0.5 else "currentColor"
            if side >= 26:
                body.append(
                    f'<text x="{x + side / 2}" y="{y + side / 2 + 4}" text-anchor="middle" '
                    f'style="fill:{colour}">{count}</text>'
                )
    return _figure(title, "".join(body), top + side * len(names) + 8, max(WIDTH, left + side * len(names) + 10))


@dataclass(frozen=True)
class _Axis:
    """A range of values on a range of pixels."""

    low: float
    high: float
    first: float
    last: float

    @classmethod
    def over(cls, values: Sequence[float], first: float, last: float) -> "_Axis":
        """Wide enough for all values, never of no width."""
        low, high = min(values), max(values)
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        return cls(low, high, first, last)

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> list[float]:
        """Four to seven round values inside the range."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        start = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(start, math.floor(self.high / step + 1e-9) + 1)]


def _grid(xs: _Axis, ys: _Axis, x_label: str) -> str:
    body = []
    for tick in ys.ticks():
        y = ys.at(tick)
        body.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}"/>')
        body.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_said(tick)}</text>')
    for tick in xs.ticks():
        body.append(f'<text x="{xs.at(tick)}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_said(tick)}</text>')
    body.append(f'<text x="{(WIDTH + _LEFT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>')
    return "".join(body)


def _said(value: float) -> str:
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.1e}"
    return f"{value:,.4g}"


def _figure(title: str, body: str, height: float, width: float = WIDTH) -> str:
    name = html.escape(title)
    return (
        f'<figure><figcaption>{name}</figcaption><svg viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{name}">{body}</svg></figure>'
    )
