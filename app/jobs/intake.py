"""Takes in new jobs: those that are submitted while others are being stored share the next transaction, and its sync.

A transaction and a wait for the disk cost far more than one more row, so under load this is what lets submits keep up.
Knows HTTP only as the answers that it stores under an Idempotency-Key.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.audit import audit_all
from app.database import Database
from app.datasets import repository as datasets
from app.errors import ServiceError
from app.idempotency import Once
from app.identity import Identity
from app.jobs import repository, service
from app.jobs.checks import BaseLook, check
from app.jobs.models import Job
from app.jobs.schemas import JobCreate
from app.jobs.states import State


@dataclass(eq=False)
class Submit:
    """One job to be made, and what came of it."""

    identity: Identity
    once: Once
    body: JobCreate
    base: BaseLook
    answer: Callable[[Job], Response]
    outcome: Response | Exception | None = field(default=None, init=False)


class Intake:
    """Stores the jobs of one process, one transaction at a time."""

    def __init__(self, database: Database, ring: Callable[[], None], max_open_jobs: int) -> None:
        self._database = database
        self._ring = ring
        self._max_open_jobs = max_open_jobs
        self._waiting: list[Submit] = []
        self._turn = asyncio.Lock()

    async def take(self, submit: Submit) -> Response:
        """Check and store a job; its answer, once it is durable.

        Raises:
            Invalid: with every fault found.
            RateLimited: the tenant has as many open jobs as it may.
        """
        self._waiting.append(submit)
        async with self._turn:
            # Whoever is ready to run submits first: a thread that stores fewer jobs than wait would also contend for
            # the interpreter with those who are still on their way here.
            await asyncio.sleep(0)
            if submit.outcome is None:
                together, self._waiting = self._waiting, []
                await run_in_threadpool(self._store, together)
        if isinstance(submit.outcome, Response):
            return submit.outcome
        assert submit.outcome is not None
        raise submit.outcome

    def _store(self, together: Sequence[Submit]) -> None:
        try:
            with self._database.session() as session:
                outcomes = self._stored(session, together)
        except Exception as error:
            outcomes = [error] * len(together)
        for submit, outcome in zip(together, outcomes, strict=True):
            submit.outcome = outcome

    def _stored(self, session: Session, together: Sequence[Submit]) -> list[Response | Exception]:
        find = functools.cache(functools.partial(datasets.hold, session))
        open_jobs = functools.cache(functools.partial(repository.open_jobs, session))
        jobs: list[tuple[Identity, Job]] = []
        outcomes: list[Response | Exception] = []
        for submit in together:
            identity = submit.identity
            try:
                # What is refused has written nothing, so the others' transaction goes on.
                if first := submit.once.replay(session, identity.tenant):
                    outcomes.append(first)
                    continue
                checked = check(find, identity.tenant, submit.body, submit.base)
                mine = sum(other.tenant == identity.tenant for other, _ in jobs)
                service.refuse_beyond(self._max_open_jobs, open_jobs(identity.tenant) + mine)
                if first := submit.once.begin(session, identity.tenant):
                    outcomes.append(first)
                    continue
            except ServiceError as error:
                outcomes.append(error)
                continue
            job = service.made(identity, checked)
            jobs.append((identity, job))
            outcomes.append(submit.once.finish(session, identity.tenant, submit.answer(job)))
        if jobs:
            repository.add(session, *(job for _, job in jobs))
            audit_all(session, "job.create", ((identity, job.id) for identity, job in jobs))
        if any(job.state is State.QUEUED for _, job in jobs):
            event.listen(session, "after_commit", lambda _: self._ring(), once=True)
        return outcomes
