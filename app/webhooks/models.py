"""The tables of webhooks: where to, and the outbox of what is to be told. Knows no query; the worker loads it too."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
"""States of a delivery: to be tried when it is due; heard; given up, until somebody asks for it again."""
_PENDING = text(f"state = '{PENDING}'")


class WebhookEndpoint(Base):
    """An address that is told of jobs: of one job, or of all of a tenant's that end in one of its events."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("ix_webhook_endpoints_tenant_id", "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    """The one job that it was named for; None: it is the tenant's."""
    url: Mapped[str] = mapped_column(String(2048))
    secret: Mapped[str] = mapped_column(String(128))
    """Signs what is sent, so it cannot be kept as a hash alone."""
    events: Mapped[list[str]] = mapped_column(JSON)
    """The types it is told of; empty: of all."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebhookDelivery(Base):
    """One event on its way to one endpoint; its id is the `webhook-id` of every attempt."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_due", "next_try", sqlite_where=_PENDING, postgresql_where=_PENDING),
        Index("ix_webhook_deliveries_endpoint_id", "endpoint_id", "id"),
        Index("ix_webhook_deliveries_job_id", "job_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(10))
    attempt: Mapped[int] = mapped_column(Integer)
    """Rises with every claim, and fences what is written of it."""
    tries: Mapped[int] = mapped_column(Integer)
    """How far the schedule has come; begins anew when somebody asks for it again."""
    next_try: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it is due; while somebody sends it, when that one must have died."""
    log: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
