"""Finds what was lost: rings again for queued jobs, moves jobs whose lease has lapsed. Any number may run at once.

Runs in a thread of every worker, so that no scheduler process is needed. Knows nothing of how a job is run.
"""

import logging
import threading
from collections.abc import Callable

from app.database import Database
from app.jobs import lifecycle
from worker.lease import DATABASE_AWAY

log = logging.getLogger(__name__)


def look_once(database: Database, max_lapses: int, ring: Callable[[], None]) -> None:
    """Move every lapsed job, then ring if a job is queued."""
    try:
        for job_id, state in lifecycle.rescue(database, max_lapses):
            log.warning("the lease of job %s lapsed: it is %s", job_id, state)
        if lifecycle.any_queued(database):
            ring()
    except DATABASE_AWAY as error:
        log.warning("the database is away: %s", error)


class Rescue:
    """Looks every `seconds` until it is stopped."""

    def __init__(self, database: Database, max_lapses: int, seconds: float, ring: Callable[[], None]) -> None:
        self._database = database
        self._max_lapses = max_lapses
        self._seconds = seconds
        self._ring = ring
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rescue", daemon=True)

    def start(self) -> None:
        """Start looking, at once for the first time."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after the look that may be under way."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                look_once(self._database, self._max_lapses, self._ring)
            except Exception:
                # Without rescue lost jobs would stay lost, so no error may end it.
                log.exception("rescue failed, and tries again")
            self._stopped.wait(self._seconds)
