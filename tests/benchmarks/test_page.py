"""The page of the benchmarks: every figure, bound and verdict stands on it, and the picture draws what has a line."""

import contextlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.__main__ import BENCHMARKS
from benchmarks.benchmark import Benchmark, Result, Setting
from benchmarks.page import figures, number, page, plot
from benchmarks.pairs import Line, Pair
from benchmarks.records import Machine, Occasion, Record, read, write

MACHINE = Machine("a processor", 2, 24, True, {"torch": "2.13"}, "made texts")
LINES = (
    Line("ratio", 1.0, 1.1, unit="x"),
    Line("cost", 0.45, 0.30, more_is_better=False, unit="s/GB"),
    Line("rate", unit="/s"),
)


@contextlib.contextmanager
def nothing(_: Setting) -> Iterator[Pair]:
    yield lambda _number: {}


def result(ratio: float, cost: float) -> Result:
    benchmark = Benchmark("name", "what it is", "how it was done", LINES, nothing, 1)
    return Result(benchmark, {"ratio": [ratio] * 7, "cost": [cost] * 7, "rate": [1234.0] * 7}, 12.0)


def record(ratio: float, cost: float) -> Record:
    return Record(result(ratio, cost), Occasion("abc1234", "1 May 2026", 0.1))


def test_the_page_tells_figures_bounds_and_verdicts() -> None:
    text = page([record(1.2, 0.6)], MACHINE)
    first, second, third = text.split("| --- |\n")[1].splitlines()[:3]
    assert (
        first
        == "| what it is | ratio | 1.20 | 1.20 to 1.20 | 7 | at least 1 | at least 1.1 | **passed**, at the goal |"
    )
    assert second == "|  | cost | 0.600 s/GB | 0.600 to 0.600 | 7 | at most 0.45 | at most 0.3 | **missed** |"
    assert third == "|  | rate | 1,234 /s | 1,234 to 1,234 | 7 |  |  |  |"
    assert "1 pass line is missed." in text
    assert "how it was done" in text
    assert "torch 2.13" in text
    assert "at commit abc1234" in text
    assert "Every pass line holds." in page([record(1.2, 0.4)], MACHINE)


def test_a_row_is_read_back_on_the_same_machine_alone(tmp_path: Path) -> None:
    kept, known = record(1.2, 0.6), {"name": result(1, 1).benchmark}
    assert read(tmp_path / "record.json", MACHINE, known) == {}
    write(tmp_path / "record.json", MACHINE, [kept])
    assert read(tmp_path / "record.json", MACHINE, known) == {"name": kept}
    assert read(tmp_path / "record.json", replace(MACHINE, cores=4), known) == {}
    assert read(tmp_path / "record.json", MACHINE, {}) == {}
    more = replace(known["name"], lines=(*LINES, Line("new")))
    assert read(tmp_path / "record.json", MACHINE, {"name": more}) == {}


def test_the_terminal_gets_the_same() -> None:
    assert "cost: 0.400 s/GB 0.400 to 0.400 n=7; pass at most 0.45, goal at most 0.3: passed" in figures(
        result(1.2, 0.4)
    )


def test_numbers_have_three_digits() -> None:
    assert [number(x) for x in (0.0123, 1.0, 23.45, 234.5, 12345.6)] == ["0.0123", "1.00", "23.4", "234", "12,346"]


def test_the_picture_puts_the_better_to_the_right_of_the_line() -> None:
    root = ET.fromstring(plot([result(1.2, 0.6), result(40.0, 0.001)]))
    space = "{http://www.w3.org/2000/svg}"
    dots = [float(dot.attrib["cx"]) for dot in root.iter(f"{space}circle")]
    assert len(dots) == 4
    (middle,) = {float(line.attrib["x1"]) for line in root.iter(f"{space}line") if line.get("stroke") == "#444"}
    assert dots[0] > middle > dots[1]
    assert dots[2] == dots[3] == max(dots)  # beyond the axis: at its end


def test_every_row_of_the_table_is_there() -> None:
    assert list(BENCHMARKS) == [
        *("training", "bucketed", "hooks", "private", "private-lora", "language", "overhead", "threads"),
        *("submit", "pickup", "metrics-page", "inference", "pruned", "one-file", "download", "detection"),
        *("aggregation", "reading", "metrics", "listing", "streams", "followed", "upload"),
    ]
    assert sum(one.seconds for one in BENCHMARKS.values()) <= 60 * 60
    for one in BENCHMARKS.values():
        names = [line.figure for line in one.lines]
        assert len(set(names)) == len(names)
        assert any(line.passes is not None for line in one.lines)
        for line in one.lines:
            assert (line.passes is None) == (line.goal is None)
