"""How an object becomes an answer: compact JSON, an ETag over its bytes, 304 where the asker has it already, and 412
where a write was meant for an older version of it.

Knows no domain: it is handed a plain JSON object.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.errors import PreconditionFailed
from app.moments import rfc3339


def timestamp(moment: datetime | None) -> str | None:
    """A moment as RFC 3339 in UTC with milliseconds, or None."""
    return rfc3339(moment) if moment is not None else None


def answer(
    request: Request, document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The document as JSON with an ETag; 304 for a GET that names this very ETag."""
    return show(request, encoded(document), status, headers)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as it goes over the wire."""

    content: bytes
    etag: str


def encoded(document: Mapping[str, Any]) -> Encoded:
    """The document as JSON."""
    content = orjson.dumps(document)
    return Encoded(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def show(request: Request, document: Encoded, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer with this document, as `answer` has it."""
    fields = {"ETag": document.etag, "Cache-Control": "private, no-cache"}
    if status == 200 and request.method in ("GET", "HEAD") and names(request, "if-none-match", document.etag):
        return Response(status_code=304, headers=fields)
    return Response(document.content, status, headers={**fields, **(headers or {})}, media_type="application/json")


def match(request: Request, current: Callable[[], Mapping[str, Any]]) -> None:
    """Hold a write against its `If-Match`; `current` gives the object as GET shows it, and is only asked if need be.

    Raises:
        PreconditionFailed: the header names no ETag of the object as it stands.
    """
    value = request.headers.get("if-match")
    if value is None:
        return
    # A write compares strongly (RFC 9110, 13.1.1): a weak ETag never matches.
    etag = encoded(current()).etag
    if not {"*", etag} & {entry.strip() for entry in value.split(",")}:
        raise PreconditionFailed(
            f"If-Match names another version than the present one, {etag}",
            remedy="read the object again, and send the ETag of that answer",
        )


def names(request: Request, header: str, etag: str) -> bool:
    """Whether the header (a list of ETags, weak ones included, or `*`) names this ETag."""
    value = request.headers.get(header)
    if value is None:
        return False
    listed = [entry.strip().removeprefix("W/") for entry in value.split(",")]
    return "*" in listed or etag in listed
