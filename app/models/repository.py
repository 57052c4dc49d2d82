"""The queries on trained models: an artifact of kind `model` beside the task of its job. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.jobs.models import Job
from app.paging import Asked

_TRAINED = select(Artifact, Job.task).outerjoin(Job, Job.id == Artifact.job_id).where(Artifact.kind == "model")


def trained(session: Session, tenant: str, asked: Asked) -> Sequence[Row[Artifact, str | None]]:
    """One page of the tenant's trained models and one more, each with its task."""
    return session.execute(asked.cut(_TRAINED.where(Artifact.tenant == tenant), Artifact.id)).all()


def find(session: Session, tenant: str, artifact_id: str) -> Row[Artifact, str | None] | None:
    """The tenant's trained model with this id, with its task."""
    return session.execute(_TRAINED.where(Artifact.id == artifact_id, Artifact.tenant == tenant)).one_or_none()
