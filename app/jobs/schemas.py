"""Jobs as they stand in answers. Knows no rule."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.answers import timestamp
from app.artifacts.models import Artifact
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.jobs.models import Job, JobEvent
from app.jobs.states import State, allowed_from
from engine.spec import Kind


class Progress(BaseModel):
    """How far the run is; the rest is an estimate from its pace."""

    step: int
    total_steps: int | None
    fraction: float | None
    eta_seconds: float | None


class PlanStep(BaseModel):
    """One instruction of the ordered plan."""

    model_config = ConfigDict(extra="allow")

    number: int
    name: str
    parameters: dict[str, Any]
    hooks: list[str]


class JobError(BaseModel):
    """Why a job failed."""

    model_config = ConfigDict(extra="allow")

    code: str
    title: str
    detail: str
    remedy: str


class SpecShown(BaseModel):
    """A request's fields with every default filled in; those that its kind does not have are absent."""

    model_config = ConfigDict(extra="allow")

    kind: Kind
    task: str | None = None
    model: str | None = None
    dataset: str | dict[str, str | None] | None = None
    instructions: list[dict[str, Any]] = []
    metric: str | None = None
    training: dict[str, Any] | None = None
    limits: dict[str, Any] | None = None
    export: dict[str, Any] | None = None
    name: str | None
    metadata: dict[str, str]


class WebhookOfJob(BaseModel):
    """Who is told of the job's end; the secret is never shown."""

    url: str


class JobShown(SpecShown):
    """A job in answers."""

    id: str
    object: Literal["job"]
    state: State
    phase: str | None
    webhook: WebhookOfJob | None
    attempt: int
    progress: Progress
    plan: list[PlanStep]
    latest: dict[str, float]
    created_at: str
    started_at: str | None
    finished_at: str | None
    error: JobError | None
    result: dict[str, Any] | None
    artifacts: list[ArtifactShown]
    receipt_url: str | None
    links: dict[str, str]


class DryRun(SpecShown):
    """What a job would do and cost; nothing is stored."""

    object: Literal["dry_run"]
    plan: list[PlanStep]
    estimate: dict[str, Any]


class EventShown(BaseModel):
    """Something that happened to a job; `id` counts from 1 within the job."""

    id: str
    object: Literal["event"]
    type: str
    at: str
    data: dict[str, Any]


class PointShown(BaseModel):
    """One value of a metric."""

    step: int
    value: float
    at: str


def job_json(job: Job, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """A job as it stands in answers."""
    own = f"/v1/jobs/{job.id}"
    pages = {name: f"{own}/{name}" for name in ("metrics", "events", "logs", "artifacts", "deliveries")}
    moves = {
        name: f"{own}/{name}" for name in ("start", "cancel", "pause", "resume") if job.state in allowed_from(name)
    }
    receipt = any(artifact.kind == "receipt" for artifact in artifacts)
    return {
        "id": job.id,
        "object": "job",
        "state": job.state.value,
        "phase": job.phase,
        "attempt": job.attempt,
        "progress": progress_json(job),
        **job.spec,
        "name": job.name,
        "metadata": job.metadata_,
        "webhook": {"url": job.webhook_url} if job.webhook_url is not None else None,
        "plan": job.plan,
        "latest": job.latest,
        "created_at": timestamp(job.created_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "error": job.error,
        "result": job.result,
        "artifacts": [artifact_json(artifact) for artifact in artifacts],
        "receipt_url": f"{own}/receipt" if receipt else None,
        "links": {"self": own, **pages, **moves},
    }


def progress_json(job: Job) -> dict[str, Any]:
    """How far a job is."""
    fraction = min(1.0, job.step / job.total_steps) if job.total_steps else None
    return {
        "step": job.step,
        "total_steps": job.total_steps,
        "fraction": round(fraction, 4) if fraction is not None else None,
        "eta_seconds": job.eta_seconds,
    }


class JobErased(BaseModel):
    """What is told of a job that is no more."""

    id: str
    object: Literal["job"]
    deleted: bool


def event_json(event: JobEvent) -> dict[str, Any]:
    """An event as it stands in answers."""
    return {
        "id": str(event.sequence),
        "object": "event",
        "type": event.type,
        "at": timestamp(event.at),
        "data": event.data,
    }
