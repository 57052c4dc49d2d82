"""Every query on the snapshots that are on record for other machines. Knows neither runs nor where files are stored."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app.jobs.models import JobSnapshot


@dataclass(frozen=True)
class Snapshot:
    """A stored snapshot: its step, its path in the run's folder, its content's hash, the key it is stored under."""

    step: int
    path: str
    sha256: str
    key: str


def of_job(session: Session, job_id: str) -> list[Snapshot]:
    """The snapshots of a job, the last recorded last; that has not the highest step where a run began further back."""
    query = select(JobSnapshot).where(JobSnapshot.job_id == job_id).order_by(JobSnapshot.id)
    return [Snapshot(row.step, row.path, row.sha256, row.storage_key) for row in session.scalars(query)]


def add(session: Session, job_id: str, snapshots: Sequence[Snapshot]) -> None:
    """Put snapshots on record. One of the same step stays until it is dropped, or its file would have no name."""
    for one in snapshots:
        values = {"job_id": job_id, "step": one.step, "path": one.path, "sha256": one.sha256, "storage_key": one.key}
        session.execute(insert(JobSnapshot).values(values))


def drop(session: Session, job_id: str, keep: int) -> list[str]:
    """Take all but the last recorded `keep` of a job off the record; the storage keys of those."""
    query = select(JobSnapshot.id, JobSnapshot.storage_key).where(JobSnapshot.job_id == job_id).order_by(JobSnapshot.id)
    known = session.execute(query).all()
    dropped = known[: max(0, len(known) - keep)]
    statement = delete(JobSnapshot).where(JobSnapshot.id.in_([row.id for row in dropped]))
    session.execute(statement.execution_options(synchronize_session=False))
    return [row.storage_key for row in dropped]
