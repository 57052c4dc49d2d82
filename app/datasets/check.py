"""Runs the check of an upload in a child process under limits: memory, processor time, wall time. Knows no SQL."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.datasets.schemas import DatasetCreate
from app.errors import Invalid, ServiceError, TooLarge
from app.settings import Settings
from engine.errors import Fault
from engine.ingest.findings import DISK_FULL

# Faults that are a matter of size: 413 instead of 422.
SIZE_CODES = {"decompressed_too_large", "too_many_rows", "check_limit"}
COLUMNS = ("text_column", "label_column", "split_column", "group_column")


class CheckBroken(Exception):
    """The check itself failed; the text is the end of what it said."""


@dataclass(frozen=True)
class LocatedFault(Fault):
    """A fault in a file, with its line, row or member, counted from 1."""

    line: int | None


def check(source: Path, filename: str, wanted: DatasetCreate, out: Path, settings: Settings) -> dict[str, Any]:
    """The report on a valid file, whose rows then stand at `out`; raises the error with every fault of any other."""
    report = out.with_suffix(".json")
    command = [sys.executable, "-m", "engine.ingest", str(source), "--task", wanted.task, "--out", str(out)]
    command += ["--report", str(report), f"--filename={filename}"]
    command += [
        f"--{name.replace('_', '-')}={column}" for name in COLUMNS if (column := getattr(wanted, name)) is not None
    ]
    command += ["--invalid-rows", wanted.invalid_rows, "--max-invalid-fraction", str(wanted.max_invalid_fraction)]
    command += ["--max-rows", str(settings.max_rows), "--max-bytes", str(settings.max_decompressed_bytes)]
    command += ["--max-cell-bytes", str(settings.max_cell_bytes), "--max-pixels", str(settings.max_pixels)]
    command += ["--memory-bytes", str(settings.ingest_memory_bytes), "--seconds", str(settings.ingest_seconds)]
    # One thread and the system's allocator keep the address space small, which is what the limit counts.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, timeout=2 * settings.ingest_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise refusal([_over_limit()]) from None
    if ended.returncode == DISK_FULL:
        raise OSError(errno.ENOSPC, "no room for what an upload unpacks to")
    if ended.returncode == 1 and not report.is_file():
        # A defect of ours: the reason is for the log, which gets it with the request's id.
        raise CheckBroken(ended.stderr.decode(errors="replace")[-2000:])
    if ended.returncode not in (0, 1) or not report.is_file():
        raise refusal([_over_limit()])
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    if found["problems"]:
        raise refusal([LocatedFault(**problem) for problem in found["problems"]])
    return found


def refusal(faults: list[LocatedFault]) -> ServiceError:
    """The error that tells of these faults."""
    kind = TooLarge if any(fault.code in SIZE_CODES for fault in faults) else Invalid
    shown = "; ".join(fault.detail for fault in faults[:5]) + ("; and more" if len(faults) > 5 else "")
    return kind(f"the file cannot be used: {shown}", code="invalid_data", remedy="mend every fault", faults=faults)


def _over_limit() -> LocatedFault:
    detail = "the check of the file ran out of memory or time: it may unpack to far more than its size"
    return LocatedFault("/file", "check_limit", detail, "upload it in smaller parts", None)
