"""Artifacts as they stand in answers."""

from typing import Any, Literal

from pydantic import BaseModel

from app.answers import timestamp
from app.artifacts.models import Artifact


class ArtifactShown(BaseModel):
    """An artifact in answers; its bytes are at `url`."""

    id: str
    object: Literal["artifact"]
    job: str
    kind: str
    filename: str
    size_bytes: int
    sha256: str
    media_type: str
    url: str
    created_at: str


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """An artifact as it stands in answers."""
    return {
        "id": artifact.id,
        "object": "artifact",
        "job": artifact.job_id,
        "kind": artifact.kind,
        "filename": artifact.filename,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "media_type": artifact.media_type,
        "url": f"/v1/artifacts/{artifact.id}/content",
        "created_at": timestamp(artifact.created_at),
    }
