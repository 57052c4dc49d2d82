"""What happened to a job, in OpenAI's words: its events, and the steps that are its checkpoints. Knows no query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.errors import Invalid
from app.jobs.models import Job, JobEvent
from app.jobs.states import State
from app.openai.fine_tuning.repository import CHECKPOINT
from engine.errors import Fault
from engine.evaluate import METRICS

EVENT, CHECKPOINT_ID = "ftevent", "ftckpt"
_LEVELS = {State.FAILED.value: "error", State.CANCELLED.value: "warn"}


def number_of(given: str | None, kind: str, job_id: str) -> int | None:
    """The number at the end of an id of this kind and job, as `after` names it; Invalid where it is none."""
    if given is None:
        return None
    number = given.removeprefix(f"{kind}_{job_id.removeprefix('job_')}_")
    if number == given or not (number.isascii() and number.isdigit() and len(number) < 16):
        detail = f"{given!r} is no id of this list"
        raise Invalid(detail, faults=[Fault("", "wrong_cursor", detail, "send the last id of the page before")])
    return int(number)


def event_json(event: JobEvent, job: Job, points: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    """An event; one of a snapshot tells the figures of its step."""
    message, level, data = _told(event), "info", dict(event.data)
    if event.type == CHECKPOINT:
        step = int(event.data["step"])
        data = {"step": step, "total_steps": job.total_steps, **points.get(step, {})}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in points.get(step, {}).items() if "loss" in name)
        message = f"Step {step}/{job.total_steps}: {figures or 'snapshot written'}"
    if event.type == "state_changed":
        level = _LEVELS.get(str(event.data.get("state")), "info")
        if level == "error" and job.error is not None:
            message = f"{message} {job.error['code']}: {job.error.get('detail', '')}"
    if event.type == "warned":
        level = "warn"
    return {
        "id": f"{EVENT}_{job.id.removeprefix('job_')}_{event.sequence}",
        "object": "fine_tuning.job.event",
        "created_at": int(event.at.timestamp()),
        "level": level,
        "message": message,
        "type": "metrics" if event.type == CHECKPOINT else "message",
        "data": data,
    }


def _told(event: JobEvent) -> str:
    data = event.data
    words = {
        "state_changed": f"The job is {data.get('state')}.",
        "phase_started": f"The phase {data.get('phase')} has begun.",
        "file_written": f"{data.get('filename')} is written.",
        "warned": str(data.get("detail")),
    }
    return words.get(event.type, event.type.replace("_", " "))


def step_of_the_model(
    training: Mapping[str, Any], metric: str, steps: Sequence[int], scores: Mapping[int, float]
) -> int:
    """Whose weights a model has: those of the last step, or of the first that did best where the best were kept.

    Args:
        training: of the job's spec, as `metric` is.
        steps: every checkpoint's; at least one.
        scores: on the validation rows, by step, as far as there are any.
    """
    if training["keep"] != "best" or not scores:
        return max(steps)
    best = (max if METRICS[metric].more_is_better else min)(scores.values())
    return min(step for step, score in scores.items() if score == best)


def checkpoint_json(
    job: Job, step: int, at: datetime, figures: Mapping[str, float], model: str | None
) -> dict[str, Any]:
    """The checkpoint of a step; `model`: what its weights are called, None where they were not kept."""
    valid_loss, valid_accuracy = figures.get("valid_loss"), figures.get("valid_token_accuracy")
    return {
        "id": f"{CHECKPOINT_ID}_{job.id.removeprefix('job_')}_{step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(at.timestamp()),
        "fine_tuned_model_checkpoint": model,
        "fine_tuning_job_id": job.id,
        "step_number": step,
        "metrics": {
            "step": step,
            "train_loss": figures.get("train_loss"),
            # It would cost every step, and be needed of a few.
            "train_mean_token_accuracy": None,
            # A run validates on all valid rows, never on a batch of them.
            "valid_loss": valid_loss,
            "valid_mean_token_accuracy": valid_accuracy,
            "full_valid_loss": valid_loss,
            "full_valid_mean_token_accuracy": valid_accuracy,
            "valid_score": figures.get("valid_score"),
        },
        "kept": model is not None,
    }
