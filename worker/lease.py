"""Keeps the lease of a run: renews it from a thread, sees what the job's owner wants, notices being fenced off.

Knows nothing of processes. While the database is away it goes on trying: only the database can say that a lease is
lost.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import Database
from app.jobs import lifecycle
from app.jobs.lifecycle import Run
from app.jobs.states import State

log = logging.getLogger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5

T = TypeVar("T")


class LeaseLapsed(Exception):
    """The database stayed away for longer than the lease ran, and the worker has to leave."""


class Lease:
    """The lease of one run; a context in which it is kept. `leaving` tells whether the worker was asked to stop."""

    def __init__(
        self,
        database: Database,
        run: Run,
        lease_seconds: float,
        heartbeat_seconds: float,
        leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.run = run
        self.state: State | None = State.RUNNING
        """What the job's owner wants of the run; None once it has been fenced off."""
        self._database = database
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._leaving = leaving
        self._renewed = time.monotonic()
        self._left = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep,), name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()

    def observe(self, state: State | None) -> None:
        """Take the answer of a fenced write. Once fenced off, always fenced off."""
        if self.state is not None:
            self.state = state

    def insist(self, write: Callable[[], T]) -> T:
        """Try a write until the database takes it: without one there is nothing else to do, and it knows who is fenced.

        Raises:
            LeaseLapsed: the database stayed away for too long, and the worker has to leave.
        """
        while True:
            try:
                return write()
            except DATABASE_AWAY as error:
                if self._leaving() and time.monotonic() > self._renewed + self._lease_seconds:
                    raise LeaseLapsed(self.run.job_id) from error
                log.warning("the database is away, trying again: %s", error)
                time.sleep(RETRY_SECONDS)

    def _keep(self) -> None:
        pause = min(LOOK_SECONDS, self._heartbeat_seconds / 3)
        while self.state is not None and not self._left.wait(pause):
            begun = time.monotonic()
            try:
                if begun - self._renewed >= self._heartbeat_seconds:
                    self.observe(lifecycle.heartbeat(self._database, self.run, self._lease_seconds))
                    self._renewed = begun
                else:
                    self.observe(lifecycle.look(self._database, self.run))
            except DATABASE_AWAY as error:
                log.warning("the lease of %s could not be renewed: %s", self.run.job_id, error)
            except Exception:
                # Were this thread to end, nobody would hear of a pause, a cancel or the fence any more.
                log.exception("the lease of %s could not be renewed", self.run.job_id)
