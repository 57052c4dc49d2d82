"""The routes of artifacts: what they are, and their bytes."""

import base64
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, names
from app.artifacts import repository
from app.artifacts.download import SpanResponse
from app.artifacts.models import Artifact
from app.artifacts.ranges import Span, Unsatisfiable, span_of
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.dependencies import Read, Router, Viewer, storage
from app.errors import NotFound, RangeNotSatisfiable
from app.schemas import PROBLEM

router = Router(prefix="/v1/artifacts", tags=["artifacts"])
ArtifactId = Annotated[str, Path(max_length=64, description="Id of an artifact.")]
# Each artifact has a media type of its own; an empty schema stands for any bytes.
BYTES: dict[str, Any] = {"content": {"*/*": {}}}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", **BYTES},
    206: {"description": "The range that was asked for.", **BYTES},
    304: {"description": "The file is the one that If-None-Match names."},
    416: {"description": "No byte of the file lies in the range.", **PROBLEM},
}


@router.get("/{artifact_id}", response_model=ArtifactShown, summary="Look at an artifact")
def find(request: Request, identity: Viewer, session: Read, artifact_id: ArtifactId) -> Response:
    """One artifact; its bytes are at `url`."""
    return answer(request, artifact_json(_found(repository.find(session, identity.tenant, artifact_id), artifact_id)))


@router.get("/{artifact_id}/content", responses=CONTENT, response_class=Response, summary="Download an artifact")
def content(request: Request, identity: Viewer, session: Read, artifact_id: ArtifactId) -> Response:
    """The bytes, whole or by `Range`; the ETag is the content's sha256, so `If-Range` resumes safely."""
    artifact = _found(repository.find(session, identity.tenant, artifact_id), artifact_id)
    etag = f'"{artifact.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(artifact.sha256)).decode()}:",
        "Content-Disposition": _disposition(artifact.filename),
        "X-Content-Type-Options": "nosniff",
    }
    if names(request, "if-none-match", etag):
        return Response(status_code=304, headers=headers)
    span = _span(request, artifact, etag)
    if span is not None:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{artifact.size_bytes}"
    start, stop = (span.start, span.stop) if span is not None else (0, artifact.size_bytes)
    if not storage(request).has(artifact.storage_key):
        raise NotFound("the file of this artifact is gone", remedy="run the job again")
    chunks = storage(request).open(artifact.storage_key, start, stop - start)
    return SpanResponse(chunks, stop - start, 200 if span is None else 206, headers, artifact.media_type)


def _span(request: Request, artifact: Artifact, etag: str) -> Span | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() != etag:
        # The caller holds a part of another file (or names a date, and we keep none): send all of this one.
        return None
    try:
        return span_of(request.headers.get("range"), artifact.size_bytes)
    except Unsatisfiable:
        raise RangeNotSatisfiable(
            f"the file has {artifact.size_bytes} bytes",
            remedy="ask for bytes below that",
            headers={"Content-Range": f"bytes */{artifact.size_bytes}"},
        ) from None


def _found(artifact: Artifact | None, artifact_id: str) -> Artifact:
    if artifact is None:
        raise NotFound(f"no artifact {artifact_id}", remedy="GET /v1/jobs/{id}/artifacts lists those of a job")
    return artifact


def _disposition(filename: str) -> str:
    plain = quote(filename)
    return f'attachment; filename="{filename}"' if plain == filename else f"attachment; filename*=UTF-8''{plain}"
