"""The rules of jobs as their owners meet them: submit, start, pause, resume, cancel, erase. Knows no request."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.artifacts.models import Artifact
from app.auth.audit import audit
from app.erasure import unname
from app.errors import Conflict, NotFound, RateLimited
from app.identity import Identity
from app.ids import new_id
from app.jobs import private, repository, snapshots
from app.jobs.checked import Checked
from app.jobs.models import Job
from app.jobs.states import MOVES, OPEN, TERMINAL, Mover, State, allowed_from
from app.privacy.composition import Spending
from app.settings import Settings
from app.storage import Storage

RETRY_SECONDS = 30
_NOT_YET = dict.fromkeys(("phase", "total_steps", "eta_seconds", "started_at", "finished_at", "error", "result"))
LOG_NAME = "log.txt"


def refuse_beyond(max_open_jobs: int, open_jobs: int) -> None:
    """Refuse another job of a tenant with so many open ones.

    Raises:
        RateLimited: they are as many as it may have.
    """
    if open_jobs >= max_open_jobs:
        raise RateLimited(
            f"at most {max_open_jobs} jobs of yours may be open at a time; {open_jobs} are, and this asks for another",
            code="too_many_open_jobs",
            remedy="wait for some to end, or cancel them",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )


def made(identity: Identity, checked: Checked, family: str | None = None) -> Job:
    """The job to be stored, queued unless it is not to start by itself; `family`: that of its webhook events."""
    body, job = checked.body, Job()
    # Past the attributes that note each change for a session: no session will track this one.
    vars(job).update(
        id=new_id("job"),
        tenant=identity.tenant,
        kind=body.kind,
        task=checked.task,
        name=body.name,
        metadata_=body.metadata,
        spec=dict(checked.spec),
        plan=checked.plan.describe(),
        inputs=dict(checked.inputs),
        webhook_url=body.webhook.url if body.webhook is not None else None,
        event_family=family,
        state=State.QUEUED if body.auto_start else State.CREATED,
        attempt=0,
        step=0,
        latest={},
        created_at=datetime.now(UTC),
        **_NOT_YET,
    )
    return job


def dry_run(checked: Checked, spending: Spending | None) -> dict[str, Any]:
    """What the job would do and cost."""
    return {
        "object": "dry_run",
        **checked.spec,
        "name": checked.body.name,
        "metadata": checked.body.metadata,
        "plan": checked.plan.describe(),
        "estimate": checked.estimate() | ({"privacy": private.estimate(spending)} if spending is not None else {}),
    }


def find(session: Session, tenant: str, job_id: str, *, hold: bool = False) -> Job:
    """The tenant's job, or NotFound; with `hold` nobody else writes it until the transaction ends."""
    job = repository.get(session, tenant, job_id, hold=hold)
    if job is None:
        raise NotFound(f"no job {job_id}", remedy="GET /v1/jobs lists yours")
    return job


def act(session: Session, identity: Identity, job_id: str, name: str) -> Job:
    """Make the owner's move of this name: start, pause, resume or cancel. `erase_run` follows the commit of a cancel.

    Raises:
        Conflict: the job's state does not allow it; names those that do.
    """
    # Held: a cancel is two moves, and a job whose run is lost between them would be in a state that neither begins in.
    job = find(session, identity.tenant, job_id, hold=True)
    for kind in MOVES:
        if kind.name == name and kind.mover is Mover.OWNER:
            moved = repository.move(session, job_id, kind)
            if moved is not None:
                audit(session, identity, f"job.{name}", job_id)
                return moved
    states = ", ".join(allowed_from(name))
    raise Conflict(
        f"{name} is allowed from {states}; the job is {job.state}",
        code="wrong_state",
        remedy=f"wait until the job is in one of: {states}" if job.state in OPEN else "submit a new job",
    )


def delete(session: Session, identity: Identity, job_id: str) -> list[str]:
    """Delete a job that has ended, with all that it made; `erase_run` follows the commit.

    Returns:
        The keys of its files, which are to be erased once this is committed.

    Raises:
        Conflict: it has not ended, or a job that has not ended needs its files.
    """
    # Held, or a run that ends just now could put a snapshot on record that nobody saw go.
    job = find(session, identity.tenant, job_id, hold=True)
    kept = snapshots.of_job(session, job_id)
    rows = _unread(session, identity.tenant, job_id)
    if not repository.erase(session, identity.tenant, job_id):
        ended = ", ".join(state for state in State if state in TERMINAL)
        raise Conflict(
            f"only a job that is {ended} can be erased; this one is {job.state}",
            code="wrong_state",
            remedy="cancel it first, or wait for its end",
        )
    keys = [row.storage_key for row in rows] + [snapshot.key for snapshot in kept]
    keys += [job.log_key] if job.log_key is not None else []
    _drop(session, identity, "job.delete", job_id, rows, keys)
    return keys


def erase_files(session: Session, identity: Identity, job_id: str) -> list[str]:
    """Erase what a job has left, and keep it on record; `erase_run` follows the commit.

    Returns:
        The keys of its files, which are to be erased once this is committed.

    Raises:
        Conflict: a job that has not ended needs them.
    """
    # What was shown of the job shows its files, and is kept until the revision rises.
    find(session, identity.tenant, job_id, hold=True).revision += 1
    rows = _unread(session, identity.tenant, job_id)
    keys = [row.storage_key for row in rows] + snapshots.drop(session, job_id, keep=0)
    _drop(session, identity, "model.delete", job_id, rows, keys)
    return keys


def _drop(
    session: Session, identity: Identity, action: str, job_id: str, rows: Sequence[Artifact], keys: Sequence[str]
) -> None:
    """Take a job's files off record, and their keys with them; `action` is what the audit calls it."""
    for row in rows:
        session.delete(row)
    audit(session, identity, action, job_id, {"artifacts": len(rows)})
    unname(session, keys)


def _unread(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """A job's files, which no job that has not ended needs; raises Conflict where one does."""
    rows = artifacts.every_of_job(session, tenant, job_id)
    reading = sorted({reader for row in rows for reader in repository.open_jobs_reading(session, tenant, row.id)})
    if reading:
        detail = f"{len(reading)} jobs that have not ended need its files: {', '.join(reading[:10])}"
        raise Conflict(detail, code="job_in_use", remedy="cancel them, or wait for their end")
    return rows


def run_folder(settings: Settings, job_id: str) -> Path:
    """Where a worker of this machine runs the job."""
    return settings.data_dir / "runs" / job_id


def log_tail(settings: Settings, storage: Storage, job: Job, size_bytes: int) -> bytes:
    """At most the last `size_bytes` of a run's log, from this machine's folder or the store; empty where neither is."""
    path = run_folder(settings, job.id) / LOG_NAME
    if path.exists():
        with path.open("rb") as text:
            text.seek(max(0, path.stat().st_size - size_bytes))
            return text.read(size_bytes)
    if job.log_key is None or not storage.has(job.log_key):
        return b""
    start = max(0, storage.size(job.log_key) - size_bytes)
    return b"".join(storage.open(job.log_key, start, size_bytes))


def erase_run(settings: Settings, job_id: str, *, keep_log: bool) -> None:
    """Erase what a run left on this machine: snapshots, inputs, and the log unless it is to stay."""
    folder = run_folder(settings, job_id)
    if not keep_log:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOG_NAME:
            entry.unlink(missing_ok=True)
