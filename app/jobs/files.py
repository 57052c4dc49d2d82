"""Every query on the files that a job alone needs. Knows no run and no store."""

from collections.abc import Mapping

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app.erasure import unname
from app.jobs.models import JobFile


def add(session: Session, job_id: str, files: Mapping[str, str]) -> None:
    """Write down storage keys by the names that the files get in the run's folder."""
    rows = [{"job_id": job_id, "name": name, "storage_key": key} for name, key in files.items()]
    if rows:
        session.execute(insert(JobFile), rows)


def of_job(session: Session, job_id: str) -> dict[str, str]:
    """Storage keys by name."""
    query = select(JobFile.name, JobFile.storage_key).where(JobFile.job_id == job_id).order_by(JobFile.name)
    return {row.name: row.storage_key for row in session.execute(query)}


def drop(session: Session, job_id: str) -> None:
    """Take the files of a job off the record; what nothing else names is erased by the next worker that looks."""
    statement = delete(JobFile).where(JobFile.job_id == job_id).returning(JobFile.storage_key)
    unname(session, session.scalars(statement.execution_options(synchronize_session=False)))
