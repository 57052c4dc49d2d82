"""Every query on artifacts; each one names the tenant. Knows no HTTP.

What the service keeps for itself is found by `every_of_job` and `kept` alone, so that no route hands it out.
"""

from collections.abc import Sequence

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.paging import Asked

KEPT = "kept_answers"
"""The kind of a file that the engine writes for the service alone: it tells private rows apart."""


def handed_out(tenant: str) -> Select[Artifact]:
    """The tenant's artifacts, but for what the service keeps for itself."""
    return select(Artifact).where(Artifact.tenant == tenant, Artifact.kind != KEPT)


def find(session: Session, tenant: str, artifact_id: str) -> Artifact | None:
    """The tenant's artifact with this id."""
    return session.scalar(handed_out(tenant).where(Artifact.id == artifact_id))


def of_job(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """The artifacts of one job, in the order they were made."""
    return session.scalars(handed_out(tenant).where(Artifact.job_id == job_id).order_by(Artifact.id)).all()


def every_of_job(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """All that one job has left, also what is not handed out."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.tenant == tenant).order_by(Artifact.id)
    return session.scalars(query).all()


def of_jobs(session: Session, tenant: str, job_ids: Sequence[str]) -> dict[str, list[Artifact]]:
    """The artifacts of several jobs by job, each in the order they were made."""
    return _by_job(session, handed_out(tenant).where(Artifact.job_id.in_(job_ids)))


def kept(session: Session, tenant: str, job_ids: Sequence[str]) -> dict[str, list[Artifact]]:
    """What the service keeps of several jobs for itself, by job."""
    wanted = (Artifact.job_id.in_(job_ids), Artifact.tenant == tenant, Artifact.kind == KEPT)
    return _by_job(session, select(Artifact).where(*wanted))


def page_of_job(session: Session, tenant: str, job_id: str, asked: Asked) -> Sequence[Artifact]:
    """One page of a job's artifacts and one more."""
    return session.scalars(asked.cut(handed_out(tenant).where(Artifact.job_id == job_id), Artifact.id)).all()


def _by_job(session: Session, query: Select[Artifact]) -> dict[str, list[Artifact]]:
    found: dict[str, list[Artifact]] = {}
    for artifact in session.scalars(query.order_by(Artifact.id)):
        found.setdefault(artifact.job_id, []).append(artifact)
    return found
