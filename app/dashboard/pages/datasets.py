"""Data sets: the list with the form of an upload, and the page of one."""

from typing import Annotated, Any

import anyio
from fastapi import Path
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard.fields import Chosen
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import faults_of, status_of
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Reader, Writer
from app.database import let_go
from app.datasets import endpoints as datasets_api
from app.datasets import repository, service
from app.datasets.schemas import Task, dataset_json
from app.datasets.upload import Form, receive
from app.dependencies import Read, database, settings, storage, turns
from app.errors import ServiceError
from app.idempotency import once
from app.incoming import landing
from app.paging import After, Asked
from app.privacy import repository as ledger
from app.privacy.schemas import budget_json
from engine.errors import EngineError, Fault

router = PanelRouter()
ROWS, PREVIEWED = 50, 8
DatasetId = Annotated[str, Path(max_length=64)]


@router.get("/datasets")
def page(request: Request, visitor: Reader, session: Read, task: Chosen[Task] = None, after: After = None) -> Response:
    """One page of the tenant's data sets, and the form of an upload."""
    return _listed(request, visitor, session, task, after)


@router.post("/datasets")
async def upload(request: Request, visitor: Writer) -> Response:
    """Take a file in; where it is refused, the list with every fault."""
    form = Form()
    try:
        with landing(settings(request).data_dir) as folder:
            form = await receive(request, folder / "upload", settings(request).max_upload_bytes)
            # A form sends the empty text for what was left open.
            form.fields = {name: text for name, text in form.fields.items() if text.strip()}
            async with turns(request).of(visitor.identity.tenant):
                made = await anyio.to_thread.run_sync(
                    datasets_api.store, request, visitor.identity, folder / "upload", form, once(request, None, b"")
                )
    except (ServiceError, EngineError) as error:
        return await run_in_threadpool(_refused, request, visitor, form, error)
    return to(f"/datasets/{made.headers['location'].rpartition('/')[2]}")


def _refused(request: Request, visitor: Visitor, form: Form, error: ServiceError | EngineError) -> Response:
    faults, status = faults_of(error), status_of(error)
    with database(request).reading() as session:
        return _listed(request, visitor, session, None, None, given=form.fields, faults=faults, status=status)


def _listed(
    request: Request,
    visitor: Visitor,
    session: Session,
    task: Task | None,
    after: str | None,
    *,
    given: dict[str, str] | None = None,
    faults: list[Fault] | None = None,
    status: int = 200,
) -> Response:
    rows = repository.page(session, visitor.identity.tenant, Asked(ROWS, after, "desc"), task)
    kept = f"&task={task}" if task else ""
    return render(
        request,
        "datasets.html",
        status=status,
        datasets=[dataset_json(row) for row in rows[:ROWS]],
        task=task,
        given=given or {},
        faults=faults or [],
        most=settings(request).max_upload_bytes,
        next=f"/datasets?after={rows[ROWS - 1].id}{kept}" if len(rows) > ROWS else None,
        first=f"/datasets?{kept.lstrip('&')}" if after else None,
    )


@router.get("/datasets/{dataset_id}")
def one(request: Request, visitor: Reader, session: Read, dataset_id: DatasetId) -> Response:
    """All that is known of a data set, its first rows among it."""
    dataset = service.find(session, visitor.identity, dataset_id)
    budget = _budget(session, visitor, dataset.lineage)
    let_go(session)
    return render(
        request,
        "dataset.html",
        dataset=dataset_json(dataset),
        rows=_rows(service.preview(dataset, storage(request), PREVIEWED)),
        budget=budget,
    )


def _budget(session: Session, visitor: Visitor, subject: str) -> dict[str, Any] | None:
    account = ledger.account(session, visitor.identity.tenant, subject)
    if account is None:
        return None
    return budget_json(account, ledger.entries_on(session, visitor.identity.tenant, subject), ())


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What people look for in rows: no ids, and the class by its name."""
    shown = [{"class" if name == "label_name" else name: value for name, value in row.items()} for row in rows]
    left_out = ("id", "label", "cut")
    return [{name: value for name, value in row.items() if name not in left_out and value is not None} for row in shown]


@router.post("/datasets/{dataset_id}/delete")
def delete(request: Request, visitor: Writer, dataset_id: DatasetId) -> Response:
    """Erase a data set that no job needs any more."""
    datasets_api.delete(request, visitor.identity, dataset_id)
    return to("/datasets")
