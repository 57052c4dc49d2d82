"""What was measured, kept as docs/benchmarks.json: raw values of each row with when, at which commit, on what machine.

A run of some rows replaces these alone. Figures of two machines never share a page: a run on another one, of its
processor or its packages, begins a new record.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from os import getloadavg
from pathlib import Path

from benchmarks.benchmark import Benchmark, Result
from benchmarks.machine import commit, cores, has_bf16, memory_gib, processor, versions
from benchmarks.texts import ROOT, source


@dataclass(frozen=True)
class Machine:
    """What all figures of a record depend on."""

    processor: str
    cores: int
    memory_gib: int
    bf16: bool
    versions: Mapping[str, str]
    texts: str

    @classmethod
    def this(cls) -> "Machine":
        """The one that this process runs on."""
        return cls(processor(), cores(), round(memory_gib()), has_bf16(), versions(), source())


@dataclass(frozen=True)
class Occasion:
    """When a row was measured."""

    commit: str
    day: str
    load: float

    @classmethod
    def now(cls) -> "Occasion":
        """This one, before the row begins."""
        return cls(commit(ROOT), f"{datetime.now(UTC):%d %B %Y}", round(getloadavg()[0], 1))


@dataclass(frozen=True)
class Record:
    """A measured row."""

    result: Result
    occasion: Occasion


def read(file: Path, machine: Machine, benchmarks: Mapping[str, Benchmark]) -> dict[str, Record]:
    """The rows of the record, as far as they are of this machine and of benchmarks that there are."""
    if not file.is_file():
        return {}
    kept = json.loads(file.read_text(encoding="utf-8"))
    if kept["machine"] != asdict(machine):
        return {}
    return {
        name: Record(Result(benchmarks[name], one["values"], one["seconds"]), Occasion(**one["occasion"]))
        for name, one in kept["rows"].items()
        if name in benchmarks and all(line.figure in one["values"] for line in benchmarks[name].lines)
    }


def write(file: Path, machine: Machine, records: Sequence[Record]) -> None:
    """Keep these rows, and no others."""
    rows = {
        one.result.benchmark.name: {
            "occasion": asdict(one.occasion),
            "seconds": round(one.result.seconds, 1),
            "values": {name: [float(f"{value:.6g}") for value in found] for name, found in one.result.values.items()},
        }
        for one in records
    }
    file.write_text(json.dumps({"machine": asdict(machine), "rows": rows}, indent=1) + "\n", encoding="utf-8")
