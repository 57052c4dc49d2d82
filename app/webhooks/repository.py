"""Every query on endpoints and deliveries. Each write of a delivery is one compare-and-set. Knows no HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from app.database import database_now
from app.webhooks.models import PENDING, WebhookDelivery, WebhookEndpoint

_UNSYNCHRONIZED = {"synchronize_session": False, "populate_existing": True}


@dataclass(frozen=True)
class Message:
    """A delivery that was claimed for an attempt; `attempt` fences what is written of it."""

    id: str
    attempt: int
    tries: int
    url: str
    secret: str
    body: str
    log: Sequence[Mapping[str, Any]]


def own(tenant: str) -> Select[WebhookEndpoint]:
    """The tenant's endpoints, those of single jobs apart."""
    return select(WebhookEndpoint).where(WebhookEndpoint.tenant == tenant, WebhookEndpoint.job_id.is_(None))


def count(session: Session, tenant: str) -> int:
    """How many endpoints the tenant has."""
    return session.scalar(select(func.count()).select_from(own(tenant).subquery())) or 0


def find(session: Session, tenant: str, endpoint_id: str) -> WebhookEndpoint | None:
    """The tenant's endpoint with this id."""
    return session.scalars(own(tenant).where(WebhookEndpoint.id == endpoint_id)).one_or_none()


def deliveries(tenant: str, *, endpoint: str | None = None, job: str | None = None) -> Select[WebhookDelivery]:
    """The tenant's deliveries to an endpoint, or of a job."""
    query = select(WebhookDelivery).where(WebhookDelivery.tenant == tenant)
    if endpoint is not None:
        query = query.where(WebhookDelivery.endpoint_id == endpoint)
    return query if job is None else query.where(WebhookDelivery.job_id == job)


def again(session: Session, tenant: str, delivery_id: str) -> WebhookDelivery | None:
    """Let a delivery be due now, with the whole schedule before it; None: there is no such delivery."""
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.tenant == tenant)
        .values(state=PENDING, tries=0, next_try=database_now())
    )
    session.execute(statement.execution_options(synchronize_session=False))
    return session.scalars(
        select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.tenant == tenant)
    ).one_or_none()


def due(session: Session, limit: int) -> Sequence[str]:
    """Ids of up to `limit` deliveries that are due, of every tenant in turn: nobody waits for all that another has due.

    Of a tenant new ones come first, so that none waits for those nobody answers.
    """
    order = (WebhookDelivery.tries, WebhookDelivery.next_try)
    turn = func.row_number().over(partition_by=WebhookDelivery.tenant, order_by=order)
    query = select(WebhookDelivery.id).where(WebhookDelivery.state == PENDING)
    query = query.where(WebhookDelivery.next_try <= database_now())
    return session.scalars(query.order_by(turn, *order).limit(limit)).all()


def claim(session: Session, delivery_id: str, seconds: float) -> Message | None:
    """Take a due delivery for an attempt that ends within some seconds; None: another has taken it."""
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.state == PENDING)
        .where(WebhookDelivery.next_try <= database_now())
        .values(
            attempt=WebhookDelivery.attempt + 1,
            tries=WebhookDelivery.tries + 1,
            next_try=database_now(plus_seconds=seconds),
        )
        .returning(WebhookDelivery)
    )
    row = session.scalars(statement, execution_options=_UNSYNCHRONIZED).one_or_none()
    if row is None:
        return None
    to = session.execute(
        select(WebhookEndpoint.url, WebhookEndpoint.secret).where(WebhookEndpoint.id == row.endpoint_id)
    ).one()
    return Message(row.id, row.attempt, row.tries, to.url, to.secret, row.body, row.log)


def settle(session: Session, message: Message, state: str, wait_seconds: float, log: list[dict[str, Any]]) -> bool:
    """Write down what came of an attempt; False: it took so long that another has begun."""
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == message.id, WebhookDelivery.attempt == message.attempt)
        .where(WebhookDelivery.state == PENDING)
        .values(state=state, next_try=database_now(plus_seconds=wait_seconds), log=log)
        .returning(WebhookDelivery.id)
    )
    return session.execute(statement.execution_options(synchronize_session=False)).first() is not None


def by_state(session: Session, tenant: str | None) -> dict[str, int]:
    """How many deliveries are in each state; of every tenant where it is None."""
    query = select(WebhookDelivery.state, func.count().label("number")).group_by(WebhookDelivery.state)
    query = query if tenant is None else query.where(WebhookDelivery.tenant == tenant)
    return {row.state: row.number for row in session.execute(query)}


def oldest_due(session: Session) -> datetime | None:
    """Since when the delivery that waits longest has been due."""
    return session.scalar(select(func.min(WebhookDelivery.next_try)).where(WebhookDelivery.state == PENDING))
