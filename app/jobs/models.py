"""The tables of jobs: the job itself, the points of its metrics, its events. Knows no query and no rule."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.database import Base, UtcDateTime
from app.jobs.states import State

_LOGGED = text("log_key IS NOT NULL")
Document = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class StateName(TypeDecorator[State]):
    """A state, stored under its value: drivers disagree on what an enumeration's member is stored as."""

    impl = String(16)
    cache_ok = True

    def process_bind_param(self, value: State | None, dialect: Dialect) -> str | None:
        """The plain text."""
        return None if value is None else State(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> State | None:
        """The state again."""
        return None if value is None else State(value)


class Job(Base):
    """One job. `attempt` fences the writes of a run, `lapses` is what has a maximum, `revision` counts the writes."""

    __tablename__ = "jobs"
    __table_args__ = (
        # With the kind, or to count jobs for Prometheus would read every job whole; with priority and id, or a claim
        # would read every queued one.
        Index("ix_jobs_state", "state", "tenant", "kind", "priority", "id"),
        Index("ix_jobs_tenant", "tenant", "id"),
        # Only of those that have one: a submit has nothing to write there.
        Index("ix_jobs_log_key", "log_key", sqlite_where=_LOGGED, postgresql_where=_LOGGED),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(16))
    task: Mapped[str | None] = mapped_column(String(32))
    name: Mapped[str | None] = mapped_column(String(256))
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata", Document)
    priority: Mapped[int] = mapped_column(Integer, default=0)

    spec: Mapped[dict[str, Any]] = mapped_column(Document)
    plan: Mapped[list[dict[str, Any]]] = mapped_column(Document)
    inputs: Mapped[dict[str, str]] = mapped_column(Document)
    """Storage key by id, for each data set the run reads."""

    state: Mapped[State] = mapped_column(StateName)
    phase: Mapped[str | None] = mapped_column(String(32))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lapses: Mapped[int] = mapped_column(Integer, default=0)
    revision: Mapped[int] = mapped_column(Integer, default=0)
    events: Mapped[int] = mapped_column(Integer, default=0)
    """The sequence number of the last event."""
    batches: Mapped[int] = mapped_column(Integer, default=0)
    """The number of the last batch that this attempt recorded, by which a repeat of it is known."""
    threads: Mapped[int | None] = mapped_column(Integer)
    """Set by the first claim, so that a resumed run computes with the same number."""
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires: Mapped[datetime | None] = mapped_column(UtcDateTime)

    step: Mapped[int] = mapped_column(BigInteger, default=0)
    total_steps: Mapped[int | None] = mapped_column(BigInteger)
    eta_seconds: Mapped[float | None] = mapped_column(Float)
    latest: Mapped[dict[str, float]] = mapped_column(Document, default=dict)
    webhook_url: Mapped[str | None] = mapped_column(String(2048))
    """Who is told of its end, as the job shows it; the secret lies with the webhooks."""
    event_family: Mapped[str | None] = mapped_column(String(24))
    """What the types of its webhook events begin with; None: as those of `app.webhooks` do."""
    log_key: Mapped[str | None] = mapped_column(String(80))
    """Where the log is stored once the run has ended, where storage is remote."""

    result: Mapped[dict[str, Any] | None] = mapped_column(Document)
    error: Mapped[dict[str, Any] | None] = mapped_column(Document)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=lambda: datetime.now(UTC))
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


def has_pair(dialect: str, key: str, value: str) -> ColumnElement[bool]:
    """Whether a job's metadata have this pair, whatever signs are in it."""
    if dialect == "postgresql":
        named: ColumnElement[bool] = Job.metadata_[key].as_string() == value
        return named
    # SQLite knows keys as parts of a path, in which a quotation mark or a backslash cannot be written.
    pair = func.json_each(Job.metadata_).table_valued("key", "value")
    return select(literal(1)).select_from(pair).where(pair.c.key == key, pair.c.value == value).exists()


class MetricPoint(Base):
    """One value of one metric at one step; a resumed run writes its repeated steps over the old ones."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    value: Mapped[float] = mapped_column(Float)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class JobSnapshot(Base):
    """A snapshot that a run can go on from on another machine; the newest few of each job, where storage is remote."""

    __tablename__ = "job_snapshots"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    """In the order in which they were put on record."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    step: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(String(200))
    """Where it lies in the run's folder."""
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(80), index=True)


class JobFile(Base):
    """A file that this job alone needs, beside its data sets: erased when it has ended, however it ended."""

    __tablename__ = "job_files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    """Where it lies in the run's folder."""
    storage_key: Mapped[str] = mapped_column(String(80), index=True)


class JobTally(Base):
    """How often something happened to jobs, and how long it took in all: `app.jobs.tallies` says what is counted."""

    __tablename__ = "job_tallies"

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    measure: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), primary_key=True)
    bucket: Mapped[int] = mapped_column(Integer, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Float)


class JobTurn(Base):
    """A tenant's last claim. It stays when the job is deleted, or to delete jobs would bring the next turn sooner."""

    __tablename__ = "job_turns"

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    claim: Mapped[int] = mapped_column(BigInteger)
    """Its number among all claims."""


class WorkerSeen(Base):
    """When a worker was last heard of."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class JobEvent(Base):
    """Something that happened to a job; `sequence` counts from 1 in each job and has no holes."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    data: Mapped[dict[str, Any]] = mapped_column(Document)
