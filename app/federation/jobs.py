"""The job of a round, as the domain of jobs wants it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.auth.audit import audit
from app.dependencies import queue
from app.identity import Identity
from app.ids import new_id
from app.jobs import files as job_files
from app.jobs import repository, service
from app.jobs.models import Job
from app.jobs.schemas import job_json
from app.jobs.states import State
from app.settings import Settings

RETRY_AFTER = "2"


def make_job(
    settings: Settings, session: Session, identity: Identity, spec: Mapping[str, Any], files: Mapping[str, str]
) -> str:
    """Store a queued job with this spec and the files that it alone needs; its id.

    Raises:
        RateLimited: the tenant has as many open jobs as it may.
    """
    service.refuse_beyond(settings.max_open_jobs, repository.open_jobs(session, identity.tenant))
    job = Job(
        id=new_id("job"),
        tenant=identity.tenant,
        kind=spec["kind"],
        task=None,
        name=None,
        metadata_={},
        spec=dict(spec),
        plan=[],
        inputs={},
        state=State.QUEUED,
        created_at=datetime.now(UTC),
    )
    repository.add(session, job)
    job_files.add(session, job.id, files)
    audit(session, identity, "job.create", job.id)
    return job.id


def ring_after_commit(request: Request, session: Session) -> None:
    """Wake a worker once the job is there."""
    event.listen(session, "after_commit", lambda _: queue(request).ring(), once=True)


def shown(request: Request, session: Session, identity: Identity, job_id: str) -> Response:
    """The answer that tells of the new job."""
    job = service.find(session, identity.tenant, job_id)
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": RETRY_AFTER}
    return answer(request, job_json(job, ()), 202, headers)
