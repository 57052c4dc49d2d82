"""What trained models are called at OpenAI's door, `ft:BASE:TENANT:SUFFIX:ID`, and which job such a name means.

The name follows from the job alone, so nothing needs to remember it.
"""

import re

from app.jobs.models import Job
from app.webhooks.outbox import OPENAI

PREFIX = "ft:"
_UNSAID = re.compile(r"[^A-Za-z0-9._-]+")


def from_openai(job: Job) -> bool:
    """Whether the job was asked for at that door."""
    return job.event_family == OPENAI


def model_name(job: Job) -> str:
    """What the model of a training job is called there."""
    suffix = _UNSAID.sub("-", job.name or "").strip("-")
    return f"{PREFIX}{job.spec.get('model')}:{job.tenant}:{suffix}:{job.id.removeprefix('job_')}"


def job_id_of(name: str) -> str | None:
    """Id of the job that such a name means, be the rest of it right or not; None: it is no such name."""
    return f"job_{name.rpartition(':')[2]}" if name.startswith(PREFIX) else None
