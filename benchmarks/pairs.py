"""The statistics of alternating pairs: exact intervals of medians, when to stop, what to conclude. Knows no benchmark.

Two sides take turns, so whatever slows the machine down slows both. The interval of the median is that of the order
statistics: it assumes nothing of the distribution. It is looked at after every pair from the sixth on, which makes its
95 % nominal; a verdict that is close to its line deserves another run.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

MOST_PAIRS = 60
FEWEST_PAIRS = 6  # of five values not even the smallest and the largest enclose the median at 95 %
CONFIDENCE = 0.95

Side = TypeVar("Side")
Pair = Callable[[int], Mapping[str, float]]
"""Measures one pair by its number and gives figures by name."""


class Verdict(StrEnum):
    """What an interval says of a line."""

    GOAL = "goal"  # passed, and the median reaches the goal
    PASSED = "passed"  # the whole interval lies on the good side of the pass line
    WITHIN_NOISE = "within noise"  # the interval encloses the pass line: not missed
    MISSED = "missed"  # the whole interval lies beyond the pass line
    TOO_FEW = "too few pairs"
    NONE = ""  # there is no line


@dataclass(frozen=True)
class Line:
    """A figure and what it is held against; `passes` None: it is only told."""

    figure: str
    passes: float | None = None
    goal: float | None = None
    more_is_better: bool = True
    unit: str = ""
    exact: bool = False  # a count without noise: one pair settles it


@dataclass(frozen=True)
class Median:
    """A median of n values and its interval; None where n is too small for one."""

    value: float
    low: float | None
    high: float | None
    n: int


def median(values: Sequence[float], confidence: float = CONFIDENCE) -> Median:
    """The median of n values with the narrowest pair of order statistics that encloses it at `confidence`.

    That the i-th smallest lies above the median has the probability of fewer than i heads in n throws of a coin.
    """
    ordered, n = sorted(values), len(values)
    outside, rank = 0.0, 0
    for below in range(n // 2):
        outside += math.comb(n, below) / 2**n
        if 2 * outside > 1 - confidence:
            break
        rank = below + 1
    value = statistics.median(ordered)
    return Median(value, ordered[rank - 1], ordered[n - rank], n) if rank else Median(value, None, None, n)


def judge(line: Line, found: Median) -> Verdict:
    """Hold a median against its line."""
    if line.passes is None:
        return Verdict.NONE
    low, high = (found.value, found.value) if line.exact else (found.low, found.high)
    if low is None or high is None:
        return Verdict.TOO_FEW
    sign = 1 if line.more_is_better else -1
    worst, best = sorted((sign * low, sign * high))
    if worst >= sign * line.passes:
        reached = line.goal is not None and sign * found.value >= sign * line.goal
        return Verdict.GOAL if reached else Verdict.PASSED
    return Verdict.MISSED if best < sign * line.passes else Verdict.WITHIN_NOISE


def clear(line: Line, values: Sequence[float]) -> bool:
    """Whether more pairs would change nothing: the interval lies on one side of the pass line."""
    return judge(line, median(values)) not in (Verdict.WITHIN_NOISE, Verdict.TOO_FEW)


def collect(
    pair: Pair,
    lines: Sequence[Line],
    *,
    fewest: int = FEWEST_PAIRS,
    most: int = MOST_PAIRS,
    seconds: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
    told: Callable[[int, Mapping[str, float]], None] = lambda _number, _figures: None,
) -> dict[str, list[float]]:
    """Measure pairs until every line's interval is clear of it, `most` are spent, or `seconds` are over.

    Gives each figure's values in order. `fewest` pairs are measured whatever they take.
    """
    values: dict[str, list[float]] = {}
    began = clock()
    for number in range(most):
        figures = pair(number)
        told(number, figures)
        for name, value in figures.items():
            values.setdefault(name, []).append(value)
        enough = number + 1 >= fewest
        if enough and (clock() - began >= seconds or all(clear(line, values[line.figure]) for line in lines)):
            break
    return values


def in_turn(number: int, first: Callable[[], Side], second: Callable[[], Side]) -> tuple[Side, Side]:
    """Both results; which side goes first alternates from pair to pair."""
    if number % 2 == 0:
        return first(), second()
    late = second()
    return first(), late
