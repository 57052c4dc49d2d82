"""Text classification: from records to rows with a text and a label. Knows no file format."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.ingest.canonical import Canonical
from engine.ingest.findings import SPLITS, Choices, Findings, InvalidRow, Limits, Unusable
from engine.ingest.tables import Record, missing, read, too_many_rows
from engine.ingest.unpack import table_of, too_large

REQUIRED: list[str] = ["text", "label"]
OPTIONAL: list[str] = ["split", "group"]
DEFAULTS = {"text": "text", "label": "label", "split": "split", "group": "group"}
MOST_LABEL_CHARACTERS = 200


def ingest(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    """Read every row and note every fault; gives the rows that hold, not yet finished."""
    if kind == "zip":
        detail = "text classification takes no ZIP"
        raise Unusable("unknown_format", detail, "upload the JSONL, CSV or Parquet file itself", pointer="/task")
    columns = {**DEFAULTS, **choices.columns}
    names, records = read(table_of(kind, source), source, list(columns.values()), limits)
    asked = REQUIRED + [role for role in OPTIONAL if role in choices.columns]
    # A column called `split` is one, even where nobody says so: to ignore it would mix test rows into the training.
    used = asked if "split" in asked or "split" not in names else [*asked, "split"]
    lacking = [role for role in used if names and columns[role] not in names]
    for role in lacking:
        findings.file(missing(role, columns[role], names))
    if columns["text"] == columns["label"]:
        detail = f"text and label both come from the column {columns['text']!r}: the model would read its own answer"
        findings.file(Unusable("same_column", detail, "name the column of each", pointer="/text_column"))
    chosen = {role: columns[role] for role in used if role not in lacking}
    rows = Canonical(out, _schema(used), chosen)
    try:
        _collect(rows, of_one_mind(records, used), limits, findings)
    except Unusable as fault:
        findings.file(fault)
    return rows


def of_one_mind(records: Iterator[tuple[int, Record]], roles: Collection[str]) -> Iterator[tuple[int, Record]]:
    """The records; where `split` is none of the roles, one that has a split is no row.

    The columns of JSONL are those of its first rows, and a split that only later rows name would be lost on them.
    """
    for line, record in records:
        if "split" not in roles and not isinstance(record, InvalidRow) and record.get("split") is not None:
            detail = "the row has a 'split', and the first rows have none"
            yield line, InvalidRow("late_split", detail, "give every row a split, or none")
        else:
            yield line, record


def _schema(roles: list[str]) -> pa.Schema:
    optional = [(role, pa.string()) for role in OPTIONAL if role in roles]
    return pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.int32()), *optional])


def _collect(rows: Canonical, records: Iterator[tuple[int, Record]], limits: Limits, findings: Findings) -> None:
    size = 0
    for line, record in records:
        if rows.rows + findings.invalid_rows >= limits.max_rows:
            raise too_many_rows(limits)
        try:
            row = _row(record, rows.columns, limits)
        except InvalidRow as fault:
            findings.row(line, fault)
            continue
        held = len(row["text"].encode())
        size += held
        if size > limits.max_bytes:
            raise too_large(limits.max_bytes)
        rows.add(row, held)


def _row(record: Record, columns: dict[str, str], limits: Limits) -> dict[str, Any]:
    if isinstance(record, InvalidRow):
        raise record
    row = dict.fromkeys(("text", "label", "split", "group"))
    for role, column in columns.items():
        row[role] = READERS[role](record.get(column), column, limits)
    text = row["text"] or ""
    return {**row, "text": text, "label": row["label"] or "", "id": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _text(value: Any, column: str, limits: Limits) -> str:
    if value is None:
        raise InvalidRow("missing_text", f"the row has no {column!r}", "fill it in, or leave the row out")
    text = storable(value, column, limits)
    if not text.strip():
        raise InvalidRow("empty_text", f"{column!r} is empty", "fill it in, or leave the row out")
    return text


def _label(value: Any, column: str, limits: Limits) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        value = ""
    if isinstance(value, float | dict | list):
        raise InvalidRow("wrong_label", f"{column!r} is no class: {str(value)[:80]}", "send a string or a whole number")
    name = storable(str(value) if isinstance(value, int) else value, column, limits).strip()
    if not name:
        raise InvalidRow("missing_label", f"the row has no {column!r}", "fill it in, or leave the row out")
    if len(name) > MOST_LABEL_CHARACTERS:
        raise InvalidRow(
            "wrong_label", f"{column!r} has {len(name)} characters", "name the column that holds the class"
        )
    return name


def _split(value: Any, column: str, limits: Limits) -> str:
    name = storable(value, column, limits).strip().lower()
    if name not in SPLITS:
        raise InvalidRow("unknown_split", f"{column!r} is {name[:80]!r}", "write train, valid or test")
    return SPLITS[name]


def _group(value: Any, column: str, limits: Limits) -> str:
    name = storable(str(value) if isinstance(value, int) else value, column, limits)
    if not name:
        raise InvalidRow("missing_group", f"the row has no {column!r}", "fill it in, or leave the row out")
    return name


def storable(value: Any, column: str, limits: Limits) -> str:
    """The value, if it is a string that can be stored."""
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRow("not_utf8", f"{column!r} is not UTF-8", "save the file as UTF-8") from error
    if not isinstance(value, str):
        raise InvalidRow("wrong_type", f"{column!r} is no string: {str(value)[:80]}", "send a string")
    if "\x00" in value:
        raise InvalidRow("nul_character", f"{column!r} holds the character NUL", "leave it out")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidRow("not_utf8", f"{column!r} is not UTF-8", "save the file as UTF-8") from error
    if size > limits.max_cell_bytes:
        detail = f"{column!r} has {size} bytes, more than {limits.max_cell_bytes}"
        raise InvalidRow("cell_too_large", detail, "shorten it")
    return value


READERS: dict[str, Callable[[Any, str, Limits], str]] = {
    "text": _text,
    "label": _label,
    "split": _split,
    "group": _group,
}
