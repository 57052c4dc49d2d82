"""What is wrong with a file: every fault with its place, up to a number that a person can read. Knows no format."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

MOST_LISTED = 100
DISK_FULL = 4
"""The exit code of a check that found no room for what it writes."""

# Roles of columns, as the upload names them.
ROLES = ("text", "label", "split", "group")
SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True)
class Limits:
    """The caps on one file: rows, bytes unpacked, bytes of one cell, pixels of one image."""

    max_rows: int = 10_000_000
    max_bytes: int = 8 << 30
    max_cell_bytes: int = 16 << 20
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class Choices:
    """What the uploader chose: the columns by role, and what becomes of rows that are not valid."""

    columns: dict[str, str]
    skip_invalid: bool = False
    max_invalid_fraction: float = 0.1


@dataclass(frozen=True)
class Problem:
    """One fault; `line` counts from 1 (of a Parquet file or a ZIP: the row or the member)."""

    pointer: str
    line: int | None
    code: str
    detail: str
    remedy: str


class Unusable(Exception):
    """The file as a whole cannot be read on: code, detail, remedy and the line where it was noticed."""

    def __init__(self, code: str, detail: str, remedy: str, *, line: int | None = None, pointer: str = "/file") -> None:
        super().__init__(detail)
        self.problem = Problem(pointer, line, code, detail, remedy)


class InvalidRow(Exception):
    """One row cannot be used; the rows after it can."""

    def __init__(self, code: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.code, self.detail, self.remedy = code, detail, remedy


def _storable(detail: str) -> str:
    """A fault's words, which may quote the file: with escapes for what no database holds."""
    return detail.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


@dataclass
class Findings:
    """The faults so far. The first `MOST_LISTED` are kept word by word, the others only counted."""

    choices: Choices
    problems: list[Problem] = field(default_factory=list)
    invalid: list[Problem] = field(default_factory=list)
    invalid_rows: int = 0

    def row(self, line: int, fault: InvalidRow) -> None:
        """Note a row that cannot be used."""
        self.invalid_rows += 1
        if len(self.invalid) < MOST_LISTED:
            self.invalid.append(Problem("/file", line, fault.code, _storable(fault.detail), fault.remedy))

    def file(self, fault: Unusable) -> None:
        """Note a fault of the file as a whole."""
        self.problems.append(replace(fault.problem, detail=_storable(fault.problem.detail)))

    def settle(self, valid_rows: int) -> None:
        """Decide what the invalid rows mean, once all rows are read."""
        if not self.invalid_rows:
            return
        fraction = self.invalid_rows / (self.invalid_rows + valid_rows)
        if self.choices.skip_invalid and fraction <= self.choices.max_invalid_fraction:
            return
        self.problems += self.invalid
        if unlisted := self.invalid_rows - len(self.invalid):
            self.problems.append(
                Problem("/file", None, "more_faults", f"{unlisted} more rows have faults", "mend those listed first")
            )
        if self.choices.skip_invalid:
            detail = f"{fraction:.3g} of the rows are invalid, more than {self.choices.max_invalid_fraction:g}"
            remedy = "mend the rows, or raise max_invalid_fraction"
            self.problems.append(Problem("/max_invalid_fraction", None, "too_many_invalid_rows", detail, remedy))

    def skipped(self) -> list[dict[str, Any]]:
        """The rows that were left out, as JSON objects; the last one counts those that are not listed."""
        listed = [asdict(problem) for problem in self.invalid]
        if unlisted := self.invalid_rows - len(self.invalid):
            more = Problem("/file", None, "more_faults", f"{unlisted} more rows were left out", "")
            listed.append(asdict(more))
        return listed
