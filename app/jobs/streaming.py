"""A job's events as a live stream (server-sent events). Reads rows that the worker wrote; writes nothing."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from app.database import Database
from app.jobs import repository
from app.jobs.schemas import event_json, progress_json
from app.jobs.states import TERMINAL
from app.jobs.watching import Watch

COMMENT_SECONDS = 15.0
BATCH = 500


async def stream(database: Database, watch: Watch, tenant: str, job_id: str, last: int) -> AsyncIterator[str]:
    """Every event past `last`, each under its id, and progress (without an id) as it is made; ends with the job."""
    progress: dict[str, Any] = {}
    with watch.following(job_id) as follower:
        yield ": the events of a job\n\n"
        while True:
            shown, made, ended = await run_in_threadpool(_news, database, tenant, job_id, last)
            for event in shown:
                last = int(event["id"])
                yield _message(event["type"], event, event["id"])
            if made != progress and made:
                progress = made
                yield _message("progress", made)
            if len(shown) == BATCH:
                continue
            if ended:
                return
            spoken = time.monotonic()
            while not await follower.change(COMMENT_SECONDS - (time.monotonic() - spoken)):
                yield ": still here\n\n"
                spoken = time.monotonic()


def _news(database: Database, tenant: str, job_id: str, last: int) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
    """Events past `last`, the progress, and whether nothing will follow."""
    with database.reading() as session:
        job = repository.get(session, tenant, job_id)
        if job is None:
            return [], {}, True
        events = [event_json(event) for event in repository.events_after(session, job_id, last, BATCH)]
        progress = {**progress_json(job), "state": job.state.value, "phase": job.phase, "latest": job.latest}
        # A resumed stream may lie past the last event already.
        return events, progress, job.state in TERMINAL and last + len(events) >= job.events


def _message(kind: str, data: dict[str, Any], event_id: str | None = None) -> str:
    named = f"id: {event_id}\n" if event_id is not None else ""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{named}event: {kind}\ndata: {text}\n\n"
