"""What tests of jobs share: a database with its tables, jobs put into it, a worker around the stand-in engine."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Engine, event, select, update

from app.artifacts.models import Artifact
from app.database import Base, Database, database_now
from app.erasure import Erasure
from app.ids import new_id
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Run
from app.jobs.models import Job, JobEvent
from app.jobs.states import Move, State
from app.settings import Settings
from app.storage import storage_for
from worker.tasks import Worker

STAND_IN = shlex.join([sys.executable, "-S", str(Path(__file__).with_name("stand_in_engine.py"))])


class Crash(BaseException):
    """Ends what it is raised in as if the process had been killed: nothing that handles errors handles it."""


class SilentBell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        """Count."""
        self.rings += 1


@contextmanager
def statements(engine: Engine) -> Iterator[Sequence[str]]:
    """What the database is asked by way of an engine while the context lasts."""
    asked: list[str] = []

    def hear(_: Any, __: Any, statement: str, *___: Any) -> None:
        asked.append(statement)

    event.listen(engine, "before_cursor_execute", hear)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", hear)


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Settings with short times, around the stand-in engine."""
    values: dict[str, Any] = {
        "data_dir": folder,
        "engine_command": STAND_IN,
        "lease_seconds": 3,
        "heartbeat_seconds": 0.5,
        "rescue_seconds": 0.3,
        "stop_grace_seconds": 5,
        "threads_per_job": 1,
    }
    return Settings(**(values | changes))


def lay_tables(database: Database) -> None:
    """Make every table of a database that nobody has opened yet; on SQLite by a copy, which costs next to nothing."""
    if database.url.get_backend_name() == "sqlite":
        Path(str(database.url.database)).write_bytes(_empty(frozenset(Base.metadata.tables)))
    else:
        Base.metadata.create_all(database.engine)


@cache
def _empty(_: frozenset[str]) -> bytes:
    """A SQLite file with the tables of these names, which are all that are known."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        made = Database(f"sqlite:///{path}")
        Base.metadata.create_all(made.engine)
        made.close()
        return path.read_bytes()


@contextmanager
def tables(url: str) -> Iterator[Database]:
    """A database with every table."""
    database = Database(url)
    lay_tables(database)
    try:
        yield database
    finally:
        database.close()


def worker_for(settings: Settings, database: Database) -> Worker:
    """A worker in this process."""
    return Worker(settings, database, storage_for(settings), SilentBell(), owner=f"test:{os.getpid()}")


def put_job(database: Database, tenant: str = "default", state: State = State.QUEUED, **ways: Any) -> str:
    """Store a job whose stand-in engine behaves in these ways; its id."""
    job = Job(
        id=new_id("job"),
        tenant=tenant,
        kind="train",
        task="text_classification",
        metadata_={},
        spec={"kind": "train", "stand_in": ways},
        plan=[],
        inputs={},
        state=state,
        created_at=datetime.now(UTC),
    )
    with database.session() as session:
        repository.add(session, job)
    return job.id


def job_of(database: Database, job_id: str) -> Job:
    """The job as it stands now."""
    with database.reading() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def artifacts_of(database: Database, job_id: str) -> dict[str, str]:
    """The content hash by kind; fails on two of a kind."""
    with database.reading() as session:
        rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all()
    assert len({row.kind for row in rows}) == len(rows)
    return {row.kind: row.sha256 for row in rows}


def states_of(database: Database, job_id: str) -> list[str]:
    """Every state the job went through, as its events tell."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == "state_changed")
    with database.reading() as session:
        events = session.scalars(query.order_by(JobEvent.sequence)).all()
    return [event.data["state"] for event in events]


def claimed(database: Database, owner: str = "one") -> Run:
    """The next job's attempt, claimed by `owner`."""
    run = lifecycle.claim(database, owner, lease_seconds=60, threads=2)
    assert run is not None
    return run


def let_lapse(database: Database, job_id: str) -> None:
    """Let the lease have lapsed a second ago."""
    with database.session() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_expires=database_now(plus_seconds=-1)))


def awaiting_erasure(database: Database) -> set[str]:
    """The keys of the files that have an entry among the erasures, due or not."""
    with database.reading() as session:
        return set(session.scalars(select(Erasure.key)))


def let_fall_due(database: Database) -> None:
    """Let every entry among the erasures have been due for a second."""
    with database.session() as session:
        session.execute(update(Erasure).values(due=database_now(plus_seconds=-1)))


def owner_moves(database: Database, job_id: str, kind: Move) -> bool:
    """Make a move as the job's owner; whether it was allowed."""
    with database.session() as session:
        return repository.move(session, job_id, kind) is not None
