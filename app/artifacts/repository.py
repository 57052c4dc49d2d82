"""Every query on artifacts; each one names the tenant. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact


def find(session: Session, tenant: str, artifact_id: str) -> Artifact | None:
    """The tenant's artifact with this id."""
    return session.scalar(select(Artifact).where(Artifact.id == artifact_id, Artifact.tenant == tenant))


def of_job(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """The artifacts of one job, in the order they were made."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.tenant == tenant).order_by(Artifact.id)
    return session.scalars(query).all()


def of_kind(session: Session, tenant: str, kind: str, limit: int = 200) -> Sequence[Artifact]:
    """The tenant's newest artifacts of one kind."""
    query = select(Artifact).where(Artifact.tenant == tenant, Artifact.kind == kind)
    return session.scalars(query.order_by(Artifact.id.desc()).limit(limit)).all()
