"""Erases files and uploads whose time has gone by, for as long as the service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.concurrency import run_in_threadpool

from app.database import Database
from app.datasets.service import Readers
from app.erasure import erase
from app.errors import Conflict
from app.identity import Identity
from app.openai.files import repository as files
from app.openai.files import service
from app.openai.uploads import service as uploads
from app.storage import Storage

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
KEY = "expiry"
"""What the audit log has in place of the id of a key."""


@asynccontextmanager
async def expiring(database: Database, storage: Storage, readers: Readers) -> AsyncIterator[None]:
    """Sweeps once a minute while it is held, several processes beside each other too."""
    task = asyncio.create_task(_sweep_on(database, storage, readers))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_on(database: Database, storage: Storage, readers: Readers) -> None:
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await run_in_threadpool(sweep, database, storage, readers)
        except Exception:
            # The database or the store is away; what has expired is found by nobody, and waits.
            log.warning("what has expired could not be erased", exc_info=True)


def sweep(database: Database, storage: Storage, readers: Readers) -> None:
    """Erase what has expired; a file that a job still reads waits for its end."""
    with database.session() as session:
        keys = uploads.expire(session)
    erase(database, storage, keys)
    with database.reading() as session:
        expired = files.expired(session)
    for tenant, file_id in expired:
        keys = []
        with suppress(Conflict), database.session() as session:
            if (file := files.expired_file(session, file_id)) is not None:
                keys = list(service.delete(session, Identity(tenant, KEY, "admin"), readers, file))
        erase(database, storage, keys)
