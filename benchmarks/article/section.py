"""One section of docs/article.md: words, what measures it, and the table of means and intervals. Knows no instruction.

A figure is measured once a seed. Its interval is Student's over the seeds: with three of them it is wide, and a bounded
figure's may leave its bounds.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

Figures = Mapping[str, Mapping[str, float | None]]
"""By variant, then by column; None where a column makes no sense for a variant."""
Measure = Callable[[int, bool], Figures]
"""Takes a seed and whether figures only need to exist."""

CONFIDENCE = 0.95


class NotAtHand(RuntimeError):
    """The data of a section is missing; says how to get it."""


@dataclass(frozen=True)
class Section:
    """An instruction of the article. `wrong`: a sentence a fault; `setting`: the data and numbers behind the table."""

    number: int
    title: str
    says: str
    wrong: Sequence[str]
    ours: str
    setting: str
    reading: str
    measure: Measure


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """The mean of some values and the ends of Student's interval; the ends are the mean where they are equal."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan, math.nan
    reach = (
        float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    )
    return mean, mean - reach, mean + reach


def cell(values: Sequence[float | None]) -> str:
    """Mean and interval in words."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "–"
    mean, low, high = interval(known)
    if not math.isfinite(mean):
        return "not finite"
    if low == high:
        return f"{number(mean)} (all alike)"
    return number(mean) if math.isnan(low) else f"{number(mean)} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three digits, in powers of ten where it is very small or large."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"


def table(found: Sequence[Figures]) -> str:
    """Variants down, columns across; the first variant is the baseline."""
    columns = list(dict.fromkeys(name for row in found[0].values() for name in row))
    lines = [f"| variant | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for variant in found[0]:
        cells = [cell([one[variant].get(column) for one in found]) for column in columns]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def text(section: Section, measured: str) -> str:
    """The whole section; `measured` is the table, or why there is none."""
    faults = "\n".join(f"- {one}" for one in section.wrong)
    parts = [
        f"## {section.number}. {section.title}",
        f"**The article** {section.says}",
        f"**What is wrong in its code.**\n\n{faults}",
        f"**Ours** {section.ours}",
        f"**Measured.** {section.setting}",
        measured,
        section.reading,
        f"`python -m benchmarks.article --only {section.number}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
