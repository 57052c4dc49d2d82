"""The rules of webhooks: who may be told, how many, and what to do about a delivery that failed. Knows no request."""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.errors import Conflict, Invalid, NotFound
from app.identity import Identity
from app.ids import new_id
from app.unfit import Unfit
from app.webhooks import repository
from app.webhooks.addresses import Refused, Target, Unresolved
from app.webhooks.models import WebhookDelivery, WebhookEndpoint
from app.webhooks.schemas import PREFIX, WebhookCreate
from engine.errors import Fault

MOST_ENDPOINTS = 20
SECRET_BYTES = 32


def address_faults(webhook: Any, pointer: str, *, private: bool) -> list[Fault]:
    """What is wrong with the address that the `url` of a webhook leads to; may take as long as a name's look-up.

    Of a webhook as it was sent: another fault of it hides none of these. What the URL's own form lacks, the schemas
    tell. A name that cannot be looked up now is let pass: it is checked again whenever something is sent.
    """
    url = webhook.get("url") if isinstance(webhook, Mapping) else None
    try:
        target = Target.of(url) if isinstance(url, str) else None
    except Refused:
        return []
    try:
        if target is not None:
            target.address(private=private)
    except Refused as refused:
        return [Fault(f"{pointer}/url", refused.code, str(refused), refused.remedy)]
    except Unresolved:
        return []
    return []


def check(body: WebhookCreate | Unfit[WebhookCreate], *, private: bool) -> WebhookCreate:
    """The endpoint that is wanted.

    Raises:
        Invalid: with every fault, that of an address that may not be called among them.
    """
    sent = body.body if isinstance(body, Unfit) else body.model_dump()
    faults = (body.faults if isinstance(body, Unfit) else []) + address_faults(sent, "", private=private)
    if faults or isinstance(body, Unfit):
        code = faults[0].code if len(faults) == 1 else None
        raise Invalid("; ".join(fault.detail for fault in faults), code=code, faults=faults)
    return body


def create(session: Session, identity: Identity, body: WebhookCreate) -> WebhookEndpoint:
    """Store an endpoint with a secret of its own.

    Raises:
        Conflict: the tenant has as many as it may.
    """
    if repository.count(session, identity.tenant) >= MOST_ENDPOINTS:
        raise Conflict(
            f"there are {MOST_ENDPOINTS} webhooks, and no more may be at a time",
            code="too_many_webhooks",
            remedy="delete one first",
        )
    endpoint = WebhookEndpoint(
        id=new_id("wh"),
        tenant=identity.tenant,
        job_id=None,
        url=body.url,
        secret=PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
        events=sorted(set(body.events or ())),
        created_at=datetime.now(UTC),
    )
    session.add(endpoint)
    audit(session, identity, "webhook.create", endpoint.id, {"host": Target.of(body.url).host})
    return endpoint


def find(session: Session, tenant: str, endpoint_id: str) -> WebhookEndpoint:
    """The tenant's endpoint, or NotFound."""
    endpoint = repository.find(session, tenant, endpoint_id)
    if endpoint is None:
        raise NotFound(f"no webhook {endpoint_id}", remedy="GET /v1/webhooks lists yours")
    return endpoint


def delete(session: Session, identity: Identity, endpoint_id: str) -> None:
    """Delete an endpoint with its deliveries: nothing is sent to it any more."""
    session.delete(find(session, identity.tenant, endpoint_id))
    audit(session, identity, "webhook.delete", endpoint_id)


def redeliver(session: Session, identity: Identity, delivery_id: str) -> WebhookDelivery:
    """Let a delivery be tried again from now, whether it was heard, was given up, or waits for its next attempt."""
    delivery = repository.again(session, identity.tenant, delivery_id)
    if delivery is None:
        raise NotFound(f"no delivery {delivery_id}", remedy="GET /v1/jobs/{id}/deliveries lists those of a job")
    audit(session, identity, "webhook.redeliver", delivery_id)
    return delivery
