"""How an object becomes an answer: compact JSON, an ETag over its bytes, 304 where the asker has it already.

Knows no domain: it is handed a plain JSON object.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response


def timestamp(moment: datetime | None) -> str | None:
    """A moment as RFC 3339 in UTC with milliseconds, or None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(
    request: Request, document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """The document as JSON with an ETag; 304 for a GET that names this very ETag."""
    content = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    fields = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "Cache-Control": "private, no-cache"}
    if status == 200 and request.method in ("GET", "HEAD") and names(request, "if-none-match", fields["ETag"]):
        return Response(status_code=304, headers=fields)
    return Response(content, status, headers={**fields, **(headers or {})}, media_type="application/json")


def names(request: Request, header: str, etag: str) -> bool:
    """Whether the header (a list of ETags, weak ones included, or `*`) names this ETag."""
    value = request.headers.get(header)
    if value is None:
        return False
    listed = [entry.strip().removeprefix("W/") for entry in value.split(",")]
    return "*" in listed or etag in listed
