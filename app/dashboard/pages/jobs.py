"""The list of jobs: filtered by state and kind, newest first, read page by page from the id of the last row."""

from typing import Any, get_args
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from app.artifacts import repository as artifacts
from app.dashboard.fields import Chosen
from app.dashboard.rendering import render
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Reader
from app.dependencies import Read
from app.jobs import repository
from app.jobs.schemas import job_json
from app.jobs.states import State
from app.paging import After
from engine.spec import Kind

router = PanelRouter()
ROWS = 50


@router.get("/jobs")
def page(
    request: Request,
    visitor: Reader,
    session: Read,
    state: Chosen[State] = None,
    kind: Chosen[Kind] = None,
    after: After = None,
) -> Response:
    """One page of the tenant's jobs."""
    chosen = {name: value for name, value in (("state", state), ("kind", kind)) if value is not None}
    tenant = visitor.identity.tenant
    rows = repository.listed(session, tenant, filters=chosen, metadata={}, limit=ROWS + 1, after=after, descending=True)
    found = artifacts.of_jobs(session, tenant, [job.id for job in rows])
    jobs = [job_json(job, found.get(job.id, ())) for job in rows[:ROWS]]
    return render(
        request,
        "jobs.html",
        jobs=jobs,
        state=state,
        kind=kind,
        states=list(State),
        kinds=get_args(Kind),
        next=_address(chosen, jobs[-1]["id"]) if len(rows) > ROWS else None,
        first=_address(chosen, None) if after else None,
    )


def _address(chosen: dict[str, Any], after: str | None) -> str:
    query = chosen | ({"after": after} if after else {})
    return "/jobs" + (f"?{urlencode(query)}" if query else "")
