"""Reads a Range header (RFC 9110, section 14): which bytes of a file are asked for. Pure; knows no HTTP framework."""

import re
from dataclasses import dataclass

RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*", re.IGNORECASE)
MAX_HEADER_CHARACTERS = 200


class Unsatisfiable(Exception):
    """No byte of the file lies in the range."""


@dataclass(frozen=True)
class Span:
    """The bytes [start, stop) of a file."""

    start: int
    stop: int


def span_of(header: str | None, size: int) -> Span | None:
    """The one range that the header asks for; None where the whole file is the answer.

    A header that cannot be read, or that lists several ranges, is left aside, as the RFC allows: so no list of ranges
    can make the server work more than one whole download.

    Raises:
        Unsatisfiable: the range begins past the end of the file, or asks for its last 0 bytes.
    """
    found = RANGE.fullmatch(header) if header is not None and len(header) <= MAX_HEADER_CHARACTERS else None
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, stop = max(0, size - int(suffix)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Unsatisfiable
    return Span(start, stop)
