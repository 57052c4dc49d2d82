"""Finds what was lost: rings again for queued jobs, moves jobs whose lease has lapsed. Any number may run at once.

Its rounds, like others, are made by a thread of every worker, so that no scheduler process is needed. Knows nothing of
how a job is run.
"""

import logging
import threading
from collections.abc import Callable

from app.database import Database
from app.jobs import lifecycle
from worker.lease import DATABASE_AWAY

log = logging.getLogger(__name__)


def rescue(database: Database, max_lapses: int, ring: Callable[[], None]) -> None:
    """Move every lapsed job, then ring if a job is queued."""
    for job_id, state in lifecycle.rescue(database, max_lapses):
        log.warning("the lease of job %s lapsed: it is %s", job_id, state)
    if lifecycle.any_queued(database):
        ring()


class Rounds:
    """Does something every `seconds` in a thread of its own, until it is stopped."""

    def __init__(self, name: str, action: Callable[[], None], seconds: float) -> None:
        self._name = name
        self._action = action
        self._seconds = seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start, at once with the first round."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, after the round that may be under way."""
        self._stopped.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._action()
            except DATABASE_AWAY as error:
                log.warning("%s: the database is away: %s", self._name, error)
            except Exception:
                # Without its rounds what is lost would stay lost, so no error may end them.
                log.exception("%s failed, and tries again", self._name)
            self._stopped.wait(self._seconds)
