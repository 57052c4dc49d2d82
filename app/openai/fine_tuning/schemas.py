"""Fine-tuning jobs as they stand in answers. Knows no rule."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.artifacts.models import Artifact
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.jobs.models import Job
from app.jobs.names import from_openai, model_name
from app.jobs.schemas import Progress, progress_json
from app.jobs.states import State
from app.openai_tables.models import FineTuning

STATUSES: dict[State, str] = {
    State.CREATED: "validating_files",
    State.QUEUED: "queued",
    State.RUNNING: "running",
    State.PAUSING: "running",
    State.PAUSED: "paused",
    # There is no way back from it, and a client that cancels looks for this word.
    State.CANCELLING: "cancelled",
    State.CANCELLED: "cancelled",
    State.SUCCEEDED: "succeeded",
    State.FAILED: "failed",
}


class ErrorShown(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    param: str | None


class HyperparametersShown(BaseModel):
    """As they were resolved."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float | Literal["auto"]


class FineTuningShown(BaseModel):
    """A training job in OpenAI's shape; what is not OpenAI's says more of it, and `job_url` all."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
    error: ErrorShown | None
    hyperparameters: HyperparametersShown
    method: dict[str, Any]
    seed: int
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    result_files: list[str]
    integrations: list[Any]
    metadata: dict[str, str]
    suffix: str | None
    state: str
    phase: str | None
    progress: Progress
    task: str | None
    instructions: list[dict[str, Any]]
    training: dict[str, Any]
    limits: dict[str, Any]
    export: dict[str, Any]
    latest: dict[str, float]
    artifacts: list[ArtifactShown]
    job_url: str
    receipt_url: str | None


class EventShown(BaseModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class CheckpointMetrics(BaseModel):
    """Figures of one step; those that the run does not have are null."""

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None
    valid_score: float | None


class CheckpointShown(BaseModel):
    """A step at which an epoch was validated or a snapshot was written; `kept`: whether its weights are there.

    Without them it names no model.
    """

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str | None
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics
    kept: bool


def fine_tuning_json(job: Job, asked: FineTuning | None, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """A training job as it stands in answers; `asked` None: it came by another door."""
    spec, training = job.spec, job.spec["training"]
    train, valid = _files(spec["dataset"]) if asked is None else (asked.training_file, asked.validation_file)
    hyperparameters = {
        "n_epochs": training["epochs"],
        "batch_size": training["batch_size"],
        "learning_rate_multiplier": (asked.learning_rate_multiplier if asked is not None else None) or "auto",
    }
    kinds = {artifact.kind for artifact in artifacts}
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at.timestamp()),
        "finished_at": _unix(job.finished_at),
        "estimated_finish": _finish(job),
        "model": spec["model"],
        "fine_tuned_model": trained_model(job, artifacts),
        "organization_id": job.tenant,
        "status": STATUSES[job.state],
        "error": _error(job),
        "hyperparameters": hyperparameters,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": training["seed"],
        "trained_tokens": (job.result or {}).get("trained_tokens"),
        "training_file": train,
        "validation_file": valid,
        "result_files": [artifact.id for artifact in artifacts],
        "integrations": [],
        "metadata": job.metadata_,
        "suffix": job.name,
        "state": job.state.value,
        "phase": job.phase,
        "progress": progress_json(job),
        "task": job.task,
        **{name: spec[name] for name in ("instructions", "training", "limits", "export")},
        "latest": job.latest,
        "artifacts": [artifact_json(artifact) for artifact in artifacts],
        "job_url": f"/v1/jobs/{job.id}",
        "receipt_url": f"/v1/jobs/{job.id}/receipt" if "receipt" in kinds else None,
    }


def trained_model(job: Job, artifacts: Sequence[Artifact]) -> str | None:
    """What the job's model is called, once it is there."""
    model = next((artifact.id for artifact in artifacts if artifact.kind == "model"), None)
    if job.state is not State.SUCCEEDED or model is None:
        return None
    return model_name(job) if from_openai(job) else model


def _files(dataset: str | dict[str, str | None]) -> tuple[str, str | None]:
    if isinstance(dataset, str):
        return dataset, None
    return str(dataset["train"]), dataset.get("test")


def _unix(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None


def _finish(job: Job) -> int | None:
    return _unix(datetime.now(UTC) + timedelta(seconds=job.eta_seconds)) if job.eta_seconds is not None else None


def _error(job: Job) -> dict[str, Any] | None:
    if job.error is None:
        return None
    said = [job.error.get(name) for name in ("detail", "remedy")]
    return {"code": job.error["code"], "message": "; ".join(filter(None, said)) or job.error["title"], "param": None}
