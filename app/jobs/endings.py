"""What else happens in the transaction that moves a job: its account is settled, files that it alone needed go, its
end is counted, and who wants to hear of it is told later, for certain.
"""

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.jobs import files, tallies
from app.jobs.models import Job
from app.jobs.states import TERMINAL, Move, Mover
from app.moments import rfc3339
from app.privacy import settlement
from app.webhooks import outbox


def follow(session: Session, job: Job, move: Move) -> None:
    """Follow a move that was made: nobody has to remember to, whoever ends a job, or finds it lost."""
    if move.mover is Mover.RESCUE:
        settlement.lose(session, job.id)
    if move.target in TERMINAL:
        settlement.settle(session, job.id)
        files.drop(session, job.id)
        tallies.ended(session, job)
        outbox.post(session, job.tenant, job.id, job.event_family, _facts(job))


def _facts(job: Job) -> dict[str, Any]:
    """The job as an event tells of it: enough to know which it is and how it ended."""
    return {
        "state": job.state.value,
        "kind": job.kind,
        "task": job.task,
        "name": job.name,
        "metadata": job.metadata_,
        "created_at": _moment(job.created_at),
        "started_at": _moment(job.started_at),
        "finished_at": _moment(job.finished_at),
        "error": {name: job.error[name] for name in ("code", "title")} if job.error else None,
        "url": f"/v1/jobs/{job.id}",
    }


def _moment(at: datetime | None) -> str | None:
    return rfc3339(at) if at is not None else None
