"""The queries on trained models: an artifact of kind `model` beside the task of its job. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.jobs.models import Job

_MOST = 200
_TRAINED = select(Artifact, Job.task).outerjoin(Job, Job.id == Artifact.job_id).where(Artifact.kind == "model")


def trained(session: Session, tenant: str) -> Sequence[Row[Artifact, str | None]]:
    """The tenant's newest trained models, each with its task."""
    return session.execute(_TRAINED.where(Artifact.tenant == tenant).order_by(Artifact.id.desc()).limit(_MOST)).all()


def find(session: Session, tenant: str, artifact_id: str) -> Row[Artifact, str | None] | None:
    """The tenant's trained model with this id, with its task."""
    return session.execute(_TRAINED.where(Artifact.id == artifact_id, Artifact.tenant == tenant)).one_or_none()
