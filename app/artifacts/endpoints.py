"""The routes of artifacts: what they are, and their bytes."""

from typing import Annotated

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer
from app.artifacts import repository
from app.artifacts.models import Artifact
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.artifacts.serving import CONTENT, served
from app.database import let_go
from app.dependencies import Read, Router, Viewer, storage
from app.errors import NotFound

router = Router(prefix="/v1/artifacts", tags=["artifacts"])
ArtifactId = Annotated[str, Path(max_length=64, description="Id of an artifact.")]


@router.get("/{artifact_id}", response_model=ArtifactShown, summary="Look at an artifact")
def find(request: Request, identity: Viewer, session: Read, artifact_id: ArtifactId) -> Response:
    """One artifact; its bytes are at `url`."""
    return answer(request, artifact_json(_found(repository.find(session, identity.tenant, artifact_id), artifact_id)))


@router.get("/{artifact_id}/content", responses=CONTENT, response_class=Response, summary="Download an artifact")
def content(request: Request, identity: Viewer, session: Read, artifact_id: ArtifactId) -> Response:
    """The bytes, whole or by `Range`; the ETag is the content's sha256, so `If-Range` resumes safely."""
    artifact = _found(repository.find(session, identity.tenant, artifact_id), artifact_id)
    let_go(session)
    return served(request, storage(request), artifact, artifact.media_type, "run the job again")


def _found(artifact: Artifact | None, artifact_id: str) -> Artifact:
    if artifact is None:
        raise NotFound(f"no artifact {artifact_id}", remedy="GET /v1/jobs/{id}/artifacts lists those of a job")
    return artifact
