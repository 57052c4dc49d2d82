"""The routes of experiments. Those of their ballots are in `app.experiments.ballot_endpoints`."""

from functools import partial
from typing import Annotated, Any

from fastapi import Path
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.datasets import repository as datasets
from app.dependencies import Member, Read, Router, Viewer, database, settings, storage
from app.experiments import repository, service
from app.experiments.arms import Arm, Wanted, arms_of
from app.experiments.opinions import opinions
from app.experiments.presenting import experiment_json
from app.experiments.schemas import ExperimentCreate, ExperimentShown, Submission
from app.experiments.service import Seen
from app.experiments.settling import settled
from app.idempotency import Idempotent
from app.identity import Identity
from app.jobs import parents
from app.jobs.checked import Lookups
from app.jobs.intake import Intake
from app.jobs.service import erase_run
from app.paging import Page, paged
from app.schemas import ListOf

router = Router(prefix="/v1/experiments", tags=["experiments"])
ExperimentId = Annotated[str, Path(max_length=64, description="Id of an experiment.")]
RETRY_AFTER = "5"


@router.post("", status_code=202, response_model=ExperimentShown, summary="Run an experiment")
def create(request: Request, identity: Member, once: Idempotent, body: Submission) -> Response:
    """A job for every seed of every arm, all queued or none; every fault of all arms is told at once."""
    with database(request).reading() as session:
        if first := once.replay(session, identity.tenant):
            return first
        arms = _arms(request, session, identity, body)
    assert isinstance(body, ExperimentCreate)  # any other has faults
    intake: Intake = request.app.state.intake
    with database(request).session() as session:
        if first := once.begin(session, identity.tenant):
            return first
        made = service.submit(session, intake, identity, body, arms)
        shown = _present(session, service.look(session, identity.tenant, made.id))
        headers = {"Location": f"/v1/experiments/{made.id}", "Retry-After": RETRY_AFTER}
        return once.finish(session, identity.tenant, answer(request, shown, 202, headers))


def _arms(request: Request, session: Session, identity: Identity, body: Wanted) -> list[Arm]:
    lookups = Lookups(partial(datasets.find, session), partial(parents.find, session))
    ours = settings(request)
    return arms_of(session, lookups, identity.tenant, body, ours.models_dir, ours.max_open_jobs)


@router.get("", response_model=ListOf[ExperimentShown], summary="List experiments")
def page(request: Request, identity: Viewer, session: Read, asked: Page) -> Response:
    """The caller's experiments. What the arms come to is there once somebody has looked at an experiment by its id."""
    rows = repository.page(session, identity.tenant, asked)
    seen = service.look_at_all(session, rows)
    people = opinions(session, list(seen.values()))
    return answer(request, paged(rows, asked, lambda row: experiment_json(seen[row.id], people[row.id])))


@router.get("/{experiment_id}", response_model=ExperimentShown, summary="Look at an experiment")
def find(request: Request, identity: Viewer, experiment_id: ExperimentId) -> Response:
    """One experiment: its arms side by side, each treatment against the baseline, and what people prefer."""
    seen = settled(database(request), storage(request), identity.tenant, experiment_id)
    with database(request).reading() as session:
        shown = _present(session, seen)
    return answer(request, shown)


def _present(session: Session, seen: Seen) -> dict[str, Any]:
    return experiment_json(seen, opinions(session, [seen])[seen.experiment.id])


@router.post("/{experiment_id}/cancel", status_code=202, response_model=ExperimentShown, summary="Cancel an experiment")
def cancel(request: Request, identity: Member, experiment_id: ExperimentId) -> Response:
    """Cancels all of its jobs that have not ended; 409 unless it is running."""
    with database(request).session() as session:
        match(request, lambda: _present(session, service.look(session, identity.tenant, experiment_id)))
        ended = service.cancel(session, identity, experiment_id)
        shown = _present(session, service.look(session, identity.tenant, experiment_id))
    for job in ended:
        erase_run(settings(request), job.id, keep_log=True)
    return answer(request, shown, 202, {"Location": f"/v1/experiments/{experiment_id}", "Retry-After": RETRY_AFTER})
