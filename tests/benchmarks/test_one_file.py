"""The parts of the benchmark of one file: what is chosen, what is pooled, and that recipes are those of the page."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.one_file import ALLOWED, bytes_ratio, chosen, lost, recipes
from engine.evaluate import Measured, class_figures


def test_the_lines_are_those_that_were_set() -> None:
    lines = {line.figure: line for line in BENCHMARKS["one-file"].lines}
    assert (lines["bytes"].passes, lines["bytes"].goal) == (0.21, 0.12)
    assert (lines["latency"].passes, lines["latency"].goal) == (0.33, 0.20)
    assert (lines["lost at most"].passes, ALLOWED) == (1.0, 0.01)
    for name in recipes(1):
        assert {f"{name}: bytes", f"{name}: lost on valid, at most"} <= set(lines)


def test_the_smallest_that_holds_at_the_bad_end_is_chosen() -> None:
    found = {
        "large": (0.25, Measured(0.0, -0.005, 0.005, 1000)),
        "small": (0.20, Measured(0.004, -0.002, 0.010, 1000)),
        "smaller, not sure": (0.15, Measured(0.005, -0.001, 0.011, 1000)),
        "smallest, worse": (0.10, Measured(0.02, 0.01, 0.03, 1000)),
    }
    assert chosen(found) == "small"
    assert chosen(found, allowed=0.02) == "smaller, not sure"
    assert chosen(found, allowed=0.001) == "large"


def made(labels: list[int], before: list[int], after: list[int], size: int) -> Any:
    """Stands for a compressed model: what it and its origin answer."""
    truth = np.array(labels)
    of = SimpleNamespace(answered={"test": class_figures(truth, np.array(before))}, weights=100)
    return SimpleNamespace(of=of, size=size, answered=lambda _: class_figures(truth, np.array(after)))


def test_rows_and_bytes_of_all_data_sets_count_together() -> None:
    files = [made([0, 1, 0], [0, 1, 0], [1, 1, 0], 10), made([1] * 7, [1] * 7, [1] * 7, 40)]
    found = lost(files, "test")
    assert found.n == 10
    assert found.value == pytest.approx(0.1)
    assert found.low < 0.1 < found.high
    assert bytes_ratio(files) == 0.25
