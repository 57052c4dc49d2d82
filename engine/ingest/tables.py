"""Reads JSONL, CSV and Parquet as records, one at a time, whatever the file's size. Knows no column by its role."""

import csv
import difflib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from engine.ingest.findings import InvalidRow, Limits, Unusable

BOM = b"\xef\xbb\xbf"
# The most that JSON's escapes can make of a byte.
ESCAPE_FACTOR = 6
BATCH_ROWS = 256
_QUOTED = re.compile(b'"[^"]*"?')
PEEKED_ROWS = 100

Record = dict[str, Any] | InvalidRow
"""A row by column name, or why it is none."""


def read(
    kind: str, path: Path, wanted: Sequence[str], limits: Limits
) -> tuple[list[str], Iterator[tuple[int, Record]]]:
    """The columns of the file and its rows, each with its line.

    A JSONL file has no list of columns: the names in its first rows stand for one.

    Raises:
        Unusable: the file cannot be read at all; the iterator raises it where it cannot be read on.
    """
    if kind == "parquet":
        return _parquet(path, wanted, limits)
    if kind == "csv":
        return _csv(path, limits)
    records = _jsonl(path, limits)
    first = list(itertools.islice(records, PEEKED_ROWS))
    names = {name: None for _, record in first if isinstance(record, dict) for name in record}
    return list(names), itertools.chain(first, records)


def missing(role: str, column: str, known: Sequence[str]) -> Unusable:
    """The fault of a column that is not there, with the nearest one that is."""
    lower = {name.lower(): name for name in known}
    near = [lower[name] for name in difflib.get_close_matches(column.lower(), list(lower), n=1, cutoff=0.5)]
    there = ", ".join(repr(name) for name in known[:20]) or "none"
    remedy = f"did you mean {role}_column={near[0]}?" if near else f"set {role}_column to one of the file's columns"
    return Unusable(
        "column_missing", f"there is no column {column!r}; the file has {there}", remedy, pointer=f"/{role}_column"
    )


class Lined(Protocol):
    """Whatever gives lines of bytes: a file, or a member of an archive."""

    def readline(self, size: int = -1, /) -> bytes:
        """The next line, or its first `size` bytes; b"" at the end."""


def lines(stream: Lined, most: int) -> Iterator[tuple[int, bytes | InvalidRow]]:
    """The lines of a file without ever holding one that is longer than `most` bytes."""
    number = 0
    while line := stream.readline(most + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(BOM)
        if len(line) > most and not line.endswith(b"\n"):
            while (rest := stream.readline(most)) and not rest.endswith(b"\n"):
                pass
            yield number, InvalidRow("cell_too_large", f"the line has more than {most} bytes", "shorten it")
        else:
            yield number, line


def _jsonl(path: Path, limits: Limits) -> Iterator[tuple[int, Record]]:
    with path.open("rb") as stream:
        yield from objects(stream, limits)


def objects(stream: Lined, limits: Limits) -> Iterator[tuple[int, Record]]:
    """The objects of JSONL, each with its line; blank lines are no rows."""
    for number, line in lines(stream, limits.max_cell_bytes * ESCAPE_FACTOR):
        if isinstance(line, InvalidRow):
            yield number, line
        elif line.strip():
            yield number, _object(line)


def _object(line: bytes) -> Record:
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_unambiguous)
    except InvalidRow as fault:
        return fault
    except UnicodeDecodeError as error:
        return InvalidRow("not_utf8", f"byte {error.start + 1} of the line is not UTF-8", "save the file as UTF-8")
    except json.JSONDecodeError as error:
        detail = f"the line is not JSON: {error.msg} at character {error.pos + 1}"
        return InvalidRow("malformed_row", detail, "write one JSON object a line")
    except RecursionError:
        return InvalidRow("malformed_row", "the line is nested too deep", "write one flat JSON object a line")
    except ValueError:
        return InvalidRow("malformed_row", "the line holds a number with too many digits", "write it as a string")
    if not isinstance(found, dict):
        return InvalidRow("malformed_row", "the line is JSON, yet no object", "write one JSON object a line")
    return found


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; Python's own would let the last of two equal keys win without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        detail = f"the line has {_doubled(key for key, _ in pairs)} more than once in one object"
        raise InvalidRow("duplicate_key", detail, "write each key once")
    return found


def _doubled(names: Iterable[str]) -> str:
    """The first names that come more than once, as they are told; counted in one go: a header may have very many."""
    doubled = [name for name, times in Counter(names).items() if times > 1]
    return ", ".join(repr(name[:80]) for name in doubled[:5])


def _csv(path: Path, limits: Limits) -> tuple[list[str], Iterator[tuple[int, Record]]]:
    csv.field_size_limit(limits.max_cell_bytes)
    rows = _csv_rows(path, limits)
    line, header = next(rows, (1, []))
    if isinstance(header, InvalidRow):
        raise Unusable(header.code, f"the header cannot be read: {header.detail}", header.remedy, line=line)
    if not header:
        raise Unusable("no_rows", "the file has no header", "write the column names in the first line", line=1)
    names = [name.strip() for name in header]
    if not all(map(_is_utf8, names)):
        raise Unusable("not_utf8", "the header is not UTF-8", "save the file as UTF-8", line=line)
    if doubled := _doubled(names):
        detail = f"the header names {doubled} more than once"
        raise Unusable("duplicate_column", detail, "give each column a name of its own", line=line)
    return names, _csv_records(names, rows)


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _csv_records(names: list[str], rows: Iterable[tuple[int, list[str] | InvalidRow]]) -> Iterator[tuple[int, Record]]:
    for line, row in rows:
        if isinstance(row, InvalidRow):
            yield line, row
        elif len(row) != len(names):
            detail = f"the row has {len(row)} fields, the header {len(names)}"
            yield line, InvalidRow("row_width", detail, "put fields with commas or line breaks in double quotes")
        else:
            yield line, dict(zip(names, row, strict=True))


def _csv_rows(path: Path, limits: Limits) -> Iterator[tuple[int, list[str] | InvalidRow]]:
    """Each record with the line it starts on; bytes that are not UTF-8 stay in it as lone surrogates."""
    too_long: list[InvalidRow] = []
    with path.open("rb") as stream:
        delimiter = _delimiter(stream)

        def text() -> Iterator[str]:
            for _, line in lines(stream, limits.max_cell_bytes * ESCAPE_FACTOR):
                if isinstance(line, InvalidRow):
                    too_long.append(line)
                    yield "\n"
                else:
                    yield line.decode("utf-8", "surrogateescape")

        reader = csv.reader(text(), delimiter=delimiter, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                too_long.clear()
                yield start, _not_csv(str(error))
                continue
            if too_long:
                yield start, too_long[0]
                too_long.clear()  # all of them were lines of this row
            elif row:
                yield start, row


def _not_csv(why: str) -> InvalidRow:
    if why.startswith("new-line character"):  # which tells a programmer how to open the file
        detail, remedy = "a line ends with a carriage return alone", "the line ends of Unix or Windows"
        return InvalidRow("malformed_row", f"not CSV: {detail}", f"save the file with {remedy}")
    return InvalidRow("malformed_row", f"not CSV: {why}", "see that every quote is closed")


def _delimiter(stream: IO[bytes]) -> str:
    """The comma, unless the header has none outside of quotes and has tabs or semicolons."""
    header = _QUOTED.sub(b"", stream.readline(1 << 16))
    stream.seek(0)
    return next((mark for mark in (",", "\t", ";") if mark.encode() in header), ",")


def _parquet(path: Path, wanted: Sequence[str], limits: Limits) -> tuple[list[str], Iterator[tuple[int, Record]]]:
    try:
        with pq.ParquetFile(path) as plain:
            names, types = plain.schema_arrow.names, plain.schema_arrow.types
        flat = [name for name, kind in zip(names, types, strict=True) if not pa.types.is_nested(kind)]
        # Read as dictionaries, repeated values stay small: that is how a file of a kilobyte comes to gigabytes.
        file = pq.ParquetFile(path, read_dictionary=[name for name in wanted if name in flat])
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _broken_parquet(error) from error
    if doubled := _doubled(names):
        detail = f"the file has {doubled} more than once"
        raise Unusable("duplicate_column", detail, "give each column a name of its own")
    if file.metadata.num_rows > limits.max_rows:
        raise too_many_rows(limits)
    return names, _parquet_records(file, [name for name in wanted if name in names])


def _parquet_records(file: pq.ParquetFile, wanted: list[str]) -> Iterator[tuple[int, Record]]:
    number = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
            columns = [_values(batch.column(name)) for name in wanted]
            for row in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(wanted, row, strict=True))
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError) as error:
        # Also a value that Python cannot hold: a date far out, a time zone that is none, two fields of one name.
        raise _broken_parquet(error, line=number + 1) from error


def _values(column: pa.Array) -> list[Any]:
    """The values as Python objects; one that a dictionary holds once is one object here, however many rows name it."""
    if not isinstance(column, pa.DictionaryArray):
        return _plain(column)
    held = _plain(column.dictionary)
    return [None if index is None else held[index] for index in column.indices.to_pylist()]


def _plain(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not check the bytes of its strings; kept as bytes, the row at fault is found later.
        values = column.cast(pa.binary()).to_pylist()
    return values


def _broken_parquet(error: Exception, line: int | None = None) -> Unusable:
    return Unusable("broken_parquet", f"the Parquet file cannot be read: {error}"[:500], "write it again", line=line)


def too_many_rows(limits: Limits) -> Unusable:
    """The fault of a file with more rows than it may have."""
    return Unusable("too_many_rows", f"the file has more than {limits.max_rows} rows", "upload it in smaller parts")
