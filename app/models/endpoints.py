"""The routes of models: the base models of this server, and the trained ones of the caller, in OpenAI's shape."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.artifacts.models import Artifact
from app.dependencies import Read, Router, Viewer, settings
from app.errors import NotFound
from app.models import repository
from app.paging import Asked, paged
from app.schemas import ListOf
from engine import models

router = Router(prefix="/v1/models", tags=["models"])


class ModelShown(BaseModel):
    """A model; `id` is what a job's `model` takes. `job` is None for base models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str | None
    default_for: str | None
    job: str | None


@router.get("", response_model=ListOf[ModelShown], summary="List models")
def page(
    request: Request,
    identity: Viewer,
    session: Read,
    limit: Annotated[int, Query(ge=1, le=200, description="Most models of the page.")] = 200,
    after: Annotated[str | None, Query(max_length=200, description="The last id of the page before.")] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="Trained models oldest or newest first.")] = "desc",
) -> Response:
    """Base models first, then the caller's trained models."""
    base = _base(request)
    place = next((number for number, one in enumerate(base, 1) if one["id"] == after), None)
    past_base = after is not None and place is None
    rows = [] if past_base else base[place or 0 :][: limit + 1]
    asked = Asked(limit - len(rows), after if past_base else None, order)
    if len(rows) <= limit:
        rows += [_shown(*one) for one in repository.trained(session, identity.tenant, asked)]
    return answer(request, paged(rows, Asked(limit, after, order), lambda one: one))


@router.get("/{model_id:path}", response_model=ModelShown, summary="Look at a model")
def find(
    request: Request,
    identity: Viewer,
    session: Read,
    model_id: Annotated[str, Path(max_length=200, description="Name of a base model or id of a trained one.")],
) -> Response:
    """One model."""
    trained = repository.find(session, identity.tenant, model_id)
    if trained is not None:
        return answer(request, _shown(*trained))
    base = next((one for one in _base(request) if one["id"] == model_id), None)
    if base is None:
        raise NotFound(f"no model {model_id!r}", remedy="GET /v1/models lists them")
    return answer(request, base)


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
        }
        for one in models.describe(settings(request).models_dir)
    ]


def _shown(artifact: Artifact, task: str | None) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "object": "model",
        "created": int(artifact.created_at.timestamp()),
        "owned_by": artifact.tenant,
        "task": task,
        "default_for": None,
        "job": artifact.job_id,
    }
