"""Every query on artifacts; each one names the tenant. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.paging import Asked


def find(session: Session, tenant: str, artifact_id: str) -> Artifact | None:
    """The tenant's artifact with this id."""
    return session.scalar(select(Artifact).where(Artifact.id == artifact_id, Artifact.tenant == tenant))


def of_job(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """The artifacts of one job, in the order they were made."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.tenant == tenant).order_by(Artifact.id)
    return session.scalars(query).all()


def of_jobs(session: Session, tenant: str, job_ids: Sequence[str]) -> dict[str, list[Artifact]]:
    """The artifacts of several jobs by job, each in the order they were made."""
    query = select(Artifact).where(Artifact.job_id.in_(job_ids), Artifact.tenant == tenant).order_by(Artifact.id)
    found: dict[str, list[Artifact]] = {}
    for artifact in session.scalars(query):
        found.setdefault(artifact.job_id, []).append(artifact)
    return found


def page_of_job(session: Session, tenant: str, job_id: str, asked: Asked) -> Sequence[Artifact]:
    """One page of a job's artifacts and one more."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.tenant == tenant)
    return session.scalars(asked.cut(query, Artifact.id)).all()
