"""What a worker does to a job: claim, heartbeat, record, settle, finish, and the rescue of lost runs.

Every write carries the run's attempt number, so a run that lost its lease changes nothing any more. Imported by the
worker: knows neither requests nor `app.errors` nor the engine, and starts no process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.database import Database, database_now
from app.datasets import models as _  # noqa: F401  # erasure asks the tables that are loaded, so all must be
from app.erasure import erase, keep, keep_all, unname
from app.erasure import erase_due as erase_due  # told on to the worker
from app.erasure import storing as storing
from app.ids import new_id
from app.incoming import sweep as sweep  # told on to the worker
from app.jobs import files, repository, tallies
from app.jobs import snapshots as on_record
from app.jobs.lapses import lapse, lapse_moves
from app.jobs.lapses import rescue as rescue  # told on to the worker
from app.jobs.models import Job
from app.jobs.presence import leave as leave  # the same
from app.jobs.presence import present as present
from app.jobs.repository import Happening as Happening  # told on: the worker fills a batch with these three
from app.jobs.repository import Point as Point
from app.jobs.snapshots import Snapshot as Snapshot
from app.jobs.standing import states_of as states_of  # told on
from app.jobs.states import (
    CANCELLED,
    FAIL,
    LOSE,
    PAUSED,
    SUCCEED,
    YIELD,
    Move,
    State,
)
from app.openai_tables import models as _openai  # noqa: F401  # the same
from app.privacy import settlement
from app.privacy.settlement import Drawn as Drawn  # told on to the worker
from app.rounds import models as _rounds  # noqa: F401  # the same
from app.storage import Storage, Stored
from app.webhooks.sending import deliver_due as deliver_due  # told on to the worker


@dataclass(frozen=True)
class Run:
    """One claimed attempt: what to run, and the fence that all its writes carry."""

    job_id: str
    tenant: str
    attempt: int
    spec: Mapping[str, Any]
    inputs: Mapping[str, str]
    threads: int
    snapshots: Sequence[Snapshot] = ()
    latest: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Storage keys of what only this job needs, by name in the run's folder."""
    privacy: Mapping[str, Any] | None = None
    """What a private run has to know of its account; None: the job is not private."""

    @property
    def owner(self) -> str:
        """Who its files are stored for until they are on record."""
        return f"{self.job_id}:{self.attempt}"


@dataclass(frozen=True)
class Batch:
    """What a run told since the last batch; `number` rises within the attempt, `progress` holds columns of the job."""

    number: int
    points: Sequence[Point] = ()
    happenings: Sequence[Happening] = ()
    snapshots: Sequence[Snapshot] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)
    drawn: Sequence[Drawn] = ()


@dataclass(frozen=True)
class Output:
    """A file of the run that is stored whole."""

    kind: str
    filename: str
    media_type: str
    stored: Stored


@dataclass(frozen=True)
class Ending:
    """How a run ended: with an error or without, and with which files.

    `counted` False: what the run told last was lost, so nobody knows how often it drew.
    """

    error: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    outputs: Sequence[Output] = ()
    log_key: str | None = None
    counted: bool = True


def owner_name(worker: str, process: int) -> str:
    """What a worker signs its leases with: its name, and the process that it is."""
    return f"{process}:{worker}"[: Job.lease_owner.type.length]


def claim(database: Database, owner: str, lease_seconds: float, threads: int) -> Run | None:
    """Claim the fairest queued job for `owner`; None: nothing is queued."""
    with database.session() as session:
        job = repository.claim(session, owner, lease_seconds, threads)
        if job is None:
            return None
        tallies.claimed(session, job)
        settlement.open_to(session, job.tenant, job.id, _read_plainly(job))
        return Run(
            job_id=job.id,
            tenant=job.tenant,
            attempt=job.attempt,
            spec=job.spec,
            inputs=job.inputs,
            threads=job.threads or threads,
            snapshots=on_record.of_job(session, job.id),
            latest=job.latest,
            files=files.of_job(session, job.id),
            privacy=settlement.budget_for_run(session, job.id, job.spec.get("dataset")),
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
    """Write what the run told; the job's state, or None: the run has been fenced off and must stop.

    Safe to call again after a commit of which nobody knows whether it happened: a batch is written once.
    """
    with database.session() as session:
        state = repository.record(
            session,
            run.job_id,
            run.attempt,
            batch.number,
            values=batch.progress,
            points=batch.points,
            happenings=batch.happenings,
        )
        if state is not None and batch.snapshots:
            kept = keep(session, run.owner, [one.key for one in batch.snapshots])
            on_record.add(session, run.job_id, [one for one in batch.snapshots if one.key in kept])
        if state is not None and batch.drawn:
            settlement.note(session, run.job_id, batch.drawn)
        return state


def drop_snapshots(database: Database, storage: Storage, job_id: str, keep: int) -> None:
    """Erase all but the newest `keep` snapshots of a job, and after the commit those files that nothing else names."""
    with database.session() as session:
        dropped = on_record.drop(session, job_id, keep)
        unname(session, dropped)
    erase(database, storage, dropped)


def finish(database: Database, run: Run, ending: Ending) -> State | None:
    """End the run in one transaction: state, artifact rows, last event. None: the run has been fenced off.

    A job that is being cancelled becomes cancelled and keeps no file. Safe to call again after a commit of which
    nobody knows whether it happened: the state that was reached is read back.

    Raises:
        FileNotFoundError: a file was erased before this, as it took too long.
    """
    kind = SUCCEED if ending.error is None else FAIL
    values = {"error": ending.error, "result": ending.result, "log_key": ending.log_key}
    told = {"code": ending.error["code"]} if ending.error is not None else {}
    with database.session() as session:
        if not ending.counted:
            _take_for_spent(session, run)
        job = _fenced(session, run, kind, values, told)
        if job is not None:
            logs = [ending.log_key] if ending.log_key is not None else []
            keep_all(session, run.owner, [*logs, *(one.stored.key for one in ending.outputs)])
            _store_outputs(session, run, ending.outputs)
            return kind.target
        if _fenced(session, run, CANCELLED, {}) is not None:
            return State.CANCELLED
        return _reached(session, run, kind.target, State.CANCELLED)


def settle(database: Database, run: Run) -> State | None:
    """Hand the job back without an end: to the queue after a deploy, else to what its owner asked for.

    As safe to call again as `finish`; so is `lose`.
    """
    with database.session() as session:
        kinds = (YIELD, PAUSED, CANCELLED)
        for kind in kinds:
            if _fenced(session, run, kind, {}) is not None:
                return kind.target
        return _reached(session, run, *(kind.target for kind in kinds))


def lose(database: Database, run: Run, max_lapses: int, reason: str, *, counted: bool = True) -> State | None:
    """Hand back a job whose process was lost, which counts as a lapse; at the last one the job fails.

    `counted` False: as `Ending` says.
    """
    with database.session() as session:
        if not counted:
            _take_for_spent(session, run)
        moves = lapse_moves(max_lapses, LOSE, FAIL, PAUSED, CANCELLED)
        state = lapse(session, run.job_id, moves, repository.fence(run.attempt), reason)
        return state or _reached(session, run, *(kind.target for kind, _, _ in moves))


def any_queued(database: Database) -> bool:
    """Whether a job waits for a worker."""
    with database.reading() as session:
        return repository.any_queued(session)


def _read_plainly(job: Job) -> set[str]:
    """What of a job's inputs it reads rows of; of the training of a model that it begins with, the test rows alone.

    What the job's own fields name it reads whole, whichever field it is and even where the training read it too.
    """
    of_parent = job.spec.get("parent", {}).get("spec", {}).get("dataset")
    own = set(_strings({name: value for name, value in job.spec.items() if name != "parent"}))
    return {one for one in job.inputs if one in own} | (set(job.inputs) - set(_strings(of_parent)))


def _strings(value: Any) -> Iterator[str]:
    """Every string within a JSON value, names apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(one)


def _take_for_spent(session: Session, run: Run) -> None:
    """Count the whole reservation of a private run, unless it has been fenced off; one that goes on draws no more."""
    if repository.leased_state(session, run.job_id, run.attempt) is not None:
        settlement.lose(session, run.job_id)


def _fenced(
    session: Session, run: Run, kind: Move, values: Mapping[str, Any], told: Mapping[str, Any] | None = None
) -> Job | None:
    conditions = repository.fence(run.attempt)
    return repository.move(session, run.job_id, kind, conditions=conditions, values=values, told=told)


def _reached(session: Session, run: Run, *states: State) -> State | None:
    """The state of the job if it is one of these and no later attempt's: a commit that seemed lost has led there."""
    job = repository.get(session, run.tenant, run.job_id)
    return job.state if job is not None and job.attempt == run.attempt and job.state in states else None


def _store_outputs(session: Session, run: Run, outputs: Sequence[Output]) -> None:
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
