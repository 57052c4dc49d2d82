"""The routes of models: the base models of this server, and the trained ones of the caller, in OpenAI's shape."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.artifacts.models import Artifact
from app.dependencies import Member, Read, Router, Viewer, database, settings, storage
from app.erasure import erase
from app.errors import Forbidden, NotFound
from app.identity import Identity
from app.jobs import service
from app.jobs.models import Job
from app.jobs.names import PREFIX, from_openai, model_name
from app.models import repository
from app.paging import Asked, paged
from app.schemas import ListOf
from engine import models

router = Router(prefix="/v1/models", tags=["models"])
LONGEST = 400
"""A base's name, a tenant's, a suffix and an id."""
ModelId = Annotated[str, Path(max_length=LONGEST, description="Name of a base model, or name or id of a trained one.")]


class ModelShown(BaseModel):
    """A model; `id` is what a job's `model` takes. `job` and `artifact` are None for base models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str | None
    default_for: str | None
    job: str | None
    artifact: str | None


class ModelDeleted(BaseModel):
    """What is told of a model that is no more."""

    id: str
    object: Literal["model"]
    deleted: bool


@router.get("", response_model=ListOf[ModelShown], summary="List models")
def page(
    request: Request,
    identity: Viewer,
    session: Read,
    limit: Annotated[int, Query(ge=1, le=200, description="Most models of the page.")] = 200,
    after: Annotated[str | None, Query(max_length=LONGEST, description="The last id of the page before.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="Trained models oldest or newest first.")] = "desc",
) -> Response:
    """Base models first, then the caller's trained models."""
    base = _base(request)
    place = next((number for number, one in enumerate(base, 1) if one["id"] == after), None)
    past_base = after is not None and place is None
    rows = [] if past_base else base[place or 0 :][: limit + 1]
    asked = Asked(limit - len(rows), _artifact(session, identity, str(after)) if past_base else None, order)
    if len(rows) <= limit:
        rows += [_shown(*one) for one in repository.trained(session, identity.tenant, asked)]
    return answer(request, paged(rows, Asked(limit, after, order), lambda one: one))


@router.get("/{model_id:path}", response_model=ModelShown, summary="Look at a model")
def find(
    request: Request,
    identity: Viewer,
    session: Read,
    model_id: ModelId,
) -> Response:
    """One model."""
    trained = repository.find(session, identity.tenant, model_id)
    if trained is not None:
        return answer(request, _shown(*trained))
    base = next((one for one in _base(request) if one["id"] == model_id), None)
    if base is None:
        raise _unknown(model_id)
    return answer(request, base)


@router.delete("/{model_id:path}", response_model=ModelDeleted, summary="Erase a trained model")
def delete(request: Request, identity: Member, model_id: ModelId) -> Response:
    """Erases all that its job has left; the job stays on record. 409 while a job that has not ended needs it."""
    with database(request).session() as session:
        trained = repository.find(session, identity.tenant, model_id)
        if trained is None and any(one["id"] == model_id for one in _base(request)):
            raise Forbidden(f"{model_id} is a base model, and everybody's", remedy="name a model of your own")
        if trained is None:
            raise _unknown(model_id)
        job_id = trained[0].job_id
        match(request, lambda: _shown(*trained))
        keys = service.erase_files(session, identity, job_id)
    service.erase_run(settings(request), job_id, keep_log=True)
    erase(database(request), storage(request), keys)
    return answer(request, {"id": model_id, "object": "model", "deleted": True})


def _artifact(session: Session, identity: Identity, model_id: str) -> str:
    """The id that a list goes on from, where it was at this trained model."""
    if not model_id.startswith(PREFIX):
        return model_id
    trained = repository.find(session, identity.tenant, model_id)
    if trained is None:
        raise _unknown(model_id)
    return trained[0].id


def _unknown(model_id: str) -> NotFound:
    return NotFound(f"no model {model_id!r}", remedy="GET /v1/models lists them")


def _base(request: Request) -> list[dict[str, Any]]:
    return [
        {
            "id": one["id"],
            "object": "model",
            "created": 0,
            "owned_by": "fiftytwo",
            "task": one["task"],
            "default_for": one["default_for"],
            "job": None,
            "artifact": None,
        }
        for one in models.describe(settings(request).models_dir)
    ]


def _shown(artifact: Artifact, job: Job | None) -> dict[str, Any]:
    return {
        "id": model_name(job) if job is not None and from_openai(job) else artifact.id,
        "object": "model",
        "created": int(artifact.created_at.timestamp()),
        "owned_by": artifact.tenant,
        "task": job.task if job is not None else None,
        "default_for": None,
        "job": artifact.job_id,
        "artifact": artifact.id,
    }
