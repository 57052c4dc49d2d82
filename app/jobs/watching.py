"""Waits for jobs to change: one query for all who wait in this process, however many they are.

Knows nothing of what changed; whoever waits reads that by itself, on a connection that it holds only to read.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.database import Database
from app.jobs import repository

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


class Follower:
    """One who waits for one job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.seen: int | None = None
        self.told = asyncio.Event()

    async def change(self, seconds: float) -> bool:
        """Wait until the job was written again (or is gone); False: it was not in that time.

        The first call may return at once: what was written before it is not known.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.told.wait()
        except TimeoutError:
            return False
        self.told.clear()
        return True


class Watch:
    """Looks at the jobs that somebody follows, and only then. Lives in one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: set[Follower] = set()
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def following(self, job_id: str) -> Iterator[Follower]:
        """Follow a job for as long as the context lasts."""
        follower = Follower(job_id)
        self._followers.add(follower)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="job-watch")
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def _look(self) -> None:
        while self._followers:
            job_ids = {follower.job_id for follower in self._followers}
            try:
                revisions = await run_in_threadpool(self._revisions, job_ids)
            except SQLAlchemyError as error:
                log.warning("the database is away: %s", error)
            else:
                for follower in self._followers:
                    revision = revisions.get(follower.job_id, -1)
                    if follower.job_id in job_ids and follower.seen != revision:
                        follower.seen = revision
                        follower.told.set()
            await asyncio.sleep(LOOK_SECONDS)

    def _revisions(self, job_ids: set[str]) -> dict[str, int]:
        with self._database.reading() as session:
            return repository.revisions(session, job_ids)
