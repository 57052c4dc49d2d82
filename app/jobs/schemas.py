"""Jobs as they stand in requests and answers. Knows no rule beyond a field's own bounds."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, WrapValidator, field_validator
from pydantic_core import PydanticCustomError

from app.answers import timestamp
from app.artifacts.models import Artifact
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.jobs.models import Job, JobEvent
from app.jobs.states import State, allowed_from
from app.schemas import Name, OneLine
from engine.errors import Fault
from engine.faults import from_validation
from engine.spec import Kind, Spec

KINDS_SERVED = ("train",)
OWNERS_MOVES = ("start", "cancel", "pause", "resume")
MetadataKey = OneLine[Annotated[str, StringConstraints(min_length=1, max_length=64)]]
MetadataValue = OneLine[Annotated[str, StringConstraints(max_length=512)]]

EXAMPLE: dict[str, Any] = {
    "task": "text_classification",
    "dataset": "ds_01JZX0M5K2N8Q4R6T9V1W3Y5Z7",
    "instructions": [1, "length_bucketing", {"name": "structured_pruning", "ratio": 0.2}],
    "training": {"epochs": 2, "batch_size": 32, "max_length": 96},
    "limits": {"max_size_ratio": 0.9},
    "name": "spam filter",
    "metadata": {"team": "mail"},
}


class JobCreate(Spec):
    """A job to be made: the spec of its run, and what only the service reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    name: Name | None = Field(default=None, description="What people call it.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs of your own, to filter lists by."
    )
    auto_start: bool = Field(default=True, strict=True, description="false: checked and stored, and queued by `start`.")
    webhook: None = Field(default=None, description="Not served yet: null, or left out.")

    @field_validator("kind")
    @classmethod
    def _served_kind(cls, kind: Kind) -> Kind:
        if kind not in KINDS_SERVED:
            raise PydanticCustomError(
                "kind_not_available",
                "this server does not run jobs of kind {kind} yet",
                {"kind": kind, "remedy": f"send {' or '.join(KINDS_SERVED)}"},
            )
        return kind

    @field_validator("webhook", mode="before")
    @classmethod
    def _no_webhook(cls, webhook: object) -> None:
        if webhook is not None:
            raise PydanticCustomError(
                "webhook_not_available",
                "this server sends no webhooks yet",
                {"remedy": "leave webhook out, and poll with GET /v1/jobs/{id}?wait_seconds=60"},
            )


class Unfit:
    """A body that is no job, with its faults: kept, so that what can be checked further is told along with them."""

    def __init__(self, body: Any, faults: list[Fault]) -> None:
        self.body = body
        self.faults = faults


def _fitting(body: Any, validate: Any) -> Any:
    if isinstance(body, bytes):
        # It came under another content type than JSON's: that is the one fault to tell.
        return validate(body)
    try:
        return validate(body)
    except ValidationError as error:
        return Unfit(body, from_validation(error, JobCreate))


Submission = Annotated[JobCreate, WrapValidator(_fitting)]
"""To pydantic and to the API's document a `JobCreate`; to the endpoint a `JobCreate` or `Unfit`."""


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
    """A request's fields with every default filled in."""

    model_config = ConfigDict(extra="allow")

    kind: Kind
    task: str | None
    model: str | None
    dataset: str | dict[str, str | None]
    instructions: list[dict[str, Any]]
    metric: str
    training: dict[str, Any]
    limits: dict[str, Any]
    export: dict[str, Any]
    name: str | None
    metadata: dict[str, str]


class JobShown(SpecShown):
    """A job in answers."""

    id: str
    object: Literal["job"]
    state: State
    phase: str | None
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
    pages = {name: f"{own}/{name}" for name in ("metrics", "events", "logs", "artifacts")}
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
