"""What a worker does to a job: claim, heartbeat, record, settle, finish, and the rescue of lost runs.

Every write carries the run's attempt number, so a run that lost its lease changes nothing any more. Imported by the
worker: knows neither requests nor `app.errors` nor the engine, and starts no process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.database import Database, database_now
from app.erasure import hold
from app.ids import new_id
from app.jobs import repository
from app.jobs.models import Job
from app.jobs.repository import Happening as Happening  # told on: the worker fills a batch with these two
from app.jobs.repository import Point as Point
from app.jobs.states import (
    CANCELLED,
    FAIL,
    GIVE_UP,
    LAPSE,
    LAPSE_CANCELLING,
    LAPSE_PAUSING,
    LOSE,
    PAUSED,
    SUCCEED,
    YIELD,
    Move,
    State,
)
from app.storage import Stored

WORKER_LOST: dict[str, Any] = {
    "code": "worker_lost",
    "title": "The run was lost too often",
    "detail": "The process of the run ended without a word, at the last time too.",
    "remedy": "read the job's log; if the process was killed for its memory, choose a smaller batch or model",
    "errors": [],
}


@dataclass(frozen=True)
class Run:
    """One claimed attempt: what to run, and the fence that all its writes carry."""

    job_id: str
    tenant: str
    attempt: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    threads: int
    snapshots: Sequence[Mapping[str, Any]] = ()
    latest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """What a run told since the last batch; `progress` holds columns of the job."""

    points: Sequence[Point] = ()
    happenings: Sequence[Happening] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """A file of the run that is stored whole."""

    kind: str
    filename: str
    media_type: str
    stored: Stored


@dataclass(frozen=True)
class Ending:
    """How a run ended: with an error or without, and with which files."""

    error: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    outputs: Sequence[Output] = ()
    log_key: str | None = None


def claim(database: Database, owner: str, lease_seconds: float, threads: int) -> Run | None:
    """Claim the fairest queued job for `owner`; None: nothing is queued."""
    with database.session() as session:
        job = repository.claim(session, owner, lease_seconds, threads)
        if job is None:
            return None
        return Run(
            job_id=job.id,
            tenant=job.tenant,
            attempt=job.attempt,
            spec=job.spec,
            inputs=job.inputs,
            threads=job.threads or threads,
            snapshots=job.snapshots,
            latest=job.latest,
        )


def heartbeat(database: Database, run: Run, lease_seconds: float) -> State | None:
    """Renew the lease; the job's state, or None: the run has been fenced off and must stop."""
    with database.session() as session:
        return repository.renew(session, run.job_id, run.attempt, lease_seconds)


def look(database: Database, run: Run) -> State | None:
    """The job's state without a write; None: the run has been fenced off and must stop."""
    with database.reading() as session:
        return repository.leased_state(session, run.job_id, run.attempt)


def record(database: Database, run: Run, batch: Batch) -> State | None:
    """Write what the run told; the job's state, or None: the run has been fenced off and must stop."""
    with database.session() as session:
        return repository.record(
            session,
            run.job_id,
            run.attempt,
            values=batch.progress,
            points=batch.points,
            happenings=batch.happenings,
        )


def finish(database: Database, run: Run, ending: Ending) -> State | None:
    """End the run in one transaction: state, artifact rows, last event. None: the run has been fenced off.

    A job that is being cancelled becomes cancelled and keeps no file. Safe to call again after a commit of which
    nobody knows whether it happened: the state that was reached is read back.
    """
    kind = SUCCEED if ending.error is None else FAIL
    values = {"error": ending.error, "result": ending.result, "log_key": ending.log_key}
    told = {"code": ending.error["code"]} if ending.error is not None else {}
    with database.session() as session:
        job = _fenced(session, run, kind, values, told)
        if job is not None:
            _store_outputs(session, run, ending.outputs)
            return kind.target
        if _fenced(session, run, CANCELLED, {}) is not None:
            return State.CANCELLED
        job = repository.get(session, run.tenant, run.job_id)
        reached = job is not None and job.attempt == run.attempt and job.state == kind.target
        return kind.target if reached else None


def settle(database: Database, run: Run) -> State | None:
    """Hand the job back without an end: to the queue after a deploy, else to what its owner asked for."""
    with database.session() as session:
        for kind in (YIELD, PAUSED, CANCELLED):
            if _fenced(session, run, kind, {}) is not None:
                return kind.target
        return None


def lose(database: Database, run: Run, max_lapses: int, reason: str) -> State | None:
    """Hand back a job whose process was lost, which counts as a lapse; at the last one the job fails."""
    with database.session() as session:
        fence = repository.fence(run.attempt)
        for kind, conditions, values in _lapse_moves(max_lapses, LOSE, FAIL, PAUSED, CANCELLED):
            told = {"reason": reason}
            conditions = (*fence, *conditions)
            if repository.move(session, run.job_id, kind, conditions=conditions, values=values, told=told) is not None:
                return kind.target
        return None


def rescue(database: Database, max_lapses: int) -> list[tuple[str, State]]:
    """Move every job whose lease has lapsed; id and new state of each."""
    with database.reading() as session:
        lapsed = repository.lapsed(session)
    moved: list[tuple[str, State]] = []
    for job_id, attempt in lapsed:
        with database.session() as session:
            still = (*repository.fence(attempt), Job.lease_expires < database_now())
            for kind, conditions, values in _lapse_moves(max_lapses, LAPSE, GIVE_UP, LAPSE_PAUSING, LAPSE_CANCELLING):
                told = {"reason": "the lease lapsed"}
                if repository.move(session, job_id, kind, conditions=(*still, *conditions), values=values, told=told):
                    moved.append((job_id, kind.target))
                    break
    return moved


def release_all(database: Database) -> list[tuple[str, State]]:
    """Take every leased job from its worker at once, which is no lapse; id and new state of each.

    Only for one who knows that no worker lives: `fiftytwo serve`, which holds the lock of its data folder. A worker
    that lives after all is fenced off like any other that lost its lease.
    """
    moved: list[tuple[str, State]] = []
    with database.session() as session:
        for job_id, attempt in repository.leased(session):
            for kind in (LAPSE, LAPSE_PAUSING, LAPSE_CANCELLING):
                told = {"reason": "the server was started again"}
                if repository.move(session, job_id, kind, conditions=repository.fence(attempt), told=told):
                    moved.append((job_id, kind.target))
                    break
    return moved


def any_queued(database: Database) -> bool:
    """Whether a job waits for a worker."""
    with database.reading() as session:
        return repository.any_queued(session)


def _lapse_moves(
    max_lapses: int, again: Move, last: Move, pausing: Move, cancelling: Move
) -> list[tuple[Move, tuple[Any, ...], dict[str, Any]]]:
    """The moves after a lapse, first fitting one wins: again, or for the last time; or what its owner asked for."""
    raised = {"lapses": Job.lapses + 1}
    running = Job.state == State.RUNNING
    return [
        (again, (Job.lapses + 1 < max_lapses,), raised),
        (last, (running,), raised | {"error": WORKER_LOST}),
        (pausing, (), {}),
        (cancelling, (), {}),
    ]


def _fenced(
    session: Session, run: Run, kind: Move, values: Mapping[str, Any], told: Mapping[str, Any] | None = None
) -> Job | None:
    conditions = repository.fence(run.attempt)
    return repository.move(session, run.job_id, kind, conditions=conditions, values=values, told=told)


def _store_outputs(session: Session, run: Run, outputs: Sequence[Output]) -> None:
    for key in sorted({one.stored.key for one in outputs}):
        hold(session, key)
    rows = [
        {
            "id": new_id("art"),
            "tenant": run.tenant,
            "job_id": run.job_id,
            "attempt": run.attempt,
            "kind": one.kind,
            "filename": one.filename,
            "media_type": one.media_type,
            "sha256": one.stored.sha256,
            "size_bytes": one.stored.size_bytes,
            "storage_key": one.stored.key,
            "created_at": database_now(),
        }
        for one in outputs
    ]
    for row in rows:
        session.execute(insert(Artifact).values(row))
