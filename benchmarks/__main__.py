"""`python -m benchmarks [--only NAME]... [--quick]`: measure, print the table, write docs/benchmarks.md.

Each row that was measured takes its place in the record and on the page, beside those of earlier runs on the same
machine; a quick run only prints. Exit code 1: a line was missed.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import transformers

from benchmarks import (
    aggregation,
    detection,
    download,
    inference,
    language,
    looks,
    metrics_page,
    one_file,
    pickup,
    private,
    streams,
    submit,
    training,
    uploading,
    whole_jobs,
)
from benchmarks.article.section import NotAtHand
from benchmarks.benchmark import Benchmark, Result, Setting
from benchmarks.machine import cores
from benchmarks.page import figures, page, plot
from benchmarks.pairs import FEWEST_PAIRS, MOST_PAIRS, Verdict, collect
from benchmarks.records import Machine, Occasion, Record, read, write
from benchmarks.texts import ROOT

_MODULES = (
    *(training, private, language, whole_jobs, submit, pickup, metrics_page, inference, one_file, download, detection),
    *(aggregation, looks, streams, uploading),
)
BENCHMARKS: dict[str, Benchmark] = {one.name: one for module in _MODULES for one in module.BENCHMARKS}
RECORD = ROOT / "docs" / "benchmarks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
PLOT = ROOT / "docs" / "benchmarks.svg"
_CORES = 2
_QUICK_PAIRS = 2


def main(words: Sequence[str] | None = None) -> int:
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against peers, side by side.")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="this row; may be repeated")
    parser.add_argument("--quick", action="store_true", help="two tiny pairs a row: does it run, not how fast")
    parser.add_argument("--pairs", type=int, default=FEWEST_PAIRS, help="fewest pairs a row")
    parser.add_argument("--budget", type=float, default=1.0, help="share of each row's time budget")
    given = parser.parse_args(words)
    logging.getLogger().setLevel(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    machine = Machine.this()
    chosen = [one for name, one in BENCHMARKS.items() if not given.only or name in given.only]
    results = []
    for one in chosen:
        occasion = Occasion.now()
        try:
            results.append(measure(one, quick=given.quick, fewest=given.pairs, budget=given.budget))
        except NotAtHand as error:
            print(f"{one.name} is left out: {error}", file=sys.stderr)
            continue
        print(figures(results[-1]), flush=True)
        if not given.quick:
            _keep(machine, Record(results[-1], occasion))
    missed = any(one.verdict(line) is Verdict.MISSED for one in results for line in one.benchmark.lines)
    return 1 if missed else 0


def _keep(machine: Machine, measured: Record) -> None:
    """Put a row into the record, the page and the picture."""
    rows = {**read(RECORD, machine, BENCHMARKS), measured.result.benchmark.name: measured}
    records = [rows[name] for name in BENCHMARKS if name in rows]
    write(RECORD, machine, records)
    PAGE.write_text(page(records, machine), encoding="utf-8")
    PLOT.write_text(plot([one.result for one in records]), encoding="utf-8")


def measure(benchmark: Benchmark, *, quick: bool, fewest: int, budget: float = 1.0) -> Result:
    """Measure one row in a scratch folder of its own."""
    began = time.monotonic()
    print(f"{benchmark.name}: setting up", file=sys.stderr, flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="fiftytwo-bench-") as folder,
        benchmark.open(Setting(Path(folder), min(_CORES, cores()), quick)) as pair,
    ):
        values = collect(
            pair,
            benchmark.lines,
            fewest=_QUICK_PAIRS if quick else fewest,
            most=_QUICK_PAIRS if quick else MOST_PAIRS,
            seconds=budget * benchmark.seconds,
            told=partial(_tell, benchmark.name),
        )
    return Result(benchmark, values, time.monotonic() - began)


def _tell(name: str, number: int, values: Mapping[str, float]) -> None:
    shown = ", ".join(f"{figure} {value:.3g}" for figure, value in values.items())
    print(f"{name} {number + 1}: {shown}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
