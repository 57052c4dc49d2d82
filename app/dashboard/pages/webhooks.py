"""Webhooks: who is told of the ends of jobs, a new one whose secret is shown once, and what was sent to each."""

from typing import Annotated, Any

import orjson
from fastapi import Path
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.dashboard.forms import Given
from app.dashboard.rendering import render, to
from app.dashboard.routing import PanelRouter
from app.dashboard.sending import claim, faults_of, new_token, status_of
from app.dashboard.sessions import Visitor
from app.dashboard.visitors import Reader, Writer
from app.dependencies import Read, Write, database
from app.errors import Invalid, ServiceError
from app.paging import After, Asked
from app.webhooks import endpoints as webhooks_api
from app.webhooks.schemas import WebhookCreate
from engine.errors import Fault
from engine.faults import from_validation

router = PanelRouter()
MOST, ROWS = 50, 50
EVENTS = ("job.succeeded", "job.failed", "job.cancelled")
WebhookId = Annotated[str, Path(max_length=64)]


@router.get("/webhooks")
def page(request: Request, visitor: Reader) -> Response:
    """The tenant's webhooks; those of single jobs stand with the jobs."""
    return _page(request, visitor)


@router.post("/webhooks")
async def create(request: Request, visitor: Writer) -> Response:
    """Make a webhook. Its secret stands in this page alone."""
    given = Given((name, str(text)) for name, text in (await request.form()).multi_items())
    wanted = {"url": given.text("url"), "events": given.texts("events") or None}
    try:
        body = WebhookCreate.model_validate(wanted)
        answer = await webhooks_api.create(request, visitor.identity, claim(request, given.text("token"), wanted), body)
    except ValidationError as error:
        faults, status = from_validation(error, WebhookCreate), Invalid.status
    except ServiceError as error:
        faults, status = faults_of(error), status_of(error)
    else:
        return await run_in_threadpool(_page, request, visitor, made=orjson.loads(answer.body), status=201)
    return await run_in_threadpool(_page, request, visitor, given=given, faults=faults, status=status)


@router.get("/webhooks/{webhook_id}")
def one(
    request: Request,
    visitor: Reader,
    session: Read,
    webhook_id: WebhookId,
    after: After = None,
) -> Response:
    """What was sent to it, with every attempt, and what waits."""
    webhook = orjson.loads(webhooks_api.find(request, visitor.identity, session, webhook_id).body)
    asked = Asked(ROWS, after, "desc")
    sent = orjson.loads(webhooks_api.deliveries(request, visitor.identity, session, webhook_id, asked).body)
    return render(
        request,
        "webhook.html",
        webhook=webhook,
        deliveries=sent["data"],
        next=f"/webhooks/{webhook_id}?after={sent['last_id']}" if sent["has_more"] else None,
        first=f"/webhooks/{webhook_id}" if after else None,
    )


@router.post("/webhooks/{webhook_id}/delete")
def delete(request: Request, visitor: Writer, session: Write, webhook_id: WebhookId) -> Response:
    """Delete a webhook: nothing is sent to it any more."""
    webhooks_api.delete(request, visitor.identity, session, webhook_id)
    return to("/webhooks")


@router.post("/webhooks/{webhook_id}/redeliver/{delivery_id}")
def redeliver(
    request: Request,
    visitor: Writer,
    session: Write,
    webhook_id: WebhookId,
    delivery_id: Annotated[str, Path(max_length=64)],
) -> Response:
    """Send something once more."""
    webhooks_api.redeliver(request, visitor.identity, session, delivery_id)
    return to(f"/webhooks/{webhook_id}")


def _page(
    request: Request,
    visitor: Visitor,
    *,
    given: Given | None = None,
    made: dict[str, Any] | None = None,
    faults: list[Fault] | None = None,
    status: int = 200,
) -> Response:
    with database(request).reading() as session:
        listed = webhooks_api.page(request, visitor.identity, session, Asked(MOST, None, "desc"))
    return render(
        request,
        "webhooks.html",
        status=status,
        webhooks=orjson.loads(listed.body)["data"],
        made=made,
        given=given or Given(),
        faults=faults or [],
        events=EVENTS,
        token=new_token(),
    )
