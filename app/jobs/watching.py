"""Waits for jobs to change: one query for all who wait in this process, however many they are.

Knows nothing of what changed. Whoever waits reads that by itself, or has it read once for all who want the same.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.database import Database
from app.jobs import repository
from app.jobs.models import Job
from app.peek import Peek

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
"""Between two looks: most of the time from a commit to a reader."""
PROGRESS_SECONDS = 1.0
"""Between two words of what is no event: hundreds of readers would be woken by every batch of a run's figures."""
MOST_PEEKED = 50
_WRITES = select(Job.revision, Job.events).where(Job.id == bindparam("job"))

T = TypeVar("T")


class _Writes(NamedTuple):
    """How often a job was written, and how many events it has."""

    revision: int
    events: int


_GONE = _Writes(-1, -1)


class _Followed:
    """A job that somebody follows, and what was read of it for all of them."""

    def __init__(self) -> None:
        self.followers: set[Follower] = set()
        self.read: dict[Hashable, asyncio.Future[Any]] = {}
        self.revision: int | None = None
        self._told: _Writes | None = None
        self._due = 0.0

    def seen(self, writes: _Writes) -> None:
        """Take how often the job was written, and tell those who do not know it: of an event at once."""
        if self.revision != writes.revision:
            self.revision = writes.revision
            self.read.clear()
        now = time.monotonic()
        if self._told is None or self._told.events != writes.events or (self._told != writes and now >= self._due):
            self._told, self._due = writes, now + PROGRESS_SECONDS
        for follower in self.followers:
            if follower.seen != self._told.revision:
                follower.seen = self._told.revision
                follower.told.set()


class Follower:
    """One who waits for one job."""

    def __init__(self, followed: _Followed) -> None:
        self._followed = followed
        self.seen: int | None = None
        self.told = asyncio.Event()

    async def change(self, seconds: float) -> bool:
        """Wait until the job was written again (or is gone); False: it was not in that time.

        An event is told at once, mere progress within a second. The first call may return at once: what was written
        before it is not known.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.told.wait()
        except TimeoutError:
            return False
        self.told.clear()
        return True

    async def shared(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, read once for all who ask under this key until the job is seen to have been written again.

        What is written meanwhile may be in it or not: whoever follows is told of it in any case.
        """
        followed = self._followed
        found: asyncio.Future[T] | None = followed.read.get(key)
        if found is None:
            found = followed.read[key] = asyncio.ensure_future(read())
            found.add_done_callback(lambda done: _forget(followed, key, done))
        # Whoever asked first may leave before the answer comes; the others still want it.
        return await asyncio.shield(found)


def _forget(followed: _Followed, key: Hashable, done: asyncio.Future[Any]) -> None:
    """Keep no failure, and nothing that was read before the first look, as nobody would be told that it is old."""
    if followed.read.get(key) is done and (done.cancelled() or done.exception() or followed.revision is None):
        del followed.read[key]


class Watch:
    """Looks at the jobs that somebody follows, and only then. Lives in one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._peek = Peek(database, _WRITES)
        self._jobs: dict[str, _Followed] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, job_id: str) -> Iterator[Follower]:
        """Follow a job for as long as the context lasts."""
        followed = self._jobs.setdefault(job_id, _Followed())
        follower = Follower(followed)
        followed.followers.add(follower)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="job-watch")
        try:
            yield follower
        finally:
            followed.followers.discard(follower)
            if not followed.followers:
                self._jobs.pop(job_id, None)

    async def _look(self) -> None:
        while self._jobs:
            job_ids = set(self._jobs)
            try:
                writes = await self._writes(job_ids)
            except SQLAlchemyError as error:
                log.warning("the database is away: %s", error)
            else:
                for job_id in job_ids & set(self._jobs):
                    self._jobs[job_id].seen(writes.get(job_id, _GONE))
            await asyncio.sleep(LOOK_SECONDS)

    async def _writes(self, job_ids: set[str]) -> dict[str, _Writes]:
        if not self._peek.at_once or len(job_ids) > MOST_PEEKED:
            return await run_in_threadpool(self._asked, job_ids)
        rows = [(job_id, await self._peek.first({"job": job_id})) for job_id in job_ids]
        return {job_id: _Writes(*row) for job_id, row in rows if row is not None}

    def _asked(self, job_ids: set[str]) -> dict[str, _Writes]:
        with self._database.reading() as session:
            return {job_id: _Writes(*row) for job_id, *row in repository.writes(session, job_ids)}
