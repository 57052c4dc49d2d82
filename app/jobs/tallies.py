"""What an operator counts of jobs: how many ended how, how long they took and waited, how often a run was lost.

Counted in the transaction of the move itself, in rows that stay when a job is deleted: a counter that falls is none.
Imported by the worker too.
"""

from bisect import bisect_left

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import database_now, insert_into
from app.jobs.models import Job, JobEvent, JobTally

DURATION, WAIT, LAPSE = "duration", "wait", "lapse"
BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
"""Upper ends of the buckets in seconds; the last one has none."""
NEVER_RAN = -1
"""The bucket of jobs that ended before they began: they count as ended, and have no duration."""


def ended(session: Session, job: Job) -> None:
    """Count a job that has just ended."""
    if job.started_at is None or job.finished_at is None:
        _add(session, job, DURATION, NEVER_RAN, 0.0)
        return
    _time(session, job, DURATION, (job.finished_at - job.started_at).total_seconds())


def claimed(session: Session, job: Job) -> None:
    """Count how long a job that was just claimed had been queued, which is since the event before the claim."""
    queued = (JobEvent.job_id == job.id, JobEvent.sequence == job.events - 1)
    row = session.execute(select(JobEvent.at, database_now().label("now")).where(*queued)).one_or_none()
    if row is not None:
        _time(session, job, WAIT, (row.now - row.at).total_seconds())


def lapsed(session: Session, job: Job) -> None:
    """Count a run that was lost."""
    _add(session, job, LAPSE, 0, 0.0)


def _time(session: Session, job: Job, measure: str, seconds: float) -> None:
    seconds = max(0.0, seconds)
    _add(session, job, measure, bisect_left(BOUNDS, seconds), seconds)


def _add(session: Session, job: Job, measure: str, bucket: int, seconds: float) -> None:
    row = {
        "tenant": job.tenant,
        "measure": measure,
        "kind": job.kind,
        "state": job.state.value,
        "bucket": bucket,
        "number": 1,
        "seconds": seconds,
    }
    added = {"number": JobTally.number + 1, "seconds": JobTally.seconds + seconds}
    same = [JobTally.tenant, JobTally.measure, JobTally.kind, JobTally.state, JobTally.bucket]
    session.execute(insert_into(session, JobTally).values(row).on_conflict_do_update(index_elements=same, set_=added))
