"""The queries behind the figures. `tenant` None: of every tenant. Knows no HTTP."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database import database_now
from app.datasets.models import Dataset
from app.jobs.models import Job, JobEvent, JobTally, WorkerSeen
from app.jobs.states import LEASED, State
from app.privacy.models import PrivacyAccount, PrivacyEntry


def now(session: Session) -> datetime:
    """The database's clock."""
    moment: datetime = session.execute(select(database_now())).scalar_one()
    return moment


def jobs(session: Session, tenant: str | None) -> Sequence[Row[str, State, int]]:
    """How many jobs of each kind are in each state that has any."""
    query = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state).order_by(Job.kind, Job.state)
    return session.execute(query.where(*_of(Job.tenant, tenant))).all()


def queued_since(session: Session, tenant: str | None) -> datetime | None:
    """Since when the job that waits longest has been queued: its last event."""
    query = select(func.min(JobEvent.at)).join(Job, (JobEvent.job_id == Job.id) & (JobEvent.sequence == Job.events))
    moment: datetime | None = session.scalar(query.where(Job.state == State.QUEUED, *_of(Job.tenant, tenant)))
    return moment


def running(session: Session, tenant: str | None) -> Sequence[Row[str, dict[str, float]]]:
    """Kind and latest figures of each job that a worker holds."""
    query = select(Job.kind, Job.latest).where(Job.state.in_(LEASED), *_of(Job.tenant, tenant))
    return session.execute(query).all()


def checkpoints(session: Session, tenant: str | None) -> Sequence[datetime]:
    """When each job that a worker holds and that has a checkpoint wrote its last."""
    query = select(func.max(JobEvent.at)).join(Job, JobEvent.job_id == Job.id).group_by(JobEvent.job_id)
    query = query.where(Job.state.in_(LEASED), JobEvent.type == "checkpoint_written", *_of(Job.tenant, tenant))
    return session.scalars(query).all()


def tallies(session: Session, tenant: str | None) -> Sequence[Row[str, str, str, int, int, float]]:
    """Measure, kind, state, bucket, number and seconds of what was counted."""
    by = (JobTally.measure, JobTally.kind, JobTally.state, JobTally.bucket)
    query = select(*by, func.sum(JobTally.number), func.sum(JobTally.seconds)).group_by(*by).order_by(*by)
    return session.execute(query.where(*_of(JobTally.tenant, tenant))).all()


def workers(session: Session) -> Sequence[datetime]:
    """When each worker that has not taken leave was last heard of."""
    return session.scalars(select(WorkerSeen.at)).all()


def accounts(session: Session, tenant: str | None) -> list[tuple[str, PrivacyAccount, list[PrivacyEntry]]]:
    """Every account that something was entered for, with that, by the name of its oldest data set, or else its own."""
    entries: defaultdict[tuple[str, str], list[PrivacyEntry]] = defaultdict(list)
    for entry in session.scalars(select(PrivacyEntry).where(*_of(PrivacyEntry.tenant, tenant))):
        entries[entry.tenant, entry.subject].append(entry)
    of = (Dataset.tenant, Dataset.lineage)
    oldest = select(*of, func.min(Dataset.id)).where(Dataset.lineage.in_(select(PrivacyAccount.subject))).group_by(*of)
    names = {row[:2]: row[2] for row in session.execute(oldest.where(*_of(Dataset.tenant, tenant)))}
    query = select(PrivacyAccount).where(*_of(PrivacyAccount.tenant, tenant)).order_by(PrivacyAccount.id)
    return [
        (names.get((one.tenant, one.subject), one.subject), one, entries[one.tenant, one.subject])
        for one in session.scalars(query)
        if (one.tenant, one.subject) in entries
    ]


def _of(column: InstrumentedAttribute[str], tenant: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if tenant is None else (column == tenant,)
