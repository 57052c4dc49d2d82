"""Every query on experiments, their jobs, items, ballots and raters; each names the tenant or an experiment of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.experiments.models import Experiment, ExperimentJob
from app.jobs.models import Job, JobEvent
from app.paging import Asked


def find(session: Session, tenant: str, experiment_id: str, *, hold: bool = False) -> Experiment | None:
    """The tenant's experiment; with `hold` nobody else writes it until the transaction ends."""
    query = select(Experiment).where(Experiment.id == experiment_id, Experiment.tenant == tenant)
    query = query.with_for_update().execution_options(populate_existing=True) if hold else query
    return session.scalars(query).one_or_none()


def page(session: Session, tenant: str, asked: Asked) -> Sequence[Experiment]:
    """The tenant's experiments of one page and one more."""
    return session.scalars(asked.cut(select(Experiment).where(Experiment.tenant == tenant), Experiment.id)).all()


def jobs(session: Session, experiment_ids: Iterable[str]) -> Mapping[str, list[tuple[ExperimentJob, Job | None]]]:
    """The jobs of experiments by experiment, arm after arm and seed after seed; None stands for one that was erased."""
    query = (
        select(ExperimentJob, Job)
        .outerjoin(Job, Job.id == ExperimentJob.job_id)
        .where(ExperimentJob.experiment_id.in_(list(experiment_ids)))
        .order_by(ExperimentJob.experiment_id, ExperimentJob.arm, ExperimentJob.job_id)
    )
    found: dict[str, list[tuple[ExperimentJob, Job | None]]] = {}
    for place, job in session.execute(query):
        found.setdefault(place.experiment_id, []).append((place, job))
    return found


def store_figures(session: Session, experiment_id: str, figures: Mapping[str, Any]) -> bool:
    """Write what the arms come to, once; False: somebody has."""
    statement = (
        update(Experiment)
        .where(Experiment.id == experiment_id, Experiment.figures.is_(None))
        .values(figures=dict(figures))
        .returning(Experiment.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(statement).scalar_one_or_none() is not None


def phases(session: Session, job_ids: Sequence[str]) -> Mapping[str, list[tuple[str, datetime]]]:
    """When each phase of jobs began, and when they changed their state, by job and in order."""
    kinds = ("phase_started", "state_changed")
    query = select(JobEvent).where(JobEvent.job_id.in_(job_ids), JobEvent.type.in_(kinds))
    found: dict[str, list[tuple[str, datetime]]] = {}
    for event in session.scalars(query.order_by(JobEvent.job_id, JobEvent.sequence)):
        found.setdefault(event.job_id, []).append((event.data.get("phase") or event.data["state"], event.at))
    return found
