"""Text-image pairs: from a ZIP of JSONL files and the pictures that they name to rows with both. Knows no labels."""

import hashlib
import itertools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import pyarrow as pa

from engine.ingest.canonical import PICTURE, Canonical, hash_of
from engine.ingest.findings import SPLITS, Choices, Findings, InvalidRow, Limits, Unusable
from engine.ingest.pictures import UNREADABLE, content, members_of, opened, picture
from engine.ingest.tables import PEEKED_ROWS, Record, missing, objects, too_many_rows
from engine.ingest.texts import READERS, of_one_mind, storable
from engine.ingest.unpack import too_large

LAYOUT = "SPLIT.jsonl, or one JSONL, at the top, and pictures beside it that its rows name"
ROLES_HERE = ("text", "split", "group")
SCHEMA = [
    ("id", pa.string()),
    ("text", pa.string()),
    ("image", pa.binary()),
    (PICTURE, pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("mode", pa.string()),
]
_TABLES = {".jsonl", ".ndjson"}

Members = Mapping[PurePosixPath, zipfile.ZipInfo]


class _Table(NamedTuple):
    """A JSONL member; `split` "" where its name says none."""

    name: str
    member: zipfile.ZipInfo
    split: str


def ingest(kind: str, source: Path, out: Path, choices: Choices, limits: Limits, findings: Findings) -> Canonical:
    """Read every row with its picture and note every fault; gives the rows that hold, not yet finished."""
    if kind != "zip":
        raise Unusable("unknown_format", f"pairs come as a ZIP, not {kind}", f"upload a ZIP with {LAYOUT}")
    if "label" in choices.columns:
        detail = "pairs have no labels"
        findings.file(Unusable("not_applicable", detail, "leave it out", pointer="/label_column"))
    with opened(source) as archive:
        members = _by_name(members_of(archive, findings, f"as in {LAYOUT}"), findings)
        tables = _tables(members)
        columns = _columns(archive, tables, choices, limits, findings)
        told = "split" in columns or any(table.split for table in tables)
        optional = [(role, pa.string()) for role in ("split", "group") if role in columns or (role == "split" and told)]
        rows = Canonical(out, pa.schema([*SCHEMA, *optional]), {**columns, "image": "image"})
        try:
            _collect(rows, archive, members, tables, columns, limits, findings)
        except Unusable as fault:
            findings.file(fault)
    return rows


def _by_name(members: Iterable[tuple[int, zipfile.ZipInfo]], findings: Findings) -> Members:
    """The members by path; a folder around all of them is looked through."""
    found: dict[PurePosixPath, tuple[int, zipfile.ZipInfo]] = {}
    for number, member in members:
        earlier, _ = found.setdefault(PurePosixPath(member.filename), (number, member))
        if earlier != number:
            detail = f"member {member.filename[:200]!r} has the name of member {earlier}"
            findings.file(Unusable("duplicate_member", detail, "give each file a name of its own", line=number))
    depth = 0
    while found and all(len(path.parts) > depth + 1 for path in found) and len({p.parts[depth] for p in found}) == 1:
        depth += 1
    return {PurePosixPath(*path.parts[depth:]): member for path, (_, member) in found.items()}


def _tables(members: Members) -> list[_Table]:
    """The JSONL files at the top: one, or one a split."""
    tops = [path for path in members if len(path.parts) == 1 and path.suffix.lower() in _TABLES]
    if not tops:
        raise Unusable("no_rows", "there is no JSONL at the top of the ZIP", f"lay it out with {LAYOUT}")
    found = [_Table(path.name, members[path], SPLITS.get(path.stem.lower(), "")) for path in sorted(tops)]
    if len(found) > 1 and (strange := [table.name for table in found if not table.split]):
        detail = f"{', '.join(map(repr, strange[:10]))} are no splits"
        raise Unusable("unknown_split", detail, "name the JSONL files train, valid and test, or give one alone")
    order = list(dict.fromkeys(SPLITS.values()))
    return sorted(found, key=lambda table: order.index(table.split) if table.split else 0)


def _columns(
    archive: zipfile.ZipFile, tables: list[_Table], choices: Choices, limits: Limits, findings: Findings
) -> dict[str, str]:
    """The field of each role: those asked for, the text, and `split` where the rows of a single file have it.

    Raises:
        Unusable: where no row at the beginning has a field that is needed.
    """
    first = itertools.islice(_records(archive, tables[0], limits), PEEKED_ROWS)
    names = list(dict.fromkeys(name for _, record in first if isinstance(record, dict) for name in record))
    columns = {"text": "text", **{role: name for role, name in choices.columns.items() if role in ROLES_HERE}}
    if not tables[0].split and "split" in names:
        columns.setdefault("split", "split")
    elif tables[0].split and columns.pop("split", ""):
        detail = f"the name of {tables[0].name} says the split"
        findings.file(Unusable("not_applicable", detail, "leave it out", pointer="/split_column"))
    if lacking := [missing(role, name, names) for role, name in columns.items() if names and name not in names]:
        for fault in lacking[1:]:
            findings.file(fault)
        raise lacking[0]
    return columns


def _records(archive: zipfile.ZipFile, table: _Table, limits: Limits) -> Iterator[tuple[int, Record]]:
    if table.member.flag_bits & 1:
        raise Unusable("encrypted", f"{table.name} is encrypted", "make the ZIP without a password")
    try:
        with archive.open(table.member) as stream:
            yield from objects(_Counted(stream, limits.max_bytes), limits)
    except UNREADABLE as error:
        raise Unusable("broken_zip", f"{table.name} cannot be unpacked: {error}", "make the ZIP again") from error


class _Counted:
    """Lines of a member up to a number of bytes: what the archive says of a size is not to be trusted."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most, self._read = stream, most, 0

    def readline(self, size: int = -1, /) -> bytes:
        """The next line, or its first `size` bytes."""
        line = self._stream.readline(size)
        self._read += len(line)
        if self._read > self._most:
            raise too_large(self._most)
        return line


def _collect(
    rows: Canonical,
    archive: zipfile.ZipFile,
    members: Members,
    tables: list[_Table],
    columns: Mapping[str, str],
    limits: Limits,
    findings: Findings,
) -> None:
    size = 0
    for table in tables:
        for line, record in of_one_mind(_records(archive, table, limits), {"split"} if table.split else columns):
            if rows.rows + findings.invalid_rows >= limits.max_rows:
                raise too_many_rows(limits)
            try:
                row = _row(record, columns, archive, members, limits)
            except InvalidRow as fault:
                findings.row(line, InvalidRow(fault.code, f"{table.name}: {fault.detail}", fault.remedy))
                continue
            text = row["text"].encode()
            size += len(text) + len(row["image"])
            if size > limits.max_bytes:
                raise too_large(limits.max_bytes)
            digest = hashlib.sha256(text + b"\0" + row["image"]).hexdigest()[:16]
            split = table.split or row.get("split")
            told = {"split": split, "id": digest, PICTURE: hash_of(row["image"])}
            rows.add({"group": None, **row, **told}, len(text) + len(row["image"]))


def _row(
    record: Record, columns: Mapping[str, str], archive: zipfile.ZipFile, members: Members, limits: Limits
) -> dict[str, Any]:
    if isinstance(record, InvalidRow):
        raise record
    row: dict[str, Any] = {role: READERS[role](record.get(name), name, limits) for role, name in columns.items()}
    if record.get("image") is None:
        raise InvalidRow("missing_image", "the row has no 'image'", "name its picture, or leave the row out")
    name = storable(record["image"], "image", limits)
    member = members.get(PurePosixPath(name))
    if member is None:
        raise InvalidRow("image_not_found", f"the ZIP holds no {name[:200]!r}", "name a picture of this ZIP")
    try:
        return {**row, **picture(content(archive, member, limits), limits)}
    except InvalidRow as fault:
        raise InvalidRow(fault.code, f"{name[:200]!r}: {fault.detail}", fault.remedy) from fault
