"""The routes of models: the base models of this server, and the trained ones of the caller, in OpenAI's shape."""

from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.artifacts.models import Artifact
from app.dependencies import Read, Router, Viewer, settings
from app.errors import NotFound
from app.models import repository
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
def page(request: Request, identity: Viewer, session: Read) -> Response:
    """Base models first, then the caller's trained models, the newest first."""
    trained = repository.trained(session, identity.tenant)
    data = [*_base(request), *(_shown(artifact, task) for artifact, task in trained)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return answer(request, {"object": "list", "data": data, "has_more": False, **ends})


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
