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
    """The snapshots of a job, oldest first."""
    query = select(JobSnapshot).where(JobSnapshot.job_id == job_id).order_by(JobSnapshot.step)
    return [Snapshot(row.step, row.path, row.sha256, row.storage_key) for row in session.scalars(query)]


def add(session: Session, job_id: str, snapshots: Sequence[Snapshot]) -> None:
    """Put snapshots on record, each in the place of an earlier one of its step."""
    for one in snapshots:
        _delete(session, job_id, [one.step])
        values = {"job_id": job_id, "step": one.step, "path": one.path, "sha256": one.sha256, "storage_key": one.key}
        session.execute(insert(JobSnapshot).values(values))


def drop(session: Session, job_id: str, keep: int) -> list[Snapshot]:
    """Take all but the newest `keep` of a job off the record; those that were taken off."""
    known = of_job(session, job_id)
    dropped = known[: max(0, len(known) - keep)]
    _delete(session, job_id, [one.step for one in dropped])
    return dropped


def _delete(session: Session, job_id: str, steps: Sequence[int]) -> None:
    statement = delete(JobSnapshot).where(JobSnapshot.job_id == job_id, JobSnapshot.step.in_(steps))
    session.execute(statement.execution_options(synchronize_session=False))
