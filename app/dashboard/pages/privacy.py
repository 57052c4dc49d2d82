"""Privacy: what may be spent on each data set's rows and what was, the entries behind it, and the form of a budget."""

from typing import Annotated, Any

import orjson
from fastapi import Form, Query
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard.forms import number
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import faults_of, status_of
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Reader, Writer
from app.datasets import repository as datasets
from app.dependencies import Read, database
from app.errors import Invalid, ServiceError
from app.paging import After, Asked
from app.privacy import endpoints as privacy_api
from app.privacy.schemas import BudgetPut
from engine.errors import Fault
from engine.faults import from_validation

router = PanelRouter()
MOST, ENTRIES = 200, 50


@router.get("/privacy")
def page(
    request: Request,
    visitor: Reader,
    session: Read,
    dataset: Annotated[str, Query(max_length=64)] = "",
    after: After = None,
) -> Response:
    """The accounts, and one page of the ledger."""
    return _page(request, visitor, session, after, {"dataset": dataset})


@router.post("/privacy/budgets")
def put(
    request: Request,
    visitor: Writer,
    dataset: Annotated[str, Form(max_length=64)] = "",
    epsilon: Annotated[str, Form(max_length=40)] = "",
    delta: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Give a data set a budget, or show the form with what is wrong."""
    given = {"dataset": dataset, "epsilon": epsilon, "delta": delta}
    try:
        body = BudgetPut.model_validate({name: number(given[name]) for name in ("epsilon", "delta") if given[name]})
        privacy_api.put(request, visitor.identity, dataset, body)
    except ValidationError as error:
        faults, status = from_validation(error, BudgetPut), Invalid.status
    except ServiceError as error:
        faults, status = faults_of(error), status_of(error)
    else:
        return to("/privacy")
    with database(request).reading() as session:
        return _page(request, visitor, session, None, given, faults=faults, status=status)


def _page(
    request: Request,
    visitor: Visitor,
    session: Session,
    after: str | None,
    given: dict[str, str],
    *,
    faults: list[Fault] | None = None,
    status: int = 200,
) -> Response:
    identity = visitor.identity
    all_sets = datasets.page(session, identity.tenant, Asked(MOST, None, "desc"), None)[:MOST]
    accounts = _listed(privacy_api.budgets(request, identity, session, Asked(MOST, None, "desc")))
    ledger = orjson.loads(
        privacy_api.ledger(request, identity, session, Asked(ENTRIES, after, "desc"), None, None, None).body
    )
    return render(
        request,
        "privacy.html",
        status=status,
        accounts=accounts,
        entries=ledger["data"],
        datasets=all_sets,
        names={one.id: one.name or one.id for one in all_sets},
        given=given,
        faults=faults or [],
        next=f"/privacy?after={ledger['last_id']}#ledger" if ledger["has_more"] else None,
        first="/privacy#ledger" if after else None,
    )


def _listed(answer: Response) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(answer.body)["data"]
    return found
