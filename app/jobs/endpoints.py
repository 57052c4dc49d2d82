"""The routes of jobs. Each asks the service or the repository once and shows what came of it."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import Path, Query
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app.answers import Encoded, answer, encoded, match, names
from app.artifacts import repository as artifacts
from app.artifacts.schemas import ArtifactShown, artifact_json
from app.database import Database, let_go
from app.datasets import repository as datasets
from app.dependencies import Member, Read, Router, Viewer, database, queue, settings, storage
from app.erasure import erase
from app.errors import Invalid, NotFound
from app.idempotency import Idempotent, Once
from app.identity import Identity
from app.jobs import parents, private, repository, service
from app.jobs.checked import Lookups
from app.jobs.checks import BaseLook, base_is_near, check, look_at_base, refusal
from app.jobs.filters import METADATA_FILTER, metadata_filter
from app.jobs.intake import Intake, Submit
from app.jobs.looks import Look, latest, looks
from app.jobs.models import Job
from app.jobs.requests import AnyCreate, Submission
from app.jobs.schemas import DryRun, JobErased, JobShown, job_json
from app.jobs.states import TERMINAL, State
from app.jobs.straight import Straight
from app.jobs.watching import Watch
from app.paging import Page, paged
from app.privacy.composition import Spending
from app.schemas import ListOf
from app.unfit import Unfit
from app.webhooks import service as webhooks
from engine.errors import Fault
from engine.spec import Kind, TaskName

router = Router(prefix="/v1/jobs", tags=["jobs"])
JobId = Annotated[str, Path(max_length=64, description="Id of a job.")]
RETRY_AFTER = "2"
LOG_BYTES = 1 << 20
DRY: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "A dry run: what the job would do and cost; nothing is stored."}
}


def watch(request: Request) -> Watch:
    """The one that looks at jobs for all who wait."""
    found: Watch = request.app.state.watch
    return found


async def create(
    request: Request,
    identity: Member,
    once: Idempotent,
    body: Submission,
    dry_run: Annotated[bool, Query(description="Check and estimate only; nothing is stored.")] = False,
) -> Response:
    """Every fault is told at once. The job is stored and queued before the answer; `Location` is where to look."""
    if dry_run or isinstance(body, Unfit):
        return await run_in_threadpool(_dry_run, request, identity, once, body)
    models_dir = settings(request).models_dir
    if base_is_near(body):
        base = look_at_base(body, models_dir)
    else:
        base = await run_in_threadpool(look_at_base, body, models_dir)
    spending = None
    if body.webhook is not None or private.is_private(body):
        spending, base = await run_in_threadpool(_look_beside, request, identity, body, base)
    intake: Intake = request.app.state.intake
    return await intake.take(Submit(identity, once, body, base, partial(_accepted, request), spending))


router.routes.append(
    Straight(
        router.prefix,
        create,
        methods=["POST"],
        status_code=202,
        response_model=JobShown,
        responses=DRY,
        tags=["jobs"],
        summary="Submit a job",
    )
)


def _look_beside(
    request: Request, identity: Identity, body: AnyCreate, base: BaseLook
) -> tuple[Spending | None, BaseLook]:
    """What a job plans to spend, and all that no transaction should wait for, with the faults that this finds."""
    faults = _address_faults(request, body)
    try:
        spending = private.plan_apart(database(request), identity.tenant, body)
    except Invalid as error:
        spending, faults = None, [*faults, *error.faults]
    return spending, replace(base, beside=tuple(faults))


def _address_faults(request: Request, body: AnyCreate | Unfit[Any]) -> list[Fault]:
    raw = body.body if isinstance(body, Unfit) else body.model_dump(include={"webhook"})
    webhook = raw.get("webhook") if isinstance(raw, Mapping) else None
    return webhooks.address_faults(webhook, "/webhook", private=settings(request).webhook_private_addresses)


def _dry_run(request: Request, identity: Identity, once: Once, body: AnyCreate | Unfit[Any]) -> Response:
    models_dir = settings(request).models_dir
    with database(request).reading() as session:
        if first := once.replay(session, identity.tenant):
            return first
        lookups = Lookups(partial(datasets.find, session), partial(parents.find, session))
        if isinstance(body, Unfit):
            raise refusal(lookups, identity.tenant, body, models_dir, *_address_faults(request, body))
        spending, base = _look_beside(request, identity, body, look_at_base(body, models_dir))
        checked = check(lookups, identity.tenant, body, base)
        once.refuse()
        private.refuse_beyond(session, lookups.dataset, identity.tenant, body, spending)
    return answer(request, service.dry_run(checked, spending))


def _accepted(request: Request, job: Job) -> Response:
    headers = {"Location": f"/v1/jobs/{job.id}", "Retry-After": RETRY_AFTER}
    return answer(request, job_json(job, ()), 202, headers)


@router.get("", response_model=ListOf[JobShown], summary="List jobs", openapi_extra=METADATA_FILTER)
def page(
    request: Request,
    identity: Viewer,
    session: Read,
    asked: Page,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.")] = None,
    task: Annotated[TaskName | None, Query(description="Only jobs of this task.")] = None,
) -> Response:
    """The caller's jobs; `metadata[key]=value` keeps those with this pair."""
    filters = {"state": state, "kind": kind, "task": task}
    rows = repository.listed(
        session,
        identity.tenant,
        filters={name: value for name, value in filters.items() if value is not None},
        metadata=metadata_filter(request),
        limit=asked.limit + 1,
        after=asked.after,
        descending=asked.order == "desc",
    )
    found = artifacts.of_jobs(session, identity.tenant, [job.id for job in rows])
    return answer(request, paged(rows, asked, lambda job: job_json(job, found.get(job.id, ()))))


async def find(
    request: Request,
    identity: Viewer,
    job_id: JobId,
    wait_seconds: Annotated[float, Query(ge=0, le=60, description="Answer when the state changes, or then.")] = 0,
) -> Response:
    """One job. While it waits for a change the request holds neither a thread nor a connection."""
    shown = await run_in_threadpool(_shown, request, identity, job_id)
    if wait_seconds > 0 and shown["state"] not in TERMINAL:
        state, deadline = shown["state"], time.monotonic() + wait_seconds
        read = partial(run_in_threadpool, _shown, request, identity, job_id)
        with watch(request).following(job_id) as follower:
            while shown["state"] == state and await follower.change(deadline - time.monotonic()):
                shown = await follower.shared((identity.tenant, "job"), read)
    return answer(request, shown)


router.add_api_route(
    "/{job_id}",
    find,
    methods=["GET"],
    response_model=JobShown,
    summary="Look at a job",
    route_class_override=Look,
)


async def _look(request: Request, job_id: str, _: re.Match[str]) -> Response | None:
    return await looks(request).show(request, job_id, "job", partial(_read, database(request), job_id))


latest(router).shorten("", _look)


def _read(database: Database, job_id: str, tenant: str) -> Encoded:
    with database.reading() as session:
        return encoded(_present(session, tenant, job_id))


def _shown(request: Request, identity: Identity, job_id: str) -> dict[str, Any]:
    with database(request).reading() as session:
        return _present(session, identity.tenant, job_id)


def _held(session: Session, tenant: str, job_id: str) -> dict[str, Any]:
    """The job as it stands until the transaction ends."""
    service.find(session, tenant, job_id, hold=True)
    return _present(session, tenant, job_id)


def _present(session: Session, tenant: str, job_id: str) -> dict[str, Any]:
    job = service.find(session, tenant, job_id)
    return job_json(job, artifacts.of_job(session, tenant, job_id))


@router.delete("/{job_id}", status_code=202, response_model=JobErased, summary="Erase a job that has ended")
def delete(request: Request, identity: Member, job_id: JobId) -> Response:
    """Erases its artifacts, snapshots, metrics, events and log too; 409 while it has not ended."""
    with database(request).session() as session:
        match(request, lambda: _held(session, identity.tenant, job_id))
        keys = service.delete(session, identity, job_id)
    # What no commit can bring back goes after it, and while nobody waits for the database.
    service.erase_run(settings(request), job_id, keep_log=False)
    erase(database(request), storage(request), keys)
    return answer(request, {"id": job_id, "object": "job", "deleted": True}, 202)


def _moving(name: str, summary: str, text: str) -> Callable[..., Response]:
    """The endpoint of one of the owner's moves."""

    def move(request: Request, identity: Member, job_id: JobId) -> Response:
        with database(request).session() as session:
            match(request, lambda: _held(session, identity.tenant, job_id))
            job = service.act(session, identity, job_id, name)
            shown = job_json(job, artifacts.of_job(session, identity.tenant, job_id))
        if job.state is State.QUEUED:
            queue(request).ring()
        if job.state is State.CANCELLED:
            service.erase_run(settings(request), job_id, keep_log=True)
        return answer(request, shown, 202, {"Location": f"/v1/jobs/{job_id}", "Retry-After": RETRY_AFTER})

    move.__doc__ = text
    move.__name__ = name
    router.add_api_route(
        f"/{{job_id}}/{name}", move, methods=["POST"], status_code=202, response_model=JobShown, summary=summary
    )
    return move


start = _moving("start", "Queue a job that was made with auto_start false", "409 from any state but created.")
cancel = _moving("cancel", "Cancel a job", "At once where nothing runs; a run is killed first. 409 once it has ended.")
pause = _moving("pause", "Pause a running job", "It writes a snapshot and leaves its worker; 409 unless it runs.")
resume = _moving("resume", "Queue a paused job again", "It goes on from its snapshot; 409 unless it is paused.")


@router.get("/{job_id}/logs", response_class=PlainTextResponse, summary="Read a job's log")
def logs(
    request: Request,
    identity: Viewer,
    session: Read,
    job_id: JobId,
    tail_bytes: Annotated[int, Query(ge=1, le=LOG_BYTES, description="At most the last so many bytes.")] = LOG_BYTES,
) -> Response:
    """The end of the run's log, as text."""
    job = service.find(session, identity.tenant, job_id)
    let_go(session)
    content = service.log_tail(settings(request), storage(request), job, tail_bytes)
    return PlainTextResponse(content.decode("utf-8", "replace"), headers={"Cache-Control": "private, no-cache"})


@router.get("/{job_id}/receipt", response_model=dict[str, Any], summary="Read a job's receipt")
def receipt(request: Request, identity: Viewer, session: Read, job_id: JobId) -> Response:
    """The very bytes of `receipt.json`; 404 until the job has one."""
    service.find(session, identity.tenant, job_id)
    found = [row for row in artifacts.of_job(session, identity.tenant, job_id) if row.kind == "receipt"]
    let_go(session)
    if not found or not storage(request).has(found[0].storage_key):
        raise NotFound("the job has no receipt", remedy="wait until it has succeeded, or failed as limit_missed")
    headers = {"ETag": f'"{found[0].sha256}"', "Cache-Control": "private, no-cache"}
    if names(request, "if-none-match", headers["ETag"]):
        return Response(status_code=304, headers=headers)
    content = b"".join(storage(request).open(found[0].storage_key, 0, found[0].size_bytes))
    return Response(content, media_type="application/json", headers=headers)


@router.get("/{job_id}/artifacts", response_model=ListOf[ArtifactShown], summary="List a job's artifacts")
def files(request: Request, identity: Viewer, session: Read, job_id: JobId, asked: Page) -> Response:
    """Its files, in the order they were made unless asked otherwise."""
    service.find(session, identity.tenant, job_id)
    rows = artifacts.page_of_job(session, identity.tenant, job_id, asked)
    return answer(request, paged(rows, asked, artifact_json))
