"""Every query on fine-tuning jobs that the jobs' own repository does not have. Knows no HTTP."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.models import JobEvent, MetricPoint
from app.openai_tables.models import FineTuning

CHECKPOINT = "checkpoint_written"


def asked(session: Session, tenant: str, job_ids: Sequence[str]) -> dict[str, FineTuning]:
    """What jobs were asked for with on this surface, by job; those from another door are not among them."""
    query = select(FineTuning).where(FineTuning.tenant == tenant, FineTuning.job_id.in_(job_ids))
    return {row.job_id: row for row in session.scalars(query)}


def events_before(session: Session, job_id: str, sequence: int | None, limit: int) -> Sequence[JobEvent]:
    """Up to `limit` events before a sequence number, the newest first."""
    query = select(JobEvent).where(JobEvent.job_id == job_id)
    if sequence is not None:
        query = query.where(JobEvent.sequence < sequence)
    return session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit)).all()


def saved(session: Session, job_id: str) -> dict[int, datetime]:
    """When the run reached each step at which an epoch was validated or a snapshot was written, the last step last."""
    validated = select(MetricPoint.step, MetricPoint.at).where(
        MetricPoint.job_id == job_id, MetricPoint.name == "valid_loss"
    )
    found = {row.step: row.at for row in session.execute(validated)}
    written = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == CHECKPOINT)
    for event in session.scalars(written.order_by(JobEvent.sequence)):
        found.setdefault(int(event.data["step"]), event.at)
    return dict(sorted(found.items()))


def scores(session: Session, job_id: str) -> dict[int, float]:
    """The score on the validation rows at each step that has one."""
    query = select(MetricPoint.step, MetricPoint.value)
    query = query.where(MetricPoint.job_id == job_id, MetricPoint.name == "valid_score")
    return {row.step: row.value for row in session.execute(query)}


def points_at(session: Session, job_id: str, steps: Sequence[int]) -> Mapping[int, dict[str, float]]:
    """The values of every metric at these steps."""
    query = select(MetricPoint.step, MetricPoint.name, MetricPoint.value)
    query = query.where(MetricPoint.job_id == job_id, MetricPoint.step.in_(steps))
    found: dict[int, dict[str, float]] = {step: {} for step in steps}
    for step, name, value in session.execute(query):
        found[step][name] = value
    return found
