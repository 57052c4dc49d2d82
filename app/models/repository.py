"""The queries on trained models: an artifact of kind `model` beside the job that made it. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.jobs.models import Job
from app.jobs.names import job_id_of, model_name
from app.paging import Asked

_TRAINED = select(Artifact, Job).outerjoin(Job, Job.id == Artifact.job_id).where(Artifact.kind == "model")


def trained(session: Session, tenant: str, asked: Asked) -> Sequence[Row[Artifact, Job | None]]:
    """One page of the tenant's trained models and one more, each with its job."""
    return session.execute(asked.cut(_TRAINED.where(Artifact.tenant == tenant), Artifact.id)).all()


def find(session: Session, tenant: str, model_id: str) -> Row[Artifact, Job | None] | None:
    """The tenant's trained model, by the id of its artifact or by its name at OpenAI's door, with its job."""
    job_id = job_id_of(model_id)
    wanted = Artifact.id == model_id if job_id is None else Artifact.job_id == job_id
    found = session.execute(_TRAINED.where(wanted, Artifact.tenant == tenant)).one_or_none()
    if found is None or job_id is None:
        return found
    return found if found[1] is not None and model_name(found[1]) == model_id else None
