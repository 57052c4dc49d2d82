"""From an uploaded file to rows to train on: for which task they are, and whether they fit. Knows no database."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.datasets.check import LocatedFault, check
from app.datasets.schemas import DatasetCreate, Task
from app.datasets.service import Content
from app.errors import Invalid
from app.schemas import plain
from app.settings import Settings

# Where the file does not even hold rows; what else is wrong with one is for its owner to look up.
UNREADABLE = frozenset(
    {"malformed_row", "not_utf8", "nul_character", "no_rows", "unknown_format", "broken_compression", "broken_parquet"}
    | {"cell_too_large", "duplicate_key", "duplicate_column"}
)
KNOWN_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".zip", ".gz", ".zst")
PEEKED_BYTES = 1 << 20


@dataclass(frozen=True)
class Rows:
    """Rows that fit their task, at `path` in the form in which they are stored, and what is told of them."""

    fields: DatasetCreate
    report: dict[str, Any]
    path: Path
    content: Content


class Unfitting(Exception):
    """The rows do not fit, or where it is not `readable` there are none; each fault's detail names its line."""

    def __init__(self, faults: list[LocatedFault]) -> None:
        super().__init__(faults[0].detail)
        self.faults = faults
        self.readable = not UNREADABLE & {fault.code for fault in faults}


def task_of(path: Path, filename: str) -> Task:
    """What the rows seem to be for: a classifier where they have labels and no conversation, else a language model."""
    with path.open("rb") as stream:
        first = stream.readline(PEEKED_BYTES)
    if filename.lower().endswith((".csv", ".tsv")):
        return "text_classification" if b"label" in first else "causal_lm"
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return "causal_lm"
    labelled = isinstance(row, dict) and "label" in row and "messages" not in row
    return "text_classification" if labelled else "causal_lm"


def read(source: Path, filename: str, task: Task, settings: Settings, content: Callable[[Path], Content]) -> Rows:
    """The rows of the file at `source`; they land beside it.

    Raises:
        Unfitting: they do not fit the task, or cannot be read.
        TooLarge: the file unpacks to more than this server takes.
    """
    # A file that came before names were checked may be called otherwise.
    fields = DatasetCreate(task=task, name=plain(filename) or None)
    rows = source.with_name(f"{source.name}.{task}.parquet")
    known = filename.lower().endswith(KNOWN_ENDINGS)
    try:
        report = check(source, filename if known else f"{filename}.jsonl", fields, rows, settings)
    except Invalid as error:
        raise Unfitting([_with_line(fault) for fault in error.faults if isinstance(fault, LocatedFault)]) from error
    return Rows(fields, report, rows, content(rows))


def _with_line(fault: LocatedFault) -> LocatedFault:
    return fault if fault.line is None else replace(fault, detail=f"line {fault.line}: {fault.detail}")
