"""The routes of the privacy ledger."""

from typing import Annotated

from fastapi import Path, Query
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.dependencies import Member, Read, Router, Viewer, database
from app.errors import Invalid, NotFound
from app.paging import Page, paged
from app.privacy import repository, service
from app.privacy.schemas import BudgetShown, BudgetWanted, EntryShown, budget_json, entry_json
from app.schemas import ListOf
from engine.errors import Fault

router = Router(prefix="/v1/privacy", tags=["privacy"])
Id = Annotated[str, Path(max_length=64, description="Id of a data set.")]


@router.get("/ledger", response_model=ListOf[EntryShown], summary="List what was spent")
def ledger(
    request: Request,
    identity: Viewer,
    session: Read,
    asked: Page,
    job: Annotated[str | None, Query(max_length=64, description="Only what this job spent.")] = None,
    dataset: Annotated[str | None, Query(max_length=64, description="Only what these rows were spent on.")] = None,
    population: Annotated[str | None, Query(max_length=64, description="Only of this population.")] = None,
) -> Response:
    """An entry a group of equal releases; it stays when its job and its data set are deleted."""
    filters = {"job_id": job, "subject": population}
    if dataset is not None and population is not None:
        detail = "an entry is of a data set or of a population, never of both"
        raise Invalid(detail, faults=[Fault("", "one_of_two", detail, "send `dataset` or `population`")])
    if dataset is not None:
        filters["subject"] = _subject(session, identity.tenant, dataset)
    given = {name: value for name, value in filters.items() if value is not None}
    rows = repository.entries_page(session, identity.tenant, asked, given)
    datasets = repository.datasets_of(session, identity.tenant, {row.subject for row in rows})
    return answer(request, paged(rows, asked, lambda row: entry_json(row, datasets.get(row.subject, ()))))


@router.get("/budgets", response_model=ListOf[BudgetShown], summary="List budgets, what is spent and what is left")
def budgets(request: Request, identity: Viewer, session: Read, asked: Page) -> Response:
    """An account a subject that has a budget or was read by a job; copies and parts of its rows share it."""
    rows = repository.accounts_page(session, identity.tenant, asked)
    datasets = repository.datasets_of(session, identity.tenant, {row.subject for row in rows})
    entries = {row.subject: repository.entries_on(session, identity.tenant, row.subject) for row in rows[: asked.limit]}
    shown = paged(rows, asked, lambda row: budget_json(row, entries[row.subject], datasets.get(row.subject, ())))
    return answer(request, shown)


@router.put("/budgets/{dataset_id}", response_model=BudgetShown, summary="Give a data set a budget")
def put(request: Request, identity: Member, dataset_id: Id, body: BudgetWanted) -> Response:
    """For its rows, wherever they are uploaded. To loosen one that something was spent of takes an admin."""
    with database(request).session() as session:
        service.set_budget(session, identity, dataset_id, body, request.app.state.dataset_readers)
    with database(request).reading() as session:
        subject = _subject(session, identity.tenant, dataset_id)
        account = repository.account(session, identity.tenant, subject)
        if account is None:
            raise NotFound(f"no data set {dataset_id}", remedy="GET /v1/datasets lists yours")
        entries = repository.entries_on(session, identity.tenant, subject)
        datasets = repository.datasets_of(session, identity.tenant, [subject]).get(subject, [])
        return answer(request, budget_json(account, entries, datasets, dataset_id))


def _subject(session: Session, tenant: str, dataset_id: str) -> str:
    lineage = repository.lineage(session, tenant, dataset_id)
    if lineage is None:
        raise NotFound(f"no data set {dataset_id}", remedy="GET /v1/datasets lists yours")
    return lineage
