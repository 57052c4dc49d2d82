"""`python -m engine.ingest SOURCE --task TASK --out FILE --report FILE`: check an upload, store it, report on it.

Exit code 0: the file is stored; 1: it has problems and nothing is stored; anything else, and no report: 4, the disk is
full; 1 again, the check itself is broken; another one, a limit has ended the process.
"""

import argparse
import errno
import json
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.ingest import images, language, pairs, texts
from engine.ingest.canonical import Canonical
from engine.ingest.findings import DISK_FULL, ROLES, Choices, Findings, Limits, Unusable
from engine.ingest.unpack import kind_of, unpacked
from engine.orphans import die_with

OUT_OF_MEMORY = 3

Ingest = Callable[[str, Path, Path, Choices, Limits, Findings], Canonical]
TASKS: dict[str, Ingest] = {
    "text_classification": texts.ingest,
    "image_classification": images.ingest,
    "causal_lm": language.ingest,
    "text_image_pairs": pairs.ingest,
}


def ingest(
    source: Path, filename: str, task: str, out: Path, choices: Choices, limits: Limits
) -> tuple[Findings, Canonical | None]:
    """Check `source`; where it has no problems, the canonical file stands at `out`."""
    findings = Findings(choices)
    rows: Canonical | None = None
    scratch = out.with_suffix(".unpacked")
    try:
        plain = unpacked(source, scratch, limits.max_bytes)
        rows = TASKS[task](kind_of(plain, filename), plain, out, choices, limits, findings)
    except Unusable as fault:
        findings.file(fault)
    finally:
        scratch.unlink(missing_ok=True)
    findings.settle(rows.rows if rows is not None else 0)
    if rows is not None and not findings.problems and (too_few := _too_few(rows)):
        findings.file(too_few)
    if rows is not None and findings.problems:
        rows.abandon()
    elif rows is not None:
        rows.finish(task)
    return findings, rows


def _too_few(rows: Canonical) -> Unusable | None:
    if not rows.rows:
        return Unusable("no_rows", "the file has no rows", "upload a file with rows")
    if "label" in rows.schema.names and len(rows.counts) < 2:
        detail = f"every row has the label {rows.labels[0][:80]!r}"
        return Unusable("single_class", detail, "upload rows of at least two classes")
    return None


def report(findings: Findings, rows: Canonical | None) -> dict[str, Any]:
    """What was found, as the service stores it."""
    ready = rows is not None and not findings.problems
    return {
        "rows": rows.rows if rows is not None else 0,
        "splits": rows.splits if rows is not None else {},
        "columns": rows.columns if rows is not None else {},
        "labels": rows.labels if rows is not None else [],
        "label_counts": rows.label_counts if rows is not None else {},
        "skipped": findings.skipped() if ready else [],
        "problems": [asdict(problem) for problem in findings.problems],
    }


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(prog="python -m engine.ingest", description=ingest.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--filename", default="")
    for role in ROLES:
        parser.add_argument(f"--{role}-column")
    parser.add_argument("--invalid-rows", choices=("refuse", "skip"), default="refuse")
    parser.add_argument("--max-invalid-fraction", type=float, default=0.1)
    parser.add_argument("--max-rows", type=int, default=limits.max_rows)
    parser.add_argument("--max-bytes", type=int, default=limits.max_bytes)
    parser.add_argument("--max-cell-bytes", type=int, default=limits.max_cell_bytes)
    parser.add_argument("--max-pixels", type=int, default=limits.max_pixels)
    parser.add_argument("--memory-bytes", type=int, default=0, help="address space this process may use")
    parser.add_argument("--seconds", type=int, default=0, help="processor seconds this process may use")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives the exit code."""
    asked = _parser().parse_args(arguments)
    die_with()
    if asked.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (asked.memory_bytes, asked.memory_bytes))
    if asked.seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (asked.seconds, asked.seconds))
    columns = {role: column for role in ROLES if (column := getattr(asked, f"{role}_column")) is not None}
    choices = Choices(columns, asked.invalid_rows == "skip", asked.max_invalid_fraction)
    limits = Limits(asked.max_rows, asked.max_bytes, asked.max_cell_bytes, asked.max_pixels)
    filename = asked.filename or asked.source.name
    try:
        findings, rows = ingest(asked.source, filename, asked.task, asked.out, choices, limits)
        # ASCII: a fault may quote a lone surrogate of the file, which has no UTF-8.
        asked.report.write_text(json.dumps(report(findings, rows)), encoding="utf-8")
    except MemoryError:
        return OUT_OF_MEMORY
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        asked.report.unlink(missing_ok=True)
        return DISK_FULL
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
