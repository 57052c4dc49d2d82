"""The routes of webhooks and of what was sent to them."""

from typing import Annotated

from fastapi import Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.dependencies import Member, Read, Router, Viewer, Write, database, settings
from app.idempotency import Idempotent, Once
from app.identity import Identity
from app.paging import Page, paged
from app.schemas import ListOf
from app.webhooks import repository, service
from app.webhooks.models import WebhookDelivery, WebhookEndpoint
from app.webhooks.schemas import DeliveryShown, Submission, WebhookCreate, WebhookShown, delivery_json, webhook_json

router = Router(prefix="/v1", tags=["webhooks"])
WebhookId = Annotated[str, Path(max_length=64, description="Id of a webhook.")]
DeliveryId = Annotated[str, Path(max_length=64, description="Id of a delivery.")]


@router.post("/webhooks", status_code=201, response_model=WebhookShown, summary="Make a webhook")
async def create(request: Request, identity: Member, once: Idempotent, body: Submission) -> Response:
    """The secret stands in this answer only; a replay under the same Idempotency-Key has null in its place."""
    # A name's look-up may take seconds, for which no transaction should wait.
    wanted = await run_in_threadpool(service.check, body, private=settings(request).webhook_private_addresses)
    return await run_in_threadpool(_create, request, identity, once, wanted)


def _create(request: Request, identity: Identity, once: Once, body: WebhookCreate) -> Response:
    with database(request).session() as session:
        if first := once.begin(session, identity.tenant):
            return first
        endpoint = service.create(session, identity, body)
        headers = {"Location": f"/v1/webhooks/{endpoint.id}"}
        made = answer(request, {**webhook_json(endpoint), "secret": endpoint.secret}, 201, headers)
        replay = answer(request, {**webhook_json(endpoint), "secret": None}, 201, headers)
        return once.finish(session, identity.tenant, made, replay=bytes(replay.body))


@router.get("/webhooks", response_model=ListOf[WebhookShown], summary="List webhooks")
def page(request: Request, identity: Viewer, session: Read, asked: Page) -> Response:
    """The tenant's own; those of single jobs stand in the jobs."""
    rows = session.scalars(asked.cut(repository.own(identity.tenant), WebhookEndpoint.id)).all()
    return answer(request, paged(rows, asked, webhook_json))


@router.get("/webhooks/{webhook_id}", response_model=WebhookShown, summary="Look at a webhook")
def find(request: Request, identity: Viewer, session: Read, webhook_id: WebhookId) -> Response:
    """One webhook, without its secret."""
    return answer(request, webhook_json(service.find(session, identity.tenant, webhook_id)))


@router.delete("/webhooks/{webhook_id}", status_code=204, response_class=Response, summary="Delete a webhook")
def delete(request: Request, identity: Member, session: Write, webhook_id: WebhookId) -> Response:
    """Nothing is sent to it any more, also what waits."""
    match(request, lambda: webhook_json(service.find(session, identity.tenant, webhook_id)))
    service.delete(session, identity, webhook_id)
    return Response(status_code=204)


@router.get("/webhooks/{webhook_id}/deliveries", response_model=ListOf[DeliveryShown], summary="List deliveries")
def deliveries(request: Request, identity: Viewer, session: Read, webhook_id: WebhookId, asked: Page) -> Response:
    """What was sent to it, with every attempt, and what waits."""
    service.find(session, identity.tenant, webhook_id)
    query = repository.deliveries(identity.tenant, endpoint=webhook_id)
    return answer(request, paged(session.scalars(asked.cut(query, WebhookDelivery.id)).all(), asked, delivery_json))


@router.post(
    "/deliveries/{delivery_id}/redeliver", status_code=202, response_model=DeliveryShown, summary="Send it once more"
)
def redeliver(request: Request, identity: Member, session: Write, delivery_id: DeliveryId) -> Response:
    """Due at once, under the same `webhook-id`, with the whole schedule of retries before it."""
    return answer(request, delivery_json(service.redeliver(session, identity, delivery_id)), 202)
