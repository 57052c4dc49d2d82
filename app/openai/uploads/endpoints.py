"""The routes of uploads in parts, as OpenAI's clients know them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import Path as InPath
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.datasets.upload import Form, receive
from app.dependencies import Member, Router, database, settings, storage, turns
from app.draining import drain
from app.erasure import erase, storing
from app.errors import Conflict, ServiceError
from app.idempotency import Claim, IdempotencyHeader
from app.identity import Identity
from app.ids import new_id
from app.incoming import landing
from app.openai.files import service as files
from app.openai.files.endpoints import place, shown
from app.openai.files.schemas import ExpiresAfter, FileCreate
from app.openai.retries import claim_of, retried
from app.openai.uploads import service
from app.openai.uploads.schemas import (
    CANCELLED,
    CompleteWanted,
    PartShown,
    UploadShown,
    UploadWanted,
    part_json,
    upload_json,
)
from app.openai_tables.models import File
from app.unfit import refuse
from engine.errors import Fault

router = Router(prefix="/v1/uploads", tags=["openai"])
UploadId = Annotated[str, InPath(max_length=64, description="Id of an upload.")]
FORM_SCHEMA: dict[str, Any] = {
    "title": "PartForm",
    "type": "object",
    "additionalProperties": False,
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary", "description": "The bytes of the part."}},
}
FORM: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}}


@router.post("", response_model=UploadShown, summary="Begin an upload in parts")
async def create(request: Request, identity: Member, body: UploadWanted, key: IdempotencyHeader) -> Response:
    """It takes parts for an hour."""
    claim = claim_of(request, identity, key, await request.body(), datetime.now(UTC))
    wanted = service.wanted(settings(request), body)

    def make() -> Response:
        with database(request).session() as session:
            if first := claim.begin(session, identity.tenant):
                return first
            upload = service.create(session, identity, wanted)
            return claim.finish(session, identity.tenant, answer(request, upload_json(upload)))

    return await run_in_threadpool(make)


@router.post("/{upload_id}/parts", response_model=PartShown, summary="Send a part", openapi_extra=FORM)
async def add_part(request: Request, identity: Member, upload_id: UploadId, key: IdempotencyHeader) -> Response:
    """Parts may come in any order, several at a time."""
    arrived = datetime.now(UTC)

    def look() -> None:
        with database(request).reading() as session:
            service.pending(session, identity.tenant, upload_id)

    try:
        await run_in_threadpool(look)
    except ServiceError:
        await drain(request.stream())
        raise
    with landing(settings(request).data_dir) as folder:
        source = folder / "part"
        form = await receive(request, source, settings(request).max_upload_bytes, part="data")
        claim = claim_of(request, identity, key, f"{form.sha256}".encode(), arrived)
        return await run_in_threadpool(_add, request, identity, upload_id, source, form, claim)


def _add(request: Request, identity: Identity, upload_id: str, source: Path, form: Form, claim: Claim) -> Response:
    faults = list(form.faults)
    if not form.size_bytes:
        faults.append(Fault("/data", "missing", "the form has no bytes in `data`", "send them as the part `data`"))
    faults += [
        Fault(f"/{name[:80]}", "unknown_field", f"there is no field {name[:80]!r} here", "send `data` alone")
        for name in form.fields
    ]
    refuse(faults)
    with database(request).reading() as session:
        if first := claim.replay(session, identity.tenant):
            return first
        service.refuse_beyond(session, service.pending(session, identity.tenant, upload_id), form.size_bytes)
    part_id = new_id("part")
    with storing(database(request), storage(request), part_id) as store:
        stored = store(source)
        with database(request).session() as session:
            if first := claim.begin(session, identity.tenant):
                return first
            part = service.add_part(session, identity, upload_id, part_id, stored)
            return claim.finish(session, identity.tenant, answer(request, part_json(part)))


@router.post("/{upload_id}/complete", response_model=UploadShown, summary="Put the parts together")
async def complete(
    request: Request, identity: Member, upload_id: UploadId, body: CompleteWanted, key: IdempotencyHeader
) -> Response:
    """The file stands in the answer, checked as if it had come at once; what is refused leaves the upload pending."""
    claim = claim_of(request, identity, key, await request.body(), datetime.now(UTC))
    async with turns(request).of(identity.tenant):
        return await anyio.to_thread.run_sync(_complete, request, identity, upload_id, body, claim)


def _complete(request: Request, identity: Identity, upload_id: str, body: CompleteWanted, claim: Claim) -> Response:
    keys: list[str] = []
    with database(request).reading() as session:
        if first := claim.replay(session, identity.tenant):
            return first
        upload = service.pending(session, identity.tenant, upload_id)
    expires = None
    if upload.keep_seconds is not None:
        expires = ExpiresAfter(anchor="created_at", seconds=upload.keep_seconds)
    wanted = FileCreate.model_validate({"purpose": upload.purpose, "expires_after": expires})

    def answered(session: Session, file: File) -> Response:
        done, parts = service.complete(session, identity, upload_id, file.id)
        keys.extend(parts)
        return answer(request, upload_json(done, shown(session, identity, file)))

    with landing(settings(request).data_dir) as folder:
        source = folder / "upload"
        service.put_together(database(request), storage(request), identity.tenant, upload_id, body, source)
        new = files.NewFile(source, upload.filename, wanted)
        response = files.take(place(request), identity, new, claim, answered)
    erase(database(request), storage(request), keys)
    return response


@router.post("/{upload_id}/cancel", response_model=UploadShown, summary="Cancel an upload")
def cancel(request: Request, identity: Member, upload_id: UploadId) -> Response:
    """Its parts are erased; 409 once it has ended."""
    keys: list[str] = []
    with database(request).session() as session:
        try:
            upload, keys = service.cancel(session, identity, upload_id)
        except Conflict:
            upload = service.find(session, identity.tenant, upload_id)
            if not (retried(request) and upload.status == CANCELLED):
                raise
        shown_now = upload_json(upload)
    erase(database(request), storage(request), keys)
    return answer(request, shown_now)
