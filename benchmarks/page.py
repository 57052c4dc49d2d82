"""Draws results: a line for the terminal, the page docs/benchmarks.md, a picture of ratios. Measures nothing."""

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from benchmarks.benchmark import Result
from benchmarks.pairs import CONFIDENCE, FEWEST_PAIRS, MOST_PAIRS, Line, Median, Verdict
from benchmarks.records import Machine, Record

NOTE = "<!-- Written by `make bench`; do not edit. -->"
_METHOD = (
    f"The two sides of a row take turns in pairs, at least {FEWEST_PAIRS}, until the {CONFIDENCE:.0%} interval of the"
    " median (order statistics, no assumption on the distribution) lies on one side of the pass line, the row's time is"
    f" up, or {MOST_PAIRS} pairs are spent. The interval is looked at after every pair, so its confidence is nominal. A"
    " line is missed only where the whole interval lies beyond it. Computations are timed in processor seconds, whole"
    " jobs and requests by the wall clock. On both sides OpenMP's threads sleep at barriers, as a worker has them do."
)
_COLUMNS = ("what", "figure", "median", "95 % interval", "pairs", "pass", "goal", "verdict")
_WORDS = {
    Verdict.GOAL: "**passed**, at the goal",
    Verdict.PASSED: "**passed**",
    Verdict.WITHIN_NOISE: "not missed: the line lies inside the interval",
    Verdict.MISSED: "**missed**",
    Verdict.TOO_FEW: "too few pairs",
    Verdict.NONE: "",
}


def number(value: float | None, unit: str = "") -> str:
    """Three digits, with the unit that is worth writing."""
    if value is None:
        return ""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")
    return digits if unit in ("", "x") else f"{digits} {unit}"


def figures(result: Result) -> str:
    """One line a figure, for the terminal."""
    lines = [f"{result.benchmark.what} ({result.seconds:.0f} s)"]
    for line in result.benchmark.lines:
        found = result.median(line.figure)
        held = f"; pass {bound(line, line.passes)}, goal {bound(line, line.goal)}: {result.verdict(line)}"
        told = held if line.passes is not None else ""
        lines.append(
            f"  {line.figure}: {number(found.value, line.unit)} {interval(line, found)} n={found.n}{told}".rstrip()
        )
    return "\n".join(lines)


def interval(line: Line, found: Median) -> str:
    """The interval in words."""
    if line.exact:
        return "exact"
    return "" if found.low is None else f"{number(found.low)} to {number(found.high)}"


def bound(line: Line, value: float | None) -> str:
    """A pass line or goal with its direction."""
    if value is None:
        return ""
    return f"{'at least' if line.more_is_better else 'at most'} {value:g}"


def page(records: Sequence[Record], machine: Machine) -> str:
    """The page."""
    results = [one.result for one in records]
    missed = sum(one.verdict(line) is Verdict.MISSED for one in results for line in one.benchmark.lines)
    held = "Every pass line holds." if not missed else f"{missed} pass line{'s are' if missed > 1 else ' is'} missed."
    paragraphs = [
        "# Benchmarks",
        NOTE,
        f"{held} {_circumstances(machine)}",
        _METHOD,
        "![Medians over their pass lines](benchmarks.svg)",
        "\n".join(_table(results)),
        "## What was measured",
        "\n".join(map(_what, records)),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _what(one: Record) -> str:
    when = f"{one.result.seconds:.0f} s on {one.occasion.day} at commit {one.occasion.commit}"
    about = one.result.benchmark
    return f"- **{about.what}**: {about.work}. `--only {about.name}`, {when}, load average {one.occasion.load} before."


def _circumstances(machine: Machine) -> str:
    """On what."""
    made = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    bf16 = "multiplies bf16 natively" if machine.bf16 else "has no bf16, so the line of 11 and 26 is 1.6"
    return (
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB; it {bf16}. {made}. Texts:"
        f" {machine.texts}. `make bench` measures every row, `python -m benchmarks --only NAME` one; the raw values are"
        " in [benchmarks.json](benchmarks.json)."
    )


def _table(results: Sequence[Result]) -> Iterator[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield f"| {' | '.join('---' for _ in _COLUMNS)} |"
    for result in results:
        for index, line in enumerate(result.benchmark.lines):
            found = result.median(line.figure)
            cells = (
                result.benchmark.what if index == 0 else "",
                line.figure,
                number(found.value, line.unit),
                interval(line, found),
                str(found.n),
                bound(line, line.passes),
                bound(line, line.goal),
                _WORDS[result.verdict(line)],
            )
            yield f"| {' | '.join(cells)} |"


# The picture: each figure over its pass line on a log axis, better to the right.

_LEFT, _WIDTH, _ROW, _TOP = 290, 420, 26, 34
_SPAN = 4.0  # the axis shows a quarter of the pass line to four times it
_COLOURS = {Verdict.MISSED: "#b3261e", Verdict.WITHIN_NOISE: "#b26a00"}


def plot(results: Sequence[Result]) -> str:
    """An SVG of every figure that has a pass line."""
    drawn = [(one, line) for one in results for line in one.benchmark.lines if line.passes is not None]
    height = _TOP + _ROW * len(drawn) + 30
    rows = [text for at, (one, line) in enumerate(drawn) for text in _row(_TOP + _ROW * at + _ROW // 2, one, line)]
    middle, bottom = _x(1.0), height - 24
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 90} {height}" '
            'font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="{middle}" y="16" text-anchor="middle">pass</text>',
            f'<line x1="{middle}" x2="{middle}" y1="22" y2="{bottom}" stroke="#444"/>',
            *rows,
            f'<text x="{_LEFT}" y="{height - 8}">worse</text>',
            f'<text x="{_LEFT + _WIDTH}" y="{height - 8}" text-anchor="end">better (log scale; diamond: goal)</text>',
            "</svg>",
            "",
        ]
    )


def _row(y: int, result: Result, line: Line) -> Iterator[str]:
    found = result.median(line.figure)
    colour = _COLOURS.get(result.verdict(line), "#1b6e3c")
    name = f"{result.benchmark.what}, {line.figure}" if line.figure != "ratio" else result.benchmark.what
    yield f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
    if found.low is not None and found.high is not None and not line.exact:
        ends = sorted(_x(_gain(line, end)) for end in (found.low, found.high))
        yield f'<line x1="{ends[0]}" x2="{ends[1]}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
    if line.goal is not None:
        x = _x(_gain(line, line.goal))
        yield f'<path d="M{x} {y - 6}l5 6l-5 6l-5 -6z" fill="none" stroke="#444"/>'
    yield f'<circle cx="{_x(_gain(line, found.value))}" cy="{y}" r="4" fill="{colour}"/>'
    yield f'<text x="{_LEFT + _WIDTH + 12}" y="{y + 4}">{escape(number(found.value, line.unit))}</text>'


def _gain(line: Line, value: float) -> float:
    """How many times better than the pass line."""
    assert line.passes is not None
    return value / line.passes if line.more_is_better else line.passes / value


def _x(gain: float) -> float:
    """Where a gain lies on the axis; beyond its ends it is drawn there."""
    held = min(max(gain, 1 / _SPAN), _SPAN)
    return round(_LEFT + _WIDTH * (0.5 + math.log(held) / (2 * math.log(_SPAN))), 1)
