"""Runs side by side: one chart of a metric, what each came to, and the parameters in which they differ."""

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from app.artifacts import repository as artifacts
from app.dashboard import reading
from app.dashboard.pages.job import receipt_of
from app.dashboard.rendering import render
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Reader
from app.dependencies import Read
from app.errors import Invalid
from app.jobs import service
from app.jobs.schemas import job_json
from engine.baseline import PANEL
from engine.errors import Fault

router = PanelRouter()
MOST = 8
FIRST_CHOICE = ("valid_score", "valid_loss", "train_loss")


@router.get("/compare")
def page(
    request: Request,
    visitor: Reader,
    session: Read,
    chosen: Annotated[list[str], Query(alias="job", max_length=50)] = [],  # noqa: B006  # FastAPI copies it
    metric: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Up to eight jobs; one alone is a large chart of it."""
    ids = list(dict.fromkeys(chosen))
    if not 1 <= len(ids) <= MOST:
        fault = Fault("", "choice", f"{len(ids)} jobs are chosen", f"tick two to {MOST} jobs in the list")
        raise Invalid(fault.detail, faults=[fault])
    tenant, jobs, receipts = visitor.identity.tenant, list[dict[str, Any]](), list[dict[str, Any] | None]()
    for one in ids:
        job = job_json(service.find(session, tenant, one), artifacts.of_job(session, tenant, one))
        jobs.append(job)
        receipts.append(receipt_of(request, session, visitor, job))
    known = [name for name in PANEL if any(name in job["latest"] for job in jobs)]
    first = next((name for name in FIRST_CHOICE if name in known), known[0] if known else "")
    shown = metric if metric in known else first
    return render(
        request,
        "compare.html",
        jobs=jobs,
        receipts=receipts,
        known=[(name, reading.metric_title(name)) for name in known],
        shown=shown,
        titles=[job["name"] or job["id"] for job in jobs],
        title=reading.metric_title(shown) if shown else "",
        differing=reading.differing(jobs),
    )
