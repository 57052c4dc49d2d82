"""Every query on jobs. Each write is one compare-and-set; who may ask for it is decided by the callers.

Imported by the worker too, so it knows neither `app.errors` nor the schemas of requests.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, func, inspect, or_, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.orm import Session

from app.database import database_now, insert_into
from app.jobs import claims, endings
from app.jobs.models import Document, Job, JobEvent, MetricPoint, has_pair
from app.jobs.states import CLAIM, LEASED, OPEN, TERMINAL, Move, Mover, State

_UNSYNCHRONIZED = {"synchronize_session": False, "populate_existing": True}


@dataclass(frozen=True)
class Point:
    """One value of one metric; `at` is when the engine told of it."""

    name: str
    step: int
    value: float
    at: datetime


@dataclass(frozen=True)
class Happening:
    """An event that the engine told of."""

    type: str
    at: datetime
    data: Mapping[str, Any]


def add(session: Session, *jobs: Job) -> None:
    """Store new jobs with their first events. The session does not track them: that costs far more than the insert."""
    rows = []
    for job in jobs:
        facts = vars(job)
        facts.update(events=1, revision=1)
        rows.append({column: facts.get(name) for name, column in _COLUMNS})
    session.connection().execute(_JOB, rows)
    session.connection().execute(_STATE_EVENT, [_state_event(job, Mover.OWNER, {}) for job in jobs])


def get(session: Session, tenant: str, job_id: str, *, hold: bool = False) -> Job | None:
    """The tenant's job as it stands now; with `hold` it stays so until the transaction ends."""
    query = select(Job).where(Job.id == job_id, Job.tenant == tenant)
    query = query.with_for_update().execution_options(populate_existing=True) if hold else query
    return session.scalars(query).one_or_none()


def listed(
    session: Session,
    tenant: str,
    *,
    filters: Mapping[str, str],
    metadata: Mapping[str, str],
    limit: int,
    after: str | None,
    descending: bool,
) -> Sequence[Job]:
    """Up to `limit` jobs by id (so by age), those past `after`; `filters` are columns and their values."""
    query = select(Job).where(Job.tenant == tenant)
    query = query.where(*(getattr(Job, column) == value for column, value in filters.items()))
    query = query.where(*(has_pair(session.get_bind().dialect.name, *pair) for pair in metadata.items()))
    if after is not None:
        query = query.where(Job.id < after if descending else Job.id > after)
    return session.scalars(query.order_by(Job.id.desc() if descending else Job.id).limit(limit)).all()


def open_jobs(session: Session, tenant: str) -> int:
    """How many jobs of the tenant have not ended."""
    return session.connection().execute(_OPEN_JOBS, {"of_tenant": tenant}).scalar_one()


def open_jobs_reading(session: Session, tenant: str, dataset_id: str) -> list[str]:
    """Ids of the tenant's jobs that have not ended and read this data set."""
    query = select(Job.id, Job.inputs).where(Job.tenant == tenant, Job.state.in_(OPEN)).order_by(Job.id)
    return [job_id for job_id, inputs in session.execute(query) if dataset_id in inputs]


def move(
    session: Session,
    job_id: str,
    kind: Move,
    *,
    conditions: Iterable[ColumnElement[bool]] = (),
    values: Mapping[str, Any] | None = None,
    told: Mapping[str, Any] | None = None,
) -> Job | None:
    """Make a move if the job is in one of its states and every condition holds; None: it was not, or they did not.

    Args:
        session: a write transaction.
        job_id: the job.
        kind: the move.
        conditions: what else must hold, such as the fence of a run.
        values: columns that are written along.
        told: what the event of the move says beside the state.
    """
    written: dict[str, Any] = {"state": kind.target, "revision": Job.revision + 1, "events": Job.events + 1}
    if kind.target not in LEASED:
        written |= {"lease_owner": None, "lease_expires": None, "eta_seconds": None}
    if kind.target in TERMINAL:
        written["finished_at"] = database_now()
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state.in_(kind.sources), *conditions)
        .values(written | dict(values or {}))
        .returning(Job)
    )
    if (job := session.scalars(statement, execution_options=_UNSYNCHRONIZED).one_or_none()) is not None:
        _tell_state(session, job, kind.mover, told or {})
        endings.follow(session, job, kind)
    return job


def claim(session: Session, owner: str, lease_seconds: float, threads: int) -> Job | None:
    """Take the fairest queued job; None: nothing is queued.

    It is that whose tenant has the fewest running, then of the highest priority, then of the tenant whose last claim
    lies longest ago, then the oldest.
    """
    claimed = {"owner": owner, "lease_seconds": lease_seconds, "first_threads": threads}
    job = session.scalars(claims.FAIREST, claimed, execution_options=_UNSYNCHRONIZED).one_or_none()
    if job is not None:
        claims.end_turn(session, job.tenant)
        _tell_state(session, job, CLAIM.mover, {})
    return job


def fence(attempt: int) -> tuple[ColumnElement[bool], ...]:
    """What must hold for every write of a run: the lease is still of this attempt."""
    return (Job.attempt == attempt, Job.state.in_(LEASED))


def renew(session: Session, job_id: str, attempt: int, lease_seconds: float) -> State | None:
    """Let the lease run from now; the job's state, or None where the run has been fenced off."""
    statement = (
        update(Job)
        .where(Job.id == job_id, *fence(attempt))
        .values(lease_expires=database_now(plus_seconds=lease_seconds))
        .returning(Job.state)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).scalar_one_or_none()


def leased_state(session: Session, job_id: str, attempt: int) -> State | None:
    """The job's state while this attempt holds the lease, else None."""
    return session.scalar(select(Job.state).where(Job.id == job_id, *fence(attempt)))


def record(
    session: Session,
    job_id: str,
    attempt: int,
    number: int,
    *,
    values: Mapping[str, Any],
    points: Sequence[Point],
    happenings: Sequence[Happening],
) -> State | None:
    """Write a run's batch `number`, unless it is written; the job's state, or None where the lease is another's."""
    counted = {"revision": Job.revision + 1, "events": Job.events + len(happenings), "batches": number}
    statement = (
        update(Job)
        .where(Job.id == job_id, *fence(attempt), Job.batches < number)
        .values(dict(values) | counted)
        .returning(Job.state, Job.events)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return leased_state(session, job_id, attempt)
    first = row.events - len(happenings) + 1
    events = [
        {"job_id": job_id, "sequence": first + index, "type": one.type, "at": one.at, "data": dict(one.data)}
        for index, one in enumerate(happenings)
    ]
    if events:
        session.execute(plain_insert(JobEvent), events)
    if points:
        _write_points(session, job_id, points)
    reached: State = row.state
    return reached


def leased(session: Session, *conditions: ColumnElement[bool]) -> Sequence[tuple[str, int]]:
    """Id and attempt of every job that a worker holds and that meets the conditions."""
    query = select(Job.id, Job.attempt).where(Job.state.in_(LEASED), *conditions).order_by(Job.id)
    return [(job_id, attempt) for job_id, attempt in session.execute(query)]


def any_queued(session: Session) -> bool:
    """Whether a job waits for a worker."""
    return session.scalar(select(Job.id).where(Job.state == State.QUEUED).limit(1)) is not None


def events_after(session: Session, job_id: str, sequence: int, limit: int) -> Sequence[JobEvent]:
    """Up to `limit` events past a sequence number, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.sequence > sequence)
    return session.scalars(query.order_by(JobEvent.sequence).limit(limit)).all()


def points(
    session: Session, job_id: str, names: Sequence[str] | None, since_step: int
) -> Sequence[Row[str, int, float, datetime]]:
    """Name, step, value and moment of each point, by name and step."""
    query = select(MetricPoint.name, MetricPoint.step, MetricPoint.value, MetricPoint.at)
    query = query.where(MetricPoint.job_id == job_id, MetricPoint.step >= since_step)
    if names is not None:
        query = query.where(MetricPoint.name.in_(names))
    return session.execute(query.order_by(MetricPoint.name, MetricPoint.step)).all()


def erase(session: Session, tenant: str, job_id: str) -> bool:
    """Erase a job that has ended, with its metrics and events; False: it is not there or has not ended."""
    statement = delete(Job).where(Job.id == job_id, Job.tenant == tenant, Job.state.in_(TERMINAL)).returning(Job.id)
    return session.execute(statement.execution_options(synchronize_session=False)).scalar_one_or_none() is not None


def writes(session: Session, job_ids: Iterable[str]) -> Sequence[Row[str, int, int]]:
    """Id, number of writes and of events so far of those jobs that exist."""
    return session.execute(select(Job.id, Job.revision, Job.events).where(Job.id.in_(list(job_ids)))).all()


def _tell_state(session: Session, job: Job, mover: Mover, told: Mapping[str, Any]) -> None:
    session.connection().execute(_STATE_EVENT, _state_event(job, mover, told))


def _state_event(job: Job, mover: Mover, told: Mapping[str, Any]) -> dict[str, Any]:
    data = {"state": job.state.value, "attempt": job.attempt or 0, "by": mover.value, **told}
    return {"of_job": job.id, "number": job.events, "told": data}


def _write_points(session: Session, job_id: str, points: Sequence[Point]) -> None:
    statement = insert_into(session, MetricPoint)
    statement = statement.on_conflict_do_update(
        index_elements=[MetricPoint.job_id, MetricPoint.name, MetricPoint.step],
        set_={"value": statement.excluded.value, "at": statement.excluded.at},
    )
    rows = [{"job_id": job_id, "name": one.name, "step": one.step, "value": one.value, "at": one.at} for one in points]
    session.execute(statement, rows)


_JOB = plain_insert(Job.__table__)  # type: ignore[arg-type]  # declared as a FromClause, and a Table
# What a new job brings; the other columns are empty or have their defaults.
_NEW = ["id", "tenant", "kind", "task", "name", "metadata_", "spec", "plan", "inputs", "state", "events", "revision"]
_NEW += ["webhook_url", "event_family", "created_at"]
_COLUMNS = [(name, inspect(Job).column_attrs[name].columns[0].key) for name in _NEW]
# One comparison a state: SQLAlchemy would write an `in_` out anew each time.
_IS_OPEN = or_(*(Job.state == state for state in State if state in OPEN))
_OPEN_JOBS = select(func.count()).where(Job.tenant == bindparam("of_tenant"), _IS_OPEN)
_STATE_EVENT = plain_insert(JobEvent).values(
    job_id=bindparam("of_job"),
    sequence=bindparam("number"),
    type="state_changed",
    at=database_now(),
    data=bindparam("told", type_=Document),
)
