"""Where many jobs stand, at once. Imported by the worker."""

from collections.abc import Iterable

from sqlalchemy import select

from app.database import Database
from app.jobs.models import Job
from app.jobs.states import State


def states_of(database: Database, job_ids: Iterable[str]) -> dict[str, State]:
    """The state of each of these jobs that is there."""
    query = select(Job.id, Job.state).where(Job.id.in_(list(job_ids)))
    with database.reading() as session:
        return {row.id: row.state for row in session.execute(query)}
