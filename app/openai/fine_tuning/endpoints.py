"""The routes of fine-tuning jobs, as OpenAI's clients know them."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import anyio
from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from app.answers import answer, match
from app.artifacts import repository as artifacts
from app.dependencies import Member, Read, Router, Viewer, database, queue, settings, turns
from app.errors import Conflict, Invalid
from app.idempotency import Claim, IdempotencyHeader
from app.identity import Identity
from app.jobs import private
from app.jobs import repository as jobs
from app.jobs import service as moves
from app.jobs.filters import METADATA_FILTER, metadata_filter
from app.jobs.intake import Intake, Submit
from app.jobs.models import Job
from app.jobs.states import State
from app.openai.files.endpoints import place
from app.openai.fine_tuning import history, repository, service
from app.openai.fine_tuning.requests import Asked, FineTuningCreate
from app.openai.fine_tuning.schemas import (
    CheckpointShown,
    EventShown,
    FineTuningShown,
    fine_tuning_json,
    trained_model,
)
from app.openai.pages import NewestFirst
from app.openai.retries import claim_of, retried
from app.openai_tables.models import FineTuning
from app.paging import paged
from app.privacy.composition import Spending
from app.schemas import ListOf
from app.unfit import Unfit
from app.webhooks.outbox import OPENAI

router = Router(prefix="/v1/fine_tuning/jobs", tags=["openai"])
JobId = Annotated[str, Path(max_length=64, description="Id of a training job.")]


@router.post("", response_model=FineTuningShown, summary="Fine-tune a model")
async def create(request: Request, identity: Member, body: Asked, key: IdempotencyHeader) -> Response:
    """An ordinary training job; every fault is told at once, those of the file's lines among them."""
    claim = claim_of(request, identity, key, await request.body(), datetime.now(UTC))
    # A file may have to be read for the task of the model, so this is among the checks.
    async with turns(request).of(identity.tenant):
        prepared = await anyio.to_thread.run_sync(_prepared, request, identity, body, claim)
    if isinstance(prepared, Response):
        return prepared
    ready, spending = prepared
    intake: Intake = request.app.state.intake
    submit = Submit(
        identity,
        claim,
        ready.job,
        ready.base,
        partial(_accepted, request, ready.asked),
        spending,
        family=OPENAI,
        beside=partial(_beside, ready.asked),
    )
    try:
        return await intake.take(submit)
    except Invalid as error:
        raise service.renamed(error, ready.names) from error


def _prepared(
    request: Request, identity: Identity, body: FineTuningCreate | Unfit[FineTuningCreate], claim: Claim
) -> Response | tuple[service.Prepared, Spending | None]:
    with database(request).reading() as session:
        if first := claim.replay(session, identity.tenant):
            return first
    ready = service.prepare(place(request), identity, body)
    try:
        return ready, private.plan_apart(database(request), identity.tenant, ready.job)
    except Invalid as error:
        raise service.renamed(error, ready.names) from error


def _accepted(request: Request, asked: FineTuning, job: Job) -> Response:
    return answer(request, fine_tuning_json(job, asked, ()))


def _beside(asked: FineTuning, job: Job) -> FineTuning:
    asked.job_id = job.id
    return asked


@router.get("", response_model=ListOf[FineTuningShown], summary="List fine-tuning jobs", openapi_extra=METADATA_FILTER)
def page(request: Request, identity: Viewer, session: Read, asked: NewestFirst) -> Response:
    """The caller's training jobs, newest first, whichever door they came by; `metadata[key]=value` filters."""
    rows = jobs.listed(
        session,
        identity.tenant,
        filters={"kind": "train"},
        metadata=metadata_filter(request),
        limit=asked.limit + 1,
        after=asked.after,
        descending=True,
    )
    ids = [row.id for row in rows]
    files = artifacts.of_jobs(session, identity.tenant, ids)
    given = repository.asked(session, identity.tenant, ids)
    shown = paged(rows, asked, lambda row: fine_tuning_json(row, given.get(row.id), files.get(row.id, ())))
    return answer(request, shown)


@router.get("/{job_id}", response_model=FineTuningShown, summary="Look at a fine-tuning job")
def find(request: Request, identity: Viewer, session: Read, job_id: JobId) -> Response:
    """One training job."""
    return answer(request, _shown(session, identity, service.find(session, identity.tenant, job_id)))


def _shown(session: Read, identity: Identity, job: Job) -> dict[str, object]:
    given = repository.asked(session, identity.tenant, [job.id]).get(job.id)
    return fine_tuning_json(job, given, artifacts.of_job(session, identity.tenant, job.id))


def _moving(name: str, summary: str, text: str, reached: frozenset[State]) -> Callable[..., Response]:
    """The endpoint of one of the owner's moves; a move that is sent again once it is made is no conflict."""

    def move(request: Request, identity: Member, job_id: JobId) -> Response:
        with database(request).session() as session:
            job = service.find(session, identity.tenant, job_id, hold=True)
            match(request, lambda: _shown(session, identity, job))
            try:
                job = moves.act(session, identity, job_id, name)
            except Conflict:
                if not (retried(request) and job.state in reached):
                    raise
            shown = _shown(session, identity, job)
        if job.state is State.QUEUED:
            queue(request).ring()
        if job.state is State.CANCELLED:
            moves.erase_run(settings(request), job_id, keep_log=True)
        return answer(request, shown)

    move.__doc__ = text
    move.__name__ = name
    router.add_api_route(f"/{{job_id}}/{name}", move, methods=["POST"], response_model=FineTuningShown, summary=summary)
    return move


cancel = _moving(
    "cancel",
    "Cancel a fine-tuning job",
    "409 once it has ended.",
    frozenset({State.CANCELLING, State.CANCELLED}),
)
pause = _moving(
    "pause",
    "Pause a fine-tuning job",
    "It is `paused` once its snapshot is written; 409 unless it runs.",
    frozenset({State.PAUSING, State.PAUSED}),
)
resume = _moving(
    "resume",
    "Go on with a fine-tuning job",
    "From its snapshot; 409 unless it is paused.",
    frozenset({State.QUEUED, State.RUNNING}),
)


@router.get("/{job_id}/events", response_model=ListOf[EventShown], summary="List a fine-tuning job's events")
def events(request: Request, identity: Viewer, session: Read, job_id: JobId, asked: NewestFirst) -> Response:
    """What happened, newest first; an event of type `metrics` has the figures of its step."""
    job = service.find(session, identity.tenant, job_id)
    before = history.number_of(asked.after, history.EVENT, job_id)
    rows = repository.events_before(session, job_id, before, asked.limit + 1)
    steps = [int(row.data["step"]) for row in rows if row.type == repository.CHECKPOINT]
    points = repository.points_at(session, job_id, steps)
    return answer(request, paged(rows, asked, lambda row: history.event_json(row, job, points)))


@router.get(
    "/{job_id}/checkpoints", response_model=ListOf[CheckpointShown], summary="List a fine-tuning job's checkpoints"
)
def checkpoints(request: Request, identity: Viewer, session: Read, job_id: JobId, asked: NewestFirst) -> Response:
    """The steps at which an epoch was validated or a snapshot was written, newest first; one is the model's."""
    job = service.find(session, identity.tenant, job_id)
    before = history.number_of(asked.after, history.CHECKPOINT_ID, job_id)
    saved = repository.saved(session, job_id)
    steps = [step for step in reversed(saved) if before is None or step < before][: asked.limit + 1]
    points = repository.points_at(session, job_id, steps)
    model = trained_model(job, artifacts.of_job(session, identity.tenant, job_id))
    scores = repository.scores(session, job_id) if model else {}
    kept = history.step_of_the_model(job.spec["training"], job.spec["metric"], list(saved), scores) if saved else None

    def shown(step: int) -> dict[str, object]:
        return history.checkpoint_json(job, step, saved[step], points[step], model if step == kept else None)

    return answer(request, paged(steps, asked, shown))
