"""Takes in new jobs: those that are submitted while others are being stored share the next transaction, and its sync.

A transaction and a wait for the disk cost far more than one more row, so under load this is what lets submits keep up.
Knows HTTP only as the answers that it stores under an Idempotency-Key.
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.auth.audit import audit_all
from app.database import Base, Database
from app.datasets import repository as datasets
from app.errors import ServiceError
from app.idempotency import Claim
from app.identity import Identity
from app.jobs import parents, private, repository, service
from app.jobs.checked import Lookups
from app.jobs.checks import BaseLook, check
from app.jobs.models import Job
from app.jobs.requests import AnyCreate
from app.jobs.states import State
from app.privacy import service as privacy
from app.privacy.composition import Spending
from app.webhooks import outbox
from app.webhooks.schemas import JobWebhook

QUIET_TURNS = 3
GATHER_SECONDS = 0.005
MOST_TOGETHER = 64


@dataclass(eq=False, slots=True)
class Submit:
    """One job to be made."""

    identity: Identity
    once: Claim
    body: AnyCreate
    base: BaseLook
    answer: Callable[[Job], Response]
    spending: Spending | None = None
    """What the job plans to spend of the privacy of its training rows; None: it is not private."""
    family: str | None = None
    """That of the job's webhook events, as `app.webhooks.outbox` has them."""
    beside: Callable[[Job], Base] | None = None
    """What is written down beside the job."""


class Intake:
    """Stores the jobs of one process, one transaction at a time."""

    def __init__(self, database: Database, ring: Callable[[], None], max_open_jobs: int) -> None:
        self._database = database
        self._ring = ring
        self._max_open_jobs = max_open_jobs
        self._waiting: list[tuple[Submit, asyncio.Future[Response]]] = []
        self._storing: asyncio.Task[None] | None = None

    async def take(self, submit: Submit) -> Response:
        """Check and store a job; its answer, once it is durable.

        Raises:
            Invalid: with every fault found.
            RateLimited: the tenant has as many open jobs as it may.
        """
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((submit, answered))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_while_any_wait())
        return await answered

    async def _store_while_any_wait(self) -> None:
        try:
            while self._waiting:
                together = await self._gathered()
                try:
                    outcomes = await run_in_threadpool(self._store, [submit for submit, _ in together])
                except Exception as error:
                    outcomes = [error] * len(together)
                for (_, answered), outcome in zip(together, outcomes, strict=True):
                    if answered.done():  # the client has left, and its job is stored
                        continue
                    if isinstance(outcome, Response):
                        answered.set_result(outcome)
                    else:
                        answered.set_exception(outcome)
        finally:
            self._storing = None

    async def _gathered(self) -> list[tuple[Submit, asyncio.Future[Response]]]:
        """Those who are to be stored together: all who come until nobody has come for some turns of the loop.

        Whoever was answered together asks again together, within microseconds. Not to wait for them would store the
        first alone and the rest after it, half as many a transaction. Under a stream that never pauses it is the bounds
        that end the wait.
        """
        loop = asyncio.get_running_loop()
        end, seen, turns = loop.time() + GATHER_SECONDS, 0, 0
        while turns < QUIET_TURNS and len(self._waiting) < MOST_TOGETHER and loop.time() < end:
            await asyncio.sleep(0)
            turns = turns + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
        together, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        return together

    def _store(self, together: Sequence[Submit]) -> list[Response | Exception]:
        with self._database.session() as session:
            return self.stored(session, together)

    def stored(self, session: Session, together: Sequence[Submit]) -> list[Response | Exception]:
        """Check and store jobs in a transaction; of each its answer, or why it was refused: that one wrote nothing."""
        lookups = Lookups(
            functools.cache(functools.partial(datasets.hold, session)),
            functools.partial(parents.find, session, hold=True),
        )
        open_jobs = functools.cache(functools.partial(repository.open_jobs, session))
        jobs: list[tuple[Identity, Job]] = []
        webhooks: list[tuple[Job, JobWebhook]] = []
        beside: list[Base] = []
        outcomes: list[Response | Exception] = []
        private.hold(session, [submit.identity.tenant for submit in together if submit.spending is not None])
        for submit in together:
            identity, spending, subject = submit.identity, submit.spending, ""
            try:
                # What is refused has written nothing, so the others' transaction goes on.
                if first := submit.once.replay(session, identity.tenant):
                    outcomes.append(first)
                    continue
                checked = check(lookups, identity.tenant, submit.body, submit.base)
                if spending is not None:
                    subject = private.subject(lookups.dataset, identity.tenant, submit.body)
                    privacy.check(session, identity.tenant, subject, spending)
                mine = sum(other.tenant == identity.tenant for other, _ in jobs)
                service.refuse_beyond(self._max_open_jobs, open_jobs(identity.tenant) + mine)
                if first := submit.once.begin(session, identity.tenant):
                    outcomes.append(first)
                    continue
            except ServiceError as error:
                outcomes.append(error)
                continue
            job = service.made(identity, checked, submit.family)
            jobs.append((identity, job))
            webhooks += [(job, submit.body.webhook)] if submit.body.webhook is not None else []
            beside += [submit.beside(job)] if submit.beside is not None else []
            if spending is not None:
                privacy.reserve(session, identity.tenant, subject, job.id, spending)
            outcomes.append(submit.once.finish(session, identity.tenant, submit.answer(job)))
        if jobs:
            repository.add(session, *(job for _, job in jobs))
            session.add_all(beside)
            for job, one in webhooks:
                outbox.subscribe(session, job.tenant, job.id, one.url, one.secret.get_secret_value())
            audit_all(session, "job.create", ((identity, job.id) for identity, job in jobs))
        if any(job.state is State.QUEUED for _, job in jobs):
            event.listen(session, "after_commit", lambda _: self._ring(), once=True)
        return outcomes
