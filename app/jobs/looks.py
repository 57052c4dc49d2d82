"""The short way for those who look at jobs, which most requests do: what was shown of a job is kept until it changes.

Every write of a job raises its revision, so one small query, which names the tenant, tells whether what is kept still
holds. What is not plain (another query than the usual one) goes FastAPI's way, which alone tells what is wrong with it;
so does what is not there. Knows no field of a job but these.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.routing import APIRoute
from sqlalchemy import bindparam, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.answers import Encoded, show
from app.database import Database
from app.dependencies import viewer
from app.jobs.models import Job
from app.peek import Peek

MOST_BYTES = 64 << 20
LARGEST_SHARE = 8
"""An answer that takes more than this part of all is not kept."""

_REVISION = select(Job.revision).where(Job.id == bindparam("job"), Job.tenant == bindparam("tenant"))

Shown = Callable[[Request, str, re.Match[str]], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class _Kept:
    revision: int
    answer: Encoded


class Looks:
    """Encoded answers by what they show, the least used going first; used by one event loop.

    What many ask for at once is read once for all of them.
    """

    def __init__(self, database: Database, most_bytes: int = MOST_BYTES) -> None:
        self._peek = Peek(database, _REVISION)
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._reading: dict[tuple[Hashable, int], asyncio.Future[Encoded]] = {}
        self._most_bytes = most_bytes
        self._bytes = 0

    async def show(
        self, request: Request, job_id: str, view: Hashable, read: Callable[[str], Encoded]
    ) -> Response | None:
        """The answer that shows this view of a job to whoever asks; None: its tenant has no such job."""
        found = await self.find((await viewer(request)).tenant, job_id, view, read)
        return show(request, found) if found is not None else None

    async def find(self, tenant: str, job_id: str, view: Hashable, read: Callable[[str], Encoded]) -> Encoded | None:
        """This view of a job, read by `read` if need be, of the tenant; None: no such job."""
        row = await self._peek.first({"job": job_id, "tenant": tenant})
        if row is None:
            return None
        key, revision = (job_id, view), int(row[0])
        kept = self._kept.get(key)
        if kept is not None and kept.revision == revision:
            self._kept.move_to_end(key)
            return kept.answer
        # Read after its revision: what is newer than that is read once more, and nothing older is ever shown.
        place = (key, revision)
        reading = self._reading.get(place)
        if reading is None:
            reading = self._reading[place] = asyncio.ensure_future(run_in_threadpool(read, tenant))
            reading.add_done_callback(lambda done: self._take(key, revision, done))
        # Whoever asked first may leave before the answer comes; the others still want it.
        return await asyncio.shield(reading)

    def _take(self, key: Hashable, revision: int, done: asyncio.Future[Encoded]) -> None:
        del self._reading[key, revision]
        if not done.cancelled() and done.exception() is None:
            self._keep(key, _Kept(revision, done.result()))

    def _keep(self, key: Hashable, kept: _Kept) -> None:
        before = self._kept.pop(key, None)
        self._bytes -= len(before.answer.content) if before is not None else 0
        size = len(kept.answer.content)
        if size * LARGEST_SHARE > self._most_bytes:
            return
        self._kept[key] = kept
        self._bytes += size
        while self._bytes > self._most_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= len(dropped.answer.content)


class Look(APIRoute):
    """A GET route of one job that has a short way for plain queries; `app.edge` asks it before the application."""

    _plain: re.Pattern[str] | None = None
    _shown: Shown | None = None

    def shorten(self, plain: str, shown: Shown) -> None:
        """Answer queries that fit the pattern `plain` by `shown`; what it answers with None goes the long way."""
        self._plain, self._shown = re.compile(plain), shown

    async def answer(self, request: Request, content: bytes) -> Response | None:
        """The answer to a plain request; None: it has to go the long way."""
        del content
        place = self.path_regex.match(request.scope["path"])
        if self._plain is None or self._shown is None or place is None:
            return None
        query = self._plain.fullmatch(request.scope["query_string"].decode("latin-1"))
        return await self._shown(request, place["job_id"], query) if query is not None else None


def latest(router: APIRouter) -> Look:
    """The route that was added last, which has to be a `Look`."""
    route = router.routes[-1]
    assert isinstance(route, Look)
    return route


def looks(request: Request) -> Looks:
    """What is kept of jobs."""
    found: Looks = request.app.state.looks
    return found
