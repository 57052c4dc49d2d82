"""A job's events as a live stream (server-sent events). Reads rows that the worker wrote; writes nothing.

However many follow a job, each piece of news is read and encoded once for all who are at the same place.
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool

from app.database import Database
from app.jobs import repository
from app.jobs.schemas import event_json, progress_json
from app.jobs.states import TERMINAL
from app.jobs.watching import Watch

COMMENT_SECONDS = 15.0
ASKED_AGAIN_SECONDS = 15.0
RETRY_MILLISECONDS = 2_000
BATCH = 500
HELLO = f"retry: {RETRY_MILLISECONDS}\n: the events of a job\n\n".encode()
STILL_HERE = b": still here\n\n"


@dataclass(frozen=True)
class News:
    """What is new to whoever has heard all up to some event: messages as they go over the wire.

    `last`: the id of the last event among them; `more`: there are further ones already; `ended`: nothing will follow.
    """

    events: bytes
    progress: bytes
    last: int
    more: bool
    ended: bool


async def while_known(parts: AsyncGenerator[bytes, None], known: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
    """What comes of a stream, until `known` says of the listener's key that it was revoked: asked now and then."""
    due = time.monotonic() + ASKED_AGAIN_SECONDS
    async with aclosing(parts):
        async for part in parts:
            if time.monotonic() >= due:
                if not await run_in_threadpool(known):
                    return
                due = time.monotonic() + ASKED_AGAIN_SECONDS
            yield part


async def stream(database: Database, watch: Watch, tenant: str, job_id: str, last: int) -> AsyncGenerator[bytes, None]:
    """Every event past `last`, each under its id, and progress without an id; ends with the job."""
    progress = b""
    with watch.following(job_id) as follower:
        yield HELLO
        while True:
            read = partial(run_in_threadpool, news_of, database, tenant, job_id, last)
            news = await follower.shared((tenant, last), read)
            told = news.events if news.progress == progress else news.events + news.progress
            last, progress = news.last, news.progress
            if told:
                yield told
            if news.more:
                continue
            if news.ended:
                return
            spoken = time.monotonic()
            while not await follower.change(COMMENT_SECONDS - (time.monotonic() - spoken)):
                yield STILL_HERE
                spoken = time.monotonic()


def news_of(database: Database, tenant: str, job_id: str, last: int) -> News:
    """Read the events past `last`, and how far the job is."""
    with database.reading() as session:
        job = repository.get(session, tenant, job_id)
        if job is None:
            return News(b"", b"", last, False, True)
        events = [event_json(event) for event in repository.events_after(session, job_id, last, BATCH)]
    shown = b"".join(_message(event["type"], event, event["id"]) for event in events)
    progress = {**progress_json(job), "state": job.state.value, "phase": job.phase, "latest": job.latest}
    told = int(events[-1]["id"]) if events else last
    # A resumed stream may lie past the last event already.
    ended = job.state in TERMINAL and told >= job.events
    return News(shown, _message("progress", progress), told, len(events) == BATCH, ended)


def _message(kind: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    named = f"id: {event_id}\n" if event_id is not None else ""
    return f"{named}event: {kind}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
