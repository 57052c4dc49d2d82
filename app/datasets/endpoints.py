"""The routes of data sets."""

from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import Path as InPath
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.database import let_go
from app.datasets import repository, service
from app.datasets.check import check
from app.datasets.schemas import DatasetCreate, DatasetShown, Preview, Task, dataset_json
from app.datasets.upload import Form, receive
from app.dependencies import Member, Read, Router, Viewer, database, settings, storage, turns
from app.erasure import erase, storing
from app.errors import Invalid, TooLarge
from app.idempotency import IdempotencyHeader, Once, once
from app.ids import new_id
from app.incoming import landing
from app.paging import Page, paged
from app.schemas import ListOf
from app.unfit import refusal

router = Router(prefix="/v1/datasets", tags=["datasets"])
DatasetId = Annotated[str, InPath(max_length=64, description="Id of a data set.")]

FORM_SCHEMA = {
    **DatasetCreate.model_json_schema(),
    "title": "DatasetForm",
    "required": ["file", "task"],
}
FORM_SCHEMA["properties"] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": "JSONL, CSV, Parquet, or a ZIP of [SPLIT/]CLASS/FILE; gzip or zstd around it is fine.",
    },
    **FORM_SCHEMA["properties"],
}
FORM: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}}


@router.post("", status_code=201, response_model=DatasetShown, summary="Upload a data set", openapi_extra=FORM)
async def create(request: Request, identity: Member, key: IdempotencyHeader) -> Response:
    """The file is checked before the answer: 201 with the data set ready, or every fault and nothing stored."""
    with landing(settings(request).data_dir) as folder:
        source = folder / "upload"
        form = await receive(request, source, settings(request).max_upload_bytes)
        claim = once(request, key, f"{form.filename} {form.sha256} {sorted(form.fields.items())}".encode())
        # As many checks at a time as there are cores; the others wait without holding a thread.
        async with turns(request).of(identity.tenant):
            return await anyio.to_thread.run_sync(store, request, identity, source, form, claim)


def store(request: Request, identity: Viewer, source: Path, form: Form, claim: Once) -> Response:
    """Check the file at `source` and keep its rows; the answer of `create`."""
    try:
        fields = service.wanted(form)
    except Invalid as error:
        raise _with_the_rows(request, source, form, error) from error
    with database(request).reading() as session:
        if first := claim.replay(session, identity.tenant):
            return first
    rows = source.with_suffix(".parquet")
    report = check(source, form.filename or "", fields, rows, settings(request))
    content: service.Content = request.app.state.content(rows)
    dataset_id = new_id("ds")
    with storing(database(request), storage(request), dataset_id) as keep:
        stored = keep(rows)
        with database(request).session() as session:
            if first := claim.begin(session, identity.tenant):
                return first
            dataset = service.add(session, identity, dataset_id, fields, report, stored, content)
            shown = answer(request, dataset_json(dataset), 201, {"Location": f"/v1/datasets/{dataset.id}"})
            return claim.finish(session, identity.tenant, shown)


def _with_the_rows(request: Request, source: Path, form: Form, error: Invalid) -> Invalid:
    """The refusal of a form with what is wrong with the rows, as far as the form says what they are."""
    fields = service.readable(form)
    try:
        if fields is not None:
            check(source, form.filename or "", fields, source.with_suffix(".parquet"), settings(request))
    except (Invalid, TooLarge) as found:
        return refusal([*error.faults, *found.faults])
    return error


@router.get("", response_model=ListOf[DatasetShown], summary="List data sets")
def page(
    request: Request,
    identity: Viewer,
    session: Read,
    asked: Page,
    task: Annotated[Task | None, Query(description="Only those for this task.")] = None,
) -> Response:
    """The caller's data sets."""
    return answer(request, paged(repository.page(session, identity.tenant, asked, task), asked, dataset_json))


@router.get("/{dataset_id}", response_model=DatasetShown, summary="Look at a data set")
def find(request: Request, identity: Viewer, session: Read, dataset_id: DatasetId) -> Response:
    """One data set."""
    return answer(request, dataset_json(service.find(session, identity, dataset_id)))


@router.delete("/{dataset_id}", status_code=204, response_class=Response, summary="Erase a data set")
def delete(request: Request, identity: Member, dataset_id: DatasetId) -> Response:
    """Erases the file too; 409 while a job that has not ended needs it."""
    readers: service.Readers = request.app.state.dataset_readers
    with database(request).session() as session:
        match(request, lambda: dataset_json(service.find(session, identity, dataset_id)))
        key = service.delete(session, identity, readers, dataset_id)
    erase(database(request), storage(request), [key])
    return Response(status_code=204)


@router.get("/{dataset_id}/preview", response_model=Preview, summary="See the first rows")
def preview(
    request: Request,
    identity: Viewer,
    session: Read,
    dataset_id: DatasetId,
    rows: Annotated[int, Query(ge=1, le=100, description="How many rows.")] = 10,
) -> Response:
    """Rows as the training will see them."""
    dataset = service.find(session, identity, dataset_id)
    let_go(session)
    first = service.preview(dataset, storage(request), rows)
    return answer(request, {"object": "preview", "dataset": dataset.id, "rows": first})
