"""The rules of experiments: submit all arms or none, look, cancel. Knows no request.

An experiment's state is that of its jobs:

    cancelled  its owner has cancelled it
    running    some job has not ended, or what they come to is being worked out
    failed     all jobs have ended, and some arm has not one that succeeded
    succeeded  all jobs have ended, and every arm has one that succeeded
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy.orm import Session
from starlette.responses import Response

from app.auth.audit import audit
from app.errors import Conflict, NotFound
from app.experiments import repository
from app.experiments.arms import NAME, Arm
from app.experiments.models import Experiment, ExperimentJob
from app.experiments.schemas import ExperimentCreate
from app.idempotency import UNCLAIMED
from app.identity import Identity
from app.ids import new_id
from app.jobs import service as jobs
from app.jobs.intake import Intake, Submit
from app.jobs.models import Job
from app.jobs.states import OPEN, State, allowed_from

ExperimentState = Literal["running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Seen:
    """An experiment with its jobs, arm after arm: place and job, None where it was erased.

    `settling`: just now somebody else works out what an experiment comes to.
    """

    experiment: Experiment
    runs: Sequence[tuple[ExperimentJob, Job | None]]
    settling: bool = False

    @property
    def names(self) -> list[str]:
        """Of the arms, the baseline first."""
        return [NAME, *(one["name"] for one in self.experiment.treatments)]

    def of_arm(self, arm: int) -> list[tuple[ExperimentJob, Job | None]]:
        """The jobs of one arm, in the order of the seeds."""
        return [(place, job) for place, job in self.runs if place.arm == arm]

    @property
    def ended(self) -> bool:
        """Whether no job will change any more."""
        return all(job is None or job.state not in OPEN for _, job in self.runs)

    @property
    def state(self) -> ExperimentState:
        """As the module says."""
        if self.experiment.cancelled_at is not None:
            return "cancelled"
        if not self.ended or self.settling:
            return "running"
        if self.experiment.figures is not None:
            # Its jobs may be erased one by one: what they came to is on record.
            return "succeeded" if all(arm["score"] is not None for arm in self.experiment.figures["arms"]) else "failed"
        succeeded = {place.arm for place, job in self.runs if job is not None and job.state is State.SUCCEEDED}
        return "succeeded" if len(succeeded) == len(self.names) else "failed"


def submit(
    session: Session, intake: Intake, identity: Identity, wanted: ExperimentCreate, arms: Sequence[Arm]
) -> Experiment:
    """Store an experiment with a job for every seed of every arm, all in this transaction or none.

    Raises:
        Invalid, RateLimited, Conflict: what a job is refused for; the transaction must not be committed then.
    """
    made: list[Job] = []

    def keep(job: Job) -> Response:
        made.append(job)
        return Response()

    name = wanted.name or "experiment"
    # Seed after seed, so that each arm is heard of early.
    places = [(seed, number) for seed in wanted.seeds for number in range(len(arms))]
    # The request's own Idempotency-Key is kept for the experiment.
    submits = [
        Submit(identity, UNCLAIMED, arms[arm].with_seed(seed, name), arms[arm].base, keep, arms[arm].spending)
        for seed, arm in places
    ]
    for outcome in intake.stored(session, submits):
        if isinstance(outcome, Exception):
            raise outcome
    experiment = _made(identity, wanted, arms[0])
    session.add(experiment)
    session.flush()
    session.add_all(
        ExperimentJob(experiment_id=experiment.id, arm=arm, seed=seed, job_id=job.id)
        for (seed, arm), job in zip(places, made, strict=True)
    )
    session.flush()
    audit(session, identity, "experiment.create", experiment.id, {"jobs": len(made)})
    return experiment


def _made(identity: Identity, wanted: ExperimentCreate, baseline: Arm) -> Experiment:
    files = dict(baseline.body.files())
    return Experiment(
        id=new_id("exp"),
        tenant=identity.tenant,
        name=wanted.name,
        task=baseline.body.task,
        metric=baseline.body.metric,
        dataset_id=files.get("test") or files[""],
        baseline=wanted.baseline,
        treatments=[one.model_dump() for one in wanted.treatments],
        seeds=list(wanted.seeds),
        margin=wanted.margin,
        human_items=wanted.human.items if wanted.human is not None else None,
        secret=secrets.token_hex(32),
        created_at=datetime.now(UTC),
    )


def look(session: Session, tenant: str, experiment_id: str, *, hold: bool = False) -> Seen:
    """The tenant's experiment with its jobs, or NotFound."""
    experiment = repository.find(session, tenant, experiment_id, hold=hold)
    if experiment is None:
        raise NotFound(f"no experiment {experiment_id}", remedy="GET /v1/experiments lists yours")
    return Seen(experiment, repository.jobs(session, [experiment_id])[experiment_id])


def look_at_all(session: Session, experiments: Sequence[Experiment]) -> dict[str, Seen]:
    """Experiments with their jobs, by id."""
    runs = repository.jobs(session, [one.id for one in experiments])
    return {one.id: Seen(one, runs[one.id]) for one in experiments}


def cancel(session: Session, identity: Identity, experiment_id: str) -> list[Job]:
    """Cancel every job that has not ended; those that are cancelled at once: `erase_run` follows the commit for them.

    Raises:
        Conflict: all jobs have ended, or it was cancelled before.
    """
    seen = look(session, identity.tenant, experiment_id, hold=True)
    if seen.state != "running":
        raise Conflict(
            f"cancel is allowed from running; the experiment is {seen.state}",
            code="wrong_state",
            remedy="submit a new experiment",
        )
    able = allowed_from("cancel")
    going = [job.id for _, job in seen.runs if job is not None and job.state in able]
    # All before the first move: whoever ends one of them meanwhile would wait for what that counts, and we for it.
    repository.hold_jobs(session, going)
    moved = []
    for job_id in going:
        with suppress(Conflict):  # it has ended just now
            moved.append(jobs.act(session, identity, job_id, "cancel"))
    seen.experiment.cancelled_at = datetime.now(UTC)
    session.flush()
    audit(session, identity, "experiment.cancel", experiment_id, {"jobs": len(moved)})
    return [job for job in moved if job.state is State.CANCELLED]
