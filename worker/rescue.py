"""Finds what was lost: rings again for queued jobs, moves jobs whose lease has lapsed. Any number may run at once.

Its rounds, like others, are made by a thread of every worker, so that no scheduler process is needed. Knows nothing of
how a job is run.
"""

import logging
import threading
import time
from collections.abc import Callable

from app.database import Database
from app.jobs import lifecycle
from worker.lease import DATABASE_AWAY

log = logging.getLogger(__name__)


class Rescue:
    """Moves every lapsed job, and rings if one is queued.

    An outage of the database that is longer than a lease lets every lease lapse, also of runs that live. So after one,
    and after a start, as nobody knows what was before it, the living have time to renew theirs.

    Args:
        database: where the jobs are.
        name: that of the worker, which says in each round that it lives.
        max_lapses: lapses after which a job fails.
        ring: wakes a worker.
        patience_seconds: the time that the living have.
        clock: gives seconds.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        max_lapses: int,
        ring: Callable[[], None],
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._database = database
        self._max_lapses = max_lapses
        self._ring = ring
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._from: float | None = None
        """From when on a lapsed lease means a lost run; None: the database has not answered yet."""

    def round(self) -> None:
        """One round; raises what the database raises."""
        began = self._clock()
        try:
            lifecycle.present(self._database, self.name)
        except DATABASE_AWAY:
            self._from = None
            raise
        if self._from is None or self._clock() - began > self._patience_seconds:
            self._from = self._clock() + self._patience_seconds
        if self._clock() >= self._from:
            for job_id, state in lifecycle.rescue(self._database, self._max_lapses):
                log.warning("the lease of job %s lapsed: it is %s", job_id, state)
        if lifecycle.any_queued(self._database):
            self._ring()


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
