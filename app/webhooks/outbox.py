"""Puts what is to be told into the outbox, in the very transaction that ends a job: neither is there without the other.

Knows jobs by plain values only; the worker loads it, so it knows neither requests nor `app.errors`.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, or_, select
from sqlalchemy.orm import Session

from app.database import database_now
from app.ids import new_id
from app.moments import rfc3339
from app.webhooks.models import PENDING, WebhookDelivery, WebhookEndpoint

NATIVE, OPENAI = "job", "fine_tuning.job"
"""Families of events, which are the beginnings of their types: our own, and that of jobs made at OpenAI's door."""


def subscribe(session: Session, tenant: str, job_id: str, url: str, secret: str) -> None:
    """Let an address be told of the end of one job, which is stored already."""
    row = {
        "id": new_id("wh"),
        "tenant": tenant,
        "job_id": job_id,
        "url": url,
        "secret": secret,
        "events": [],
        "created_at": datetime.now(UTC),
    }
    session.execute(insert(WebhookEndpoint).values(row))


def post(session: Session, tenant: str, job_id: str, family: str | None, facts: Mapping[str, Any]) -> None:
    """Enter what is to be told of a job's end, once an endpoint that wants to hear it.

    Args:
        family: the beginning of the event's type; None: our own.
        facts: the job as the event tells of it, its `state` among them.
    """
    kind = f"{family or NATIVE}.{facts['state']}"
    mine = or_(WebhookEndpoint.job_id == job_id, WebhookEndpoint.job_id.is_(None))
    query = select(WebhookEndpoint.id, WebhookEndpoint.events).where(WebhookEndpoint.tenant == tenant, mine)
    # Held, or one that is deleted just now would take the end of the job back: no row may name what is not there.
    query = query.with_for_update(read=True, key_share=True)
    wanted = [endpoint for endpoint, events in session.execute(query) if not events or kind in events]
    if not wanted:
        return
    text = json.dumps(_event(kind, family, job_id, facts), ensure_ascii=False, separators=(",", ":"))
    for endpoint in wanted:
        row = {
            "id": new_id("msg"),
            "tenant": tenant,
            "endpoint_id": endpoint,
            "job_id": job_id,
            "type": kind,
            "body": text,
            "state": PENDING,
            "attempt": 0,
            "tries": 0,
            "next_try": database_now(),
            "log": [],
            "created_at": database_now(),
        }
        session.execute(insert(WebhookDelivery).values(row))


def _event(kind: str, family: str | None, job_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    event: dict[str, Any] = {"id": new_id("evt"), "object": "event", "type": kind}
    if family == OPENAI:
        return event | {"created_at": int(now.timestamp()), "data": {"id": job_id}}
    return event | {"timestamp": rfc3339(now), "data": {"id": job_id, "object": "job", **facts}}
