"""The statistics of the benchmarks against slow oracles; nothing here is timed."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pairs import FEWEST_PAIRS, Line, Median, Verdict, collect, in_turn, judge, median


@pytest.mark.parametrize("n", range(1, 14))
def test_the_interval_is_the_narrowest_that_encloses_the_median_often_enough(n: int) -> None:
    """Oracle: every way in which n values can fall below or above the median, each as likely as the other."""
    found = median([float(i) for i in range(n)])
    kept = []
    for rank in range(1, n // 2 + 1):
        # The interval from the rank-th smallest to the rank-th largest misses it if too few lie on one side.
        enclosed = sum(rank <= sum(sides) <= n - rank for sides in itertools.product((0, 1), repeat=n)) / 2**n
        if enclosed >= 0.95:
            kept.append(rank)
    if kept:
        assert (found.low, found.high) == (max(kept) - 1, n - max(kept))
    else:
        assert found.low is None
        assert found.high is None
    assert (n >= FEWEST_PAIRS) == bool(kept)


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = median(drawn.exponential(size=15).tolist())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= math.log(2) <= found.high
    assert 0.95 <= covered / 2000 <= 0.98  # 15 values: .965


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=60), st.randoms())
def test_the_order_of_pairs_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' random
    assert median(values) == median(shuffled)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((1.15, 1.10, 1.20), Verdict.GOAL),
        ((1.05, 1.00, 1.10), Verdict.PASSED),
        ((1.15, 0.99, 1.20), Verdict.WITHIN_NOISE),
        ((0.98, 0.95, 1.00), Verdict.WITHIN_NOISE),
        ((0.90, 0.85, 0.99), Verdict.MISSED),
        ((1.15, None, None), Verdict.TOO_FEW),
    ],
)
def test_a_line_is_missed_only_beyond_the_interval(
    interval: tuple[float, float | None, float | None], verdict: Verdict
) -> None:
    line = Line("ratio", passes=1.0, goal=1.1)
    assert judge(line, Median(*interval, n=8)) is verdict


@given(st.floats(0.5, 2), st.floats(0.5, 2), st.floats(0.5, 2))
def test_less_is_better_is_the_mirror_of_more_is_better(low: float, value: float, high: float) -> None:
    low, value, high = sorted((low, value, high))
    more, less = Line("x", 1.0, 1.25), Line("x", 1.0, 0.8, more_is_better=False)
    assert judge(more, Median(value, low, high, 9)) is judge(less, Median(1 / value, 1 / high, 1 / low, 9))


def test_an_exact_figure_needs_one_pair() -> None:
    line = Line("bytes", passes=0.26, goal=0.25, more_is_better=False, exact=True)
    assert judge(line, median([0.255])) is Verdict.PASSED
    assert judge(line, median([0.27])) is Verdict.MISSED


def test_pairs_are_measured_until_the_interval_is_clear_of_the_line() -> None:
    lines = [Line("ratio", passes=1.0), Line("told")]
    clear = collect(lambda _: {"ratio": 1.2, "told": 3.0}, lines)
    assert [len(values) for values in clear.values()] == [FEWEST_PAIRS] * 2
    across = collect(lambda number: {"ratio": (0.9, 1.1)[number % 2], "told": 3.0}, lines, most=25)
    assert len(across["ratio"]) == 25


def test_one_line_that_is_not_clear_keeps_all_going() -> None:
    lines = [Line("rate", passes=1.0), Line("p99", passes=3.0, more_is_better=False)]
    values = collect(lambda number: {"rate": 2.0, "p99": 2.0 if number % 3 else 4.0}, lines)
    assert len(values["rate"]) > FEWEST_PAIRS
    assert judge(lines[1], median(values["p99"])) is Verdict.PASSED


def test_a_budget_of_time_ends_it_but_never_before_there_is_an_interval() -> None:
    ticks = itertools.count(step=10.0)
    values = collect(lambda number: {"ratio": 0.9 + number % 2}, [Line("ratio", 1.0)], seconds=5, clock=ticks.__next__)
    assert len(values["ratio"]) == FEWEST_PAIRS


def test_sides_take_turns_in_going_first() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return name

    results = [in_turn(number, lambda: side("ours"), lambda: side("theirs")) for number in range(4)]
    assert results == [("ours", "theirs")] * 4
    assert order == ["ours", "theirs", "theirs", "ours"] * 2
