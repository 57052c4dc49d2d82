"""Which workers there are, by their own word: each says so in every round, and takes leave when it is stopped.

For operators alone: no job depends on it, leases are what counts. Imported by the worker.
"""

from sqlalchemy import delete

from app.database import Database, database_now, insert_into
from app.jobs.models import WorkerSeen

FORGOTTEN_SECONDS = 3600.0
"""A worker that was killed is missed for so long."""


def present(database: Database, name: str) -> None:
    """Say that this worker lives; forget those that have been silent for an hour."""
    with database.session() as session:
        now = database_now()
        seen = insert_into(session, WorkerSeen).values(name=name, at=now)
        session.execute(seen.on_conflict_do_update(index_elements=[WorkerSeen.name], set_={"at": now}))
        session.execute(delete(WorkerSeen).where(WorkerSeen.at < database_now(plus_seconds=-FORGOTTEN_SECONDS)))


def leave(database: Database, name: str) -> None:
    """Say that this worker is no more."""
    with database.session() as session:
        session.execute(delete(WorkerSeen).where(WorkerSeen.name == name))
