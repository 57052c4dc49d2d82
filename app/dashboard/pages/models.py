"""Models: the bases of this server, and what the tenant's jobs have trained."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.answers import timestamp
from app.dashboard.rendering import render
from app.dashboard.routing import PanelRouter
from app.dashboard.visitors import Reader
from app.dependencies import Read, settings
from app.models import repository
from app.paging import After, Asked
from engine import models

router = PanelRouter()
ROWS = 50


@router.get("/models")
def page(
    request: Request,
    visitor: Reader,
    session: Read,
    after: After = None,
) -> Response:
    """The bases, and one page of trained models, the newest first."""
    rows = repository.trained(session, visitor.identity.tenant, Asked(ROWS, after, "desc"))
    return render(
        request,
        "models.html",
        bases=[] if after else models.describe(settings(request).models_dir),
        trained=[_shown(artifact, job) for artifact, job in rows[:ROWS] if job is not None],
        next=f"/models?after={rows[ROWS - 1][0].id}" if len(rows) > ROWS else None,
        first="/models" if after else None,
    )


def _shown(artifact: Any, job: Any) -> dict[str, Any]:
    return {
        "artifact": artifact.id,
        "job": job.id,
        "name": job.name,
        "task": job.task,
        "kind": job.kind,
        "base": job.spec.get("model") if job.kind == "train" else None,
        "size_bytes": artifact.size_bytes,
        "numbers": [step["number"] for step in job.plan],
        "created_at": timestamp(artifact.created_at),
    }
