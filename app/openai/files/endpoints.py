"""The routes of files, as OpenAI's clients know them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from fastapi import Path as InPath
from fastapi import Query
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.artifacts import repository as artifacts
from app.artifacts.serving import CONTENT, served
from app.database import let_go
from app.datasets.upload import Form, receive
from app.dependencies import Member, Read, Router, Viewer, database, settings, storage, turns
from app.erasure import erase
from app.errors import Invalid, TooLarge, Unparsable
from app.idempotency import Claim, IdempotencyHeader
from app.identity import Identity
from app.incoming import landing
from app.openai.files import repository, service
from app.openai.files.schemas import PURPOSES, RESULTS, FileCreate, FileDeleted, FileShown, file_json, result_json
from app.openai.pages import FilesPage
from app.openai.retries import claim_of
from app.openai_tables.models import File
from app.paging import paged
from app.schemas import ListOf
from app.unfit import refusal

router = Router(prefix="/v1/files", tags=["openai"])
FileId = Annotated[str, InPath(max_length=64, description="Id of a file, or of an artifact.")]
FORM_SCHEMA: dict[str, Any] = {
    "title": "FileForm",
    "type": "object",
    "additionalProperties": False,
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "To train on: JSONL of `messages`."},
        "purpose": {"type": "string", "enum": list(PURPOSES)},
        "expires_after[anchor]": {"type": "string", "const": "created_at"},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
}
FORM: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}}


def place(request: Request) -> service.Place:
    """The parts of the service that files take."""
    return service.Place(settings(request), database(request), storage(request), request.app.state.content)


def shown(session: Session, identity: Identity, file: File) -> dict[str, Any]:
    """A file with the data sets that were read from it."""
    return file_json(file, repository.datasets(session, identity.tenant, [file.id])[file.id])


@router.post("", response_model=FileShown, summary="Upload a file", openapi_extra=FORM)
async def create(request: Request, identity: Member, key: IdempotencyHeader) -> Response:
    """One to train on is read at once: `error` where lines do not fit, and 400 with each line where it is no JSONL."""
    arrived = datetime.now(UTC)
    with landing(settings(request).data_dir) as folder:
        source = folder / "upload"
        form = await receive(request, source, settings(request).max_upload_bytes)
        content = f"{form.filename} {form.sha256} {sorted(form.fields.items())}".encode()
        claim = claim_of(request, identity, key, content, arrived)
        # As many checks at a time as there are cores; the others wait without holding a thread.
        async with turns(request).of(identity.tenant):
            return await anyio.to_thread.run_sync(_take, request, identity, source, form, claim)


def _take(request: Request, identity: Identity, source: Path, form: Form, claim: Claim) -> Response:
    try:
        wanted = service.wanted(form)
    except Invalid as error:
        raise _with_the_rows(request, source, form, error) from error
    new = service.NewFile(source, service.plain_name(form.filename or ""), wanted)

    def answered(session: Session, file: File) -> Response:
        return answer(request, shown(session, identity, file))

    return service.take(place(request), identity, new, claim, answered)


def _with_the_rows(request: Request, source: Path, form: Form, error: Invalid) -> Invalid:
    """The refusal of a form with what is wrong with the file, as far as the form says what it is for."""
    purpose = form.fields.get("purpose")
    try:
        if purpose in PURPOSES and form.filename is not None:
            plainly = FileCreate.model_validate({"purpose": purpose})
            service.checked(place(request), service.NewFile(source, service.plain_name(form.filename), plainly))
    except (Unparsable, TooLarge) as found:
        return refusal([*error.faults, *found.faults])
    return error


@router.get("", response_model=ListOf[FileShown], summary="List files")
def page(
    request: Request,
    identity: Viewer,
    session: Read,
    asked: FilesPage,
    purpose: Annotated[
        Literal["assistants", "batch", "fine-tune", "fine-tune-results", "vision", "user_data", "evals"] | None,
        Query(description="Only those for this; `fine-tune-results`: what jobs have made."),
    ] = None,
) -> Response:
    """The caller's uploads, or what its jobs have made."""
    if purpose == RESULTS:
        return answer(request, paged(repository.results(session, identity.tenant, asked), asked, result_json))
    rows = repository.page(session, identity.tenant, asked, purpose)
    datasets = repository.datasets(session, identity.tenant, [row.id for row in rows])
    return answer(request, paged(rows, asked, lambda row: file_json(row, datasets[row.id])))


@router.get("/{file_id}", response_model=FileShown, summary="Look at a file")
def find(request: Request, identity: Viewer, session: Read, file_id: FileId) -> Response:
    """One file; an artifact's id shows the artifact as a file."""
    if artifact := artifacts.find(session, identity.tenant, file_id):
        return answer(request, result_json(artifact))
    return answer(request, shown(session, identity, service.find(session, identity.tenant, file_id)))


@router.delete("/{file_id}", response_model=FileDeleted, summary="Erase a file")
def delete(request: Request, identity: Member, file_id: FileId) -> Response:
    """Erases the data sets that were read from it too; 409 while a job that has not ended needs one."""
    with database(request).session() as session:
        file = service.find(session, identity.tenant, file_id)
        match(request, lambda: shown(session, identity, file))
        keys = service.delete(session, identity, request.app.state.dataset_readers, file)
    erase(database(request), storage(request), keys)
    return answer(request, {"id": file_id, "object": "file", "deleted": True})


@router.get("/{file_id}/content", responses=CONTENT, response_class=Response, summary="Download a file")
def content(request: Request, identity: Viewer, session: Read, file_id: FileId) -> Response:
    """The bytes as they came, whole or by `Range`; an artifact's id gives what the job has made."""
    if artifact := artifacts.find(session, identity.tenant, file_id):
        let_go(session)
        return served(request, storage(request), artifact, artifact.media_type, "run the job again")
    file = service.find(session, identity.tenant, file_id)
    let_go(session)
    return served(request, storage(request), file, "application/octet-stream", "upload it again")
