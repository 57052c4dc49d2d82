"""Every query on experiments, their jobs, items, ballots and raters; each names the tenant or an experiment of it."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, defer

from app.database import insert_into
from app.experiments.judgement import Vote
from app.experiments.models import Experiment, ExperimentBallot, ExperimentItem, ExperimentJob, ExperimentRater
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
    # A page of experiments may have thousands of jobs, and nobody reads what these were asked for.
    large = (Job.spec, Job.plan, Job.inputs, Job.metadata_, Job.latest, Job.result)
    query = (
        select(ExperimentJob, Job)
        .options(*(defer(column) for column in large))
        .outerjoin(Job, Job.id == ExperimentJob.job_id)
        .where(ExperimentJob.experiment_id.in_(list(experiment_ids)))
        .order_by(ExperimentJob.experiment_id, ExperimentJob.arm, ExperimentJob.job_id)
    )
    found: dict[str, list[tuple[ExperimentJob, Job | None]]] = {}
    for place, job in session.execute(query):
        found.setdefault(place.experiment_id, []).append((place, job))
    return found


def hold_jobs(session: Session, job_ids: Sequence[str]) -> None:
    """Let nobody else move these jobs until the transaction ends."""
    session.execute(select(Job.id).where(Job.id.in_(job_ids)).order_by(Job.id).with_for_update())


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


def item(session: Session, experiment_id: str, number: int) -> ExperimentItem | None:
    """One item of an experiment."""
    return session.get(ExperimentItem, (experiment_id, number))


def answers(session: Session, experiment_id: str) -> Sequence[tuple[int, list[dict[str, Any] | None]]]:
    """The number of each item, and what the arms say of it."""
    query = select(ExperimentItem.number, ExperimentItem.answers)
    rows = session.execute(query.where(ExperimentItem.experiment_id == experiment_id).order_by(ExperimentItem.number))
    return [(row.number, row.answers) for row in rows]


def count_items(session: Session, experiment_ids: Sequence[str]) -> dict[str, int]:
    """How many items each experiment has."""
    query = select(ExperimentItem.experiment_id, func.count()).where(ExperimentItem.experiment_id.in_(experiment_ids))
    return {row[0]: row[1] for row in session.execute(query.group_by(ExperimentItem.experiment_id))}


def cast_by(session: Session, experiment_id: str, rater: str) -> set[tuple[int, int, int]]:
    """Item and arms of what a rater has judged."""
    query = select(ExperimentBallot).where(
        ExperimentBallot.experiment_id == experiment_id, ExperimentBallot.rater == rater
    )
    return {(one.item, one.first_arm, one.second_arm) for one in session.scalars(query)}


def votes(session: Session, experiment_ids: Sequence[str]) -> dict[str, list[tuple[str, Vote]]]:
    """Rater and vote of each ballot, by experiment, in a fixed order."""
    query = select(ExperimentBallot).where(ExperimentBallot.experiment_id.in_(experiment_ids))
    keys = (ExperimentBallot.rater, ExperimentBallot.item, ExperimentBallot.first_arm, ExperimentBallot.second_arm)
    found: dict[str, list[tuple[str, Vote]]] = {}
    for one in session.scalars(query.order_by(ExperimentBallot.experiment_id, *keys)):
        vote = Vote(one.item, one.first_arm, one.second_arm, one.preferred)
        found.setdefault(one.experiment_id, []).append((one.rater, vote))
    return found


def add_ballot(session: Session, ballot: ExperimentBallot) -> bool:
    """Store a ballot; False: that rater has judged that item and those arms before."""
    values = {column.name: getattr(ballot, column.name) for column in ExperimentBallot.__table__.columns}
    statement = (
        insert_into(session, ExperimentBallot).values(values).on_conflict_do_nothing().returning(ExperimentBallot.rater)
    )
    return session.execute(statement).first() is not None


def rater_by_key(session: Session, key_id: str) -> ExperimentRater | None:
    """Whom a key stands for."""
    return session.scalars(select(ExperimentRater).where(ExperimentRater.key_id == key_id)).one_or_none()


def rater_by_name(session: Session, experiment_id: str, name: str) -> ExperimentRater | None:
    """The rater of this name."""
    return session.get(ExperimentRater, (experiment_id, name))


def raters(session: Session, experiment_id: str, asked: Asked) -> Sequence[ExperimentRater]:
    """The raters of one page and one more."""
    query = select(ExperimentRater).where(ExperimentRater.experiment_id == experiment_id)
    return session.scalars(asked.cut(query, ExperimentRater.key_id)).all()


def counts_by_rater(session: Session, experiment_id: str) -> dict[str, int]:
    """How many ballots each rater has cast."""
    query = select(ExperimentBallot.rater, func.count()).where(ExperimentBallot.experiment_id == experiment_id)
    return {row[0]: row[1] for row in session.execute(query.group_by(ExperimentBallot.rater))}
