"""Language modelling: from plain text, from records with a text, or from conversations to rows. Knows no tokens.

A plain text becomes a row for each block between blank lines; a block of more than `BLOCK_BYTES` is cut at ends of
lines, and a longer line behind a space. A conversation (OpenAI's `messages`) is kept as JSON text with its keys in one
order, and the file says so.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.ingest.canonical import Canonical
from engine.ingest.findings import Choices, Findings, InvalidRow, Limits, Unusable
from engine.ingest.tables import Record, lines, missing, read, too_many_rows
from engine.ingest.texts import READERS, of_one_mind, storable
from engine.ingest.unpack import too_large

BLOCK_BYTES = 2000
MESSAGES = "messages"
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_KNOWN = {"role", "content", "weight", "name"}
_TOOLS = ("tools", "functions")  # of a whole conversation, as OpenAI has them

Row = dict[str, Any] | InvalidRow


def ingest(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    """Read every row and note every fault; gives the rows that hold, not yet finished."""
    if kind == "zip":
        detail = "language modelling takes no ZIP"
        raise Unusable("unknown_format", detail, "upload the text, JSONL, CSV or Parquet file itself", pointer="/task")
    if kind == "text":
        return _plain(source, out, choices, limits, findings)
    return _records(kind, source, out, choices, limits, findings)


def _plain(source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    for role in choices.columns:
        _not_applicable(role, "a plain text has no columns", findings)
    rows = Canonical(out, _schema([]), {"text": "the text"})
    _collect(rows, ((line, _plain_row(text)) for line, text in blocks(source, limits)), limits, findings)
    return rows


def _records(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    if "label" in choices.columns:
        _not_applicable("label", "a row of a language model has no class", findings)
    names, records = read(kind, source, [*choices.columns.values(), "text", MESSAGES, "split", *_TOOLS], limits)
    text = choices.columns.get("text") or (MESSAGES if MESSAGES in names and "text" not in names else "text")
    columns = {"text": text} | {role: name for role, name in choices.columns.items() if role in ("split", "group")}
    if "split" in names:  # to ignore it would mix test rows into the training
        columns.setdefault("split", "split")
    for role in [role for role, column in columns.items() if names and column not in names]:
        findings.file(missing(role, columns.pop(role), names))
    records = of_one_mind(records, columns)
    first = next(records, None)
    found: Iterable[tuple[int, Record]] = () if first is None else chain([first], records)
    chat = first is not None and not isinstance(first[1], InvalidRow) and isinstance(first[1].get(text), list)
    rows = Canonical(out, _schema([role for role in columns if role != "text"]), columns, chat=chat or text == MESSAGES)
    _collect(rows, ((line, _row(record, columns, rows.chat, limits)) for line, record in found), limits, findings)
    return rows


def _not_applicable(role: str, detail: str, findings: Findings) -> None:
    findings.file(Unusable("not_applicable", detail, "leave it out", pointer=f"/{role}_column"))


def _schema(optional: list[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in ("id", "text", *optional)])


def _collect(rows: Canonical, found: Iterable[tuple[int, Row]], limits: Limits, findings: Findings) -> None:
    size = 0
    try:
        for line, row in found:
            if rows.rows + findings.invalid_rows >= limits.max_rows:
                raise too_many_rows(limits)
            if isinstance(row, InvalidRow):
                findings.row(line, row)
                continue
            held = len(row["text"].encode())
            size += held
            if size > limits.max_bytes:
                raise too_large(limits.max_bytes)
            rows.add({**row, "id": hashlib.sha256(row["text"].encode()).hexdigest()[:16]}, held)
    except Unusable as fault:
        findings.file(fault)


def _plain_row(text: str | InvalidRow) -> Row:
    return text if isinstance(text, InvalidRow) else {"text": text}


def blocks(source: Path, limits: Limits) -> Iterator[tuple[int, str | InvalidRow]]:
    """The rows of a plain text, each with the line that it starts on; an invalid line ends the row before it."""
    held: list[str] = []
    size = start = 0
    with source.open("rb") as stream:
        for number, line in lines(stream, limits.max_cell_bytes):
            text = _decoded(line)
            ends = isinstance(text, InvalidRow) or not text.strip()
            added = len(line) if isinstance(line, bytes) else 0
            if held and (ends or size + added > BLOCK_BYTES):
                yield start, "".join(held).rstrip("\n")
                held, size = [], 0
            if isinstance(text, InvalidRow):
                yield number, text
            elif not ends:
                *whole, rest = pieces(text)
                yield from ((number, one) for one in whole)
                start = start if held else number
                if rest.strip():
                    held.append(rest)
                    size += len(rest.encode())
    if held:
        yield start, "".join(held).rstrip("\n")


def pieces(line: str) -> list[str]:
    """A line in parts of at most `BLOCK_BYTES`, each cut behind the last space that fits, if there is one."""
    content, start, found = line.encode(), 0, list[str]()
    while len(content) - start > BLOCK_BYTES:
        stop = content.rfind(b" ", start, start + BLOCK_BYTES) + 1
        if stop <= start:
            stop = start + BLOCK_BYTES
            while content[stop] & 0xC0 == 0x80:  # inside a character
                stop -= 1
        part = content[start:stop].decode()
        if part.strip():
            found.append(part)
        start = stop
    return [*found, content[start:].decode()]


def _decoded(line: bytes | InvalidRow) -> str | InvalidRow:
    if isinstance(line, InvalidRow):
        return line
    if b"\x00" in line:
        return InvalidRow("nul_character", "the line holds the character NUL", "leave it out")
    try:
        return line.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        detail = f"byte {error.start + 1} of the line is not UTF-8"
        return InvalidRow("not_utf8", detail, "save the file as UTF-8")


def _row(record: Record, columns: Mapping[str, str], chat: bool, limits: Limits) -> Row:
    try:
        if isinstance(record, InvalidRow):
            return record
        if chat and (told := [name for name in _TOOLS if record.get(name)]):
            raise _not_served("the row", told)
        row: dict[str, Any] = {}
        for role, column in columns.items():
            value = record.get(column)
            row[role] = (
                _conversation(value, column, limits)
                if chat and role == "text"
                else READERS[role](value, column, limits)
            )
        return {"text": "", **row}
    except InvalidRow as fault:
        return fault


def _conversation(value: Any, column: str, limits: Limits) -> str:
    """The messages as JSON text: `role`, `content` and, where it is 0, `weight`."""
    if not isinstance(value, list) or not value:
        detail = f"{column!r} is no list of messages"
        raise InvalidRow("wrong_type", detail, 'write [{"role": "user", "content": "..."}, ...]')
    messages = [_message(one, f"{column}[{number}]", limits) for number, one in enumerate(value)]
    if not any(one["role"] == "assistant" and one.get("weight") != 0 for one in messages):
        detail = f"{column!r} has no turn of the assistant to learn from"
        raise InvalidRow("no_target", detail, "add a message of the role assistant, or leave the row out")
    return storable(json.dumps(messages, ensure_ascii=False, separators=(",", ":")), column, limits)


def _message(value: Any, place: str, limits: Limits) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRow("wrong_type", f"{place} is no object", "write a role and a content")
    unknown = sorted(str(key)[:80] for key, item in value.items() if key not in _KNOWN and item is not None)
    if unknown:
        raise _not_served(place, unknown)
    role = value.get("role")
    if not isinstance(role, str) or role not in ROLES:
        detail = f"{place} has the role {str(role)[:80]!r}"
        raise InvalidRow("wrong_role", detail, f"write one of {', '.join(ROLES)}")
    content = storable(_content(value.get("content"), place), place, limits)
    if role == "assistant" and not content.strip():
        raise InvalidRow("empty_text", f"{place} is empty", "fill it in, or leave the row out")
    weight = value.get("weight")
    if weight not in (None, 0, 1) or isinstance(weight, bool):
        raise InvalidRow("wrong_weight", f"{place} has the weight {str(weight)[:80]}", "write 0 or 1")
    return {"role": ROLES[role], "content": content, **({"weight": 0} if weight == 0 else {})}


def _not_served(place: str, names: Sequence[str]) -> InvalidRow:
    detail = f"{place} has {', '.join(names[:5])}, which is not served"
    return InvalidRow("unknown_field", detail, "leave tools and other fields out")


def _content(value: Any, place: str) -> Any:
    """The content; OpenAI's list of parts as one text."""
    if not isinstance(value, list):
        return value
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        raise InvalidRow("wrong_type", f"{place} has parts that are no text", "send text alone")
    return "".join(_part(part, place) for part in value)


def _part(part: Mapping[str, Any], place: str) -> str:
    """The text of one part of a message's content."""
    text = part.get("text")
    if not isinstance(text, str):
        raise InvalidRow("wrong_type", f"{place} has a part without a text", "send text alone")
    return text
