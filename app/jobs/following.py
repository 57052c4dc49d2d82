"""The routes by which a job is followed: its metrics, its events as a list and as a live stream, its deliveries."""

import re
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.answers import Encoded, answer, encoded, show
from app.database import Database
from app.dependencies import Read, Router, Viewer, database
from app.identity import Keys
from app.jobs import repository, service
from app.jobs.endpoints import JobId, watch
from app.jobs.looks import Look, latest, looks
from app.jobs.points import moment, series_of
from app.jobs.schemas import EventShown, PointShown, event_json
from app.jobs.series import thinned
from app.jobs.streaming import stream, while_known
from app.paging import Page, paged
from app.schemas import ListOf
from app.webhooks import repository as webhooks
from app.webhooks.models import WebhookDelivery
from app.webhooks.schemas import DeliveryShown, delivery_json

router = Router(prefix="/v1/jobs", tags=["jobs"])
FEWEST_POINTS, MOST_POINTS = 2, 100_000
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "A list, or a live stream."}
}


def metrics(
    request: Request,
    identity: Viewer,
    session: Read,
    job_id: JobId,
    wanted: Annotated[
        str | None, Query(alias="names", max_length=1000, description="Names, with commas between; default all.")
    ] = None,
    since_step: Annotated[int, Query(ge=0, le=2**53, description="Only points from this step on.")] = 0,
    max_points: Annotated[
        int | None, Query(ge=FEWEST_POINTS, le=MOST_POINTS, description="Most points a metric (LTTB).")
    ] = None,
) -> Response:
    """One series a metric; a metric that the run cannot have is absent."""
    chosen = [name.strip() for name in wanted.split(",") if name.strip()] if wanted is not None else None
    return show(request, _series(session, identity.tenant, job_id, chosen, since_step, max_points))


router.add_api_route(
    "/{job_id}/metrics",
    metrics,
    methods=["GET"],
    response_model=dict[str, list[PointShown]],
    summary="Read a job's metrics",
    route_class_override=Look,
)


async def _look(request: Request, job_id: str, query: re.Match[str]) -> Response | None:
    most = int(query["most"]) if query["most"] else None
    if most is not None and not FEWEST_POINTS <= most <= MOST_POINTS:
        return None
    return await looks(request).show(request, job_id, *_whole(request, job_id, most))


def _whole(request: Request, job_id: str, most: int | None) -> tuple[Hashable, Callable[[str], Encoded]]:
    """The view of all series of a job, and how it is read."""
    return ("metrics", most), partial(_all_series, database(request), job_id, most)


async def whole(request: Request, tenant: str, job_id: str, most: int) -> Encoded:
    """All series of a job, thinned, as they were last read if nothing has been written since.

    Raises:
        NotFound: the tenant has no such job.
    """
    view, read = _whole(request, job_id, most)
    found = await looks(request).find(tenant, job_id, view, read)
    return found if found is not None else await run_in_threadpool(read, tenant)


latest(router).shorten("(max_points=(?P<most>[0-9]{1,6}))?", _look)


def _all_series(database: Database, job_id: str, most: int | None, tenant: str) -> Encoded:
    with database.reading() as session:
        return _series(session, tenant, job_id, None, 0, most)


def _series(
    session: Session, tenant: str, job_id: str, names: Sequence[str] | None, since_step: int, most: int | None
) -> Encoded:
    service.find(session, tenant, job_id)
    series = series_of(session, job_id, names, since_step)
    return encoded(
        {
            name: [
                {"step": step, "value": value, "at": moment(at)}
                for step, value, at in (points if most is None else thinned(points, most))
            ]
            for name, points in series.items()
        }
    )


@router.get("/{job_id}/events", response_model=ListOf[EventShown], responses=STREAM, summary="Read a job's events")
def events(
    request: Request,
    identity: Viewer,
    session: Read,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=200, description="Most events of the page.")] = 100,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Only events past this id.")] = 0,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", max_length=20, description="Where a stream goes on.")
    ] = None,
) -> Response:
    """Oldest first. With `Accept: text/event-stream` a live stream, which ends with the job."""
    service.find(session, identity.tenant, job_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        last = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else after
        keys: Keys = request.app.state.keys
        live = stream(database(request), watch(request), identity.tenant, job_id, min(last, 2**31 - 1))
        return StreamingResponse(
            while_known(live, partial(keys.known, identity.key)),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
    rows = repository.events_after(session, job_id, after, limit + 1)
    shown = [event_json(row) for row in rows[:limit]]
    ids = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return answer(request, {"object": "list", "data": shown, "has_more": len(rows) > limit, **ids})


@router.get("/{job_id}/deliveries", response_model=ListOf[DeliveryShown], summary="List what was told of a job's end")
def deliveries(request: Request, identity: Viewer, session: Read, job_id: JobId, asked: Page) -> Response:
    """To the webhook of the job and to those of the tenant, with every attempt and when the next one is due."""
    service.find(session, identity.tenant, job_id)
    query = webhooks.deliveries(identity.tenant, job=job_id)
    return answer(request, paged(session.scalars(asked.cut(query, WebhookDelivery.id)).all(), asked, delivery_json))
