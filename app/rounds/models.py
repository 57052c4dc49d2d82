"""The tables of federations. Knows no query and no rule."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime

OPEN, CLOSED = "open", "closed"
"""States of a round: it takes updates; its updates belong to a job."""


class Population(Base):
    """A federation, fixed for its life; its budget is the privacy account of its id."""

    __tablename__ = "populations"
    __table_args__ = (Index("ix_populations_tenant_id", "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    name: Mapped[str | None] = mapped_column(String(200))
    clients: Mapped[int] = mapped_column(BigInteger)
    unit: Mapped[str] = mapped_column(String(16))
    min_clients: Mapped[int] = mapped_column(BigInteger)
    expected_clients: Mapped[int | None] = mapped_column(BigInteger)
    """What sums are divided by: set by the first round, and the same for all."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FederationRound(Base):
    """One round: the public numbers of its release, and the secret that its cohort is drawn by."""

    __tablename__ = "rounds"
    __table_args__ = (Index("ix_rounds_tenant_id", "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    population_id: Mapped[str] = mapped_column(ForeignKey("populations.id"))
    base: Mapped[str | None] = mapped_column(String(40))
    storage_key: Mapped[str | None] = mapped_column(String(80), index=True)
    """The file of the base, where updates are measured from it."""
    format: Mapped[str] = mapped_column(String(8))
    clip_norm: Mapped[float] = mapped_column(Float)
    noise_multiplier: Mapped[float] = mapped_column(Float)
    delta: Mapped[float] = mapped_column(Float)
    expected_clients: Mapped[int] = mapped_column(BigInteger)
    sampling_rate: Mapped[float] = mapped_column(Float)
    secret: Mapped[str | None] = mapped_column(String(64))
    """Erased when the round closes: afterwards nobody can tell who was drawn."""
    tensors: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[str] = mapped_column(String(10))
    job_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RoundUpdate(Base):
    """A client's update of an open round; with the close of the round its file becomes the job's alone."""

    __tablename__ = "round_updates"

    round_id: Mapped[str] = mapped_column(ForeignKey("rounds.id", ondelete="CASCADE"), primary_key=True)
    client: Mapped[str] = mapped_column(String(128), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str] = mapped_column(String(80), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
