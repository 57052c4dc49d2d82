"""A job's page, what its script asks for, and the owner's moves. Every answer is the API's own."""

from typing import Annotated, Any

import orjson
from fastapi import Header, Path, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.answers import show
from app.artifacts import endpoints as artifacts_api
from app.artifacts import repository as artifacts
from app.dashboard import reading
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Reader, Writer
from app.database import let_go
from app.dependencies import Read, database, settings, storage
from app.errors import NotFound
from app.jobs import endpoints as jobs_api
from app.jobs import following, service
from app.jobs.schemas import job_json

router = PanelRouter()
JobId = Annotated[str, Path(max_length=64)]
LOG_BYTES = 32_000
MOVES = {name: getattr(jobs_api, name) for name in ("start", "cancel", "pause", "resume")}


@router.get("/jobs/{job_id}")
def page(request: Request, visitor: Reader, session: Read, job_id: JobId) -> Response:
    """All that is known of a job."""
    tenant = visitor.identity.tenant
    row = service.find(session, tenant, job_id)
    job = job_json(row, artifacts.of_job(session, tenant, job_id))
    receipt = receipt_of(request, session, visitor, job)
    let_go(session)
    log = service.log_tail(settings(request), storage(request), row, LOG_BYTES)
    return render(
        request,
        "job.html",
        job=job,
        events=row.events,
        live=reading.is_live(job),
        metrics=reading.metrics(job),
        pyramid=reading.pyramid(job["plan"], receipt),
        receipt=receipt,
        ladder=reading.ladder(receipt) if receipt else [],
        further=reading.further(receipt["quality"]) if receipt and receipt["quality"] else [],
        log=log.decode("utf-8", "replace"),
    )


def receipt_of(request: Request, session: Session, visitor: Visitor, job: dict[str, Any]) -> dict[str, Any] | None:
    """The job's receipt, if it has one."""
    if job["receipt_url"] is None:
        return None
    try:
        found = jobs_api.receipt(request, visitor.identity, session, job["id"])
    except NotFound:
        return None
    return reading.complete(orjson.loads(found.body))


@router.get("/jobs/{job_id}/metrics")
async def metrics(
    request: Request,
    visitor: Reader,
    job_id: JobId,
    wanted: Annotated[str | None, Query(alias="names", max_length=1000)] = None,
    since_step: Annotated[int, Query(ge=0, le=2**53)] = 0,
    max_points: Annotated[int, Query(ge=2, le=2_000)] = 400,
) -> Response:
    """The points of the charts, thinned here; what a page asks for first is kept until the job is written again."""
    if wanted is None and since_step == 0:
        return show(request, await following.whole(request, visitor.identity.tenant, job_id, max_points))

    def some() -> Response:
        with database(request).reading() as session:
            return following.metrics(request, visitor.identity, session, job_id, wanted, since_step, max_points)

    return await run_in_threadpool(some)


@router.get("/jobs/{job_id}/events")
def events(
    request: Request,
    visitor: Reader,
    session: Read,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The live stream."""
    return following.events(
        request=request,
        identity=visitor.identity,
        session=session,
        job_id=job_id,
        limit=100,
        after=after,
        last_event_id=last_event_id,
    )


@router.get("/jobs/{job_id}/logs")
def logs(request: Request, visitor: Reader, session: Read, job_id: JobId) -> Response:
    """The end of the log."""
    return jobs_api.logs(request, visitor.identity, session, job_id, LOG_BYTES)


@router.get("/artifacts/{artifact_id}/content")
def content(
    request: Request, visitor: Reader, session: Read, artifact_id: Annotated[str, Path(max_length=64)]
) -> Response:
    """The bytes of a file, always as a download."""
    return artifacts_api.content(request, visitor.identity, session, artifact_id)


@router.post("/jobs/{job_id}/delete")
def delete(request: Request, visitor: Writer, job_id: JobId) -> Response:
    """Erase a job that has ended."""
    jobs_api.delete(request, visitor.identity, job_id)
    return to("/jobs")


@router.post("/jobs/{job_id}/{move}")
def act(request: Request, visitor: Writer, job_id: JobId, move: str) -> Response:
    """Make one of the owner's moves."""
    if move not in MOVES:
        raise NotFound(f"a job cannot {move[:40]}", remedy=f"it can {', '.join(MOVES)}")
    MOVES[move](request, visitor.identity, job_id)
    return to(f"/jobs/{job_id}")
