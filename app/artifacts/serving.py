"""Answers with a stored file: whole, by range, resumed, or not again where the asker has it. Knows no table."""

import base64
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from app.answers import names
from app.artifacts.download import SpanResponse
from app.artifacts.ranges import Span, Unsatisfiable, span_of
from app.errors import NotFound, RangeNotSatisfiable
from app.schemas import PROBLEM
from app.storage import Storage

# Each file has a media type of its own; an empty schema stands for any bytes.
BYTES: dict[str, Any] = {"content": {"*/*": {}}}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", **BYTES},
    206: {"description": "The range that was asked for.", **BYTES},
    304: {"description": "The file is the one that If-None-Match names."},
    416: {"description": "No byte of the file lies in the range.", **PROBLEM},
}


class Served(Protocol):
    """A row that names a stored file."""

    @property
    def filename(self) -> str:
        """What it is called."""

    @property
    def sha256(self) -> str:
        """Of its content, in hex."""

    @property
    def size_bytes(self) -> int:
        """How large it is."""

    @property
    def storage_key(self) -> str:
        """Where it is stored."""


def served(request: Request, storage: Storage, file: Served, media_type: str, remedy: str) -> Response:
    """The file as an answer; the ETag is its sha256.

    Args:
        remedy: what to do where its bytes are gone.

    Raises:
        NotFound: they are.
        RangeNotSatisfiable: no byte of it lies in the range that is asked for.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
        "Content-Disposition": _disposition(file.filename),
        "X-Content-Type-Options": "nosniff",
    }
    if names(request, "if-none-match", etag):
        return Response(status_code=304, headers=headers)
    span = _span(request, file.size_bytes, etag)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size_bytes}"
    start, stop = (span.start, span.stop) if span is not None else (0, file.size_bytes)
    if not storage.has(file.storage_key):
        raise NotFound("the bytes of this file are gone", remedy=remedy)
    chunks = storage.open(file.storage_key, start, stop - start)
    return SpanResponse(chunks, stop - start, 200 if span is None else 206, headers, media_type)


def _span(request: Request, size_bytes: int, etag: str) -> Span | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        # The caller holds a part of another file (or names a date, and we keep none): send all of this one.
        return None
    try:
        return span_of(request.headers.get("range"), size_bytes)
    except Unsatisfiable:
        raise RangeNotSatisfiable(
            f"the file has {size_bytes} bytes",
            remedy="ask for bytes below that",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        ) from None


def _disposition(filename: str) -> str:
    plain = quote(filename)
    return f'attachment; filename="{filename}"' if plain == filename else f"attachment; filename*=UTF-8''{plain}"
