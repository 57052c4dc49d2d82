"""What a benchmark is: lines, a way to open it, a budget. Knows none of them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pairs import Line, Median, Pair, Verdict, judge, median


@dataclass(frozen=True)
class Setting:
    """What every benchmark is handed: a scratch folder, the cores it may use, whether figures only need to exist."""

    folder: Path
    cores: int
    quick: bool

    def scratch(self, name: str) -> Path:
        """A new folder of this name."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path


@dataclass(frozen=True)
class Benchmark:
    """One row of the table. `open` sets both sides up and gives what measures a pair."""

    name: str
    what: str
    work: str
    lines: Sequence[Line]
    open: Callable[[Setting], AbstractContextManager[Pair]]
    seconds: float


@dataclass(frozen=True)
class Result:
    """What came of one benchmark."""

    benchmark: Benchmark
    values: dict[str, list[float]]
    seconds: float

    def median(self, figure: str) -> Median:
        """The median of a figure's values."""
        return median(self.values[figure])

    def verdict(self, line: Line) -> Verdict:
        """What this says of a line."""
        return judge(line, self.median(line.figure))
