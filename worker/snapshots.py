"""Stores the snapshots of a run beside it, where storage is remote, and erases what newer ones supersede.

Knows no process, and no database but by what it is handed.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from app.jobs.lifecycle import Snapshot

log = logging.getLogger(__name__)

KEPT = 2


class Snapshots:
    """The snapshots of one run; a context that waits for all that was begun.

    Args:
        save: stores the snapshot that the engine told of.
        erase: erases all but the newest so many that are on record.
    """

    def __init__(self, save: Callable[[Mapping[str, Any]], Snapshot], erase: Callable[[int], None]) -> None:
        self._save = save
        self._erase = erase
        # One thread: an older snapshot is stored before a newer one, and the engine never waits for the store.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._pending: list[Future[Snapshot]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)

    def store(self, told: Mapping[str, Any]) -> None:
        """Begin to store one."""
        self._pending.append(self._pool.submit(self._save, told))

    def collect(self, note: Callable[[Snapshot], None]) -> None:
        """Hand those that are whole to `note`, which puts them on record."""
        done = [upload for upload in self._pending if upload.done()]
        self._pending = [upload for upload in self._pending if upload not in done]
        for upload in done:
            failure = upload.exception()
            if failure is None:
                note(upload.result())
            else:
                log.warning("a snapshot could not be stored: %s", failure)

    def collect_all(self, note: Callable[[Snapshot], None]) -> None:
        """Wait for those that are being stored, and hand them over too."""
        wait(self._pending)
        self.collect(note)

    def recorded(self) -> None:
        """New ones are on record: begin to erase the superseded."""
        self._pool.submit(erase, self._erase, KEPT)


def erase(all_but: Callable[[int], None], keep: int) -> None:
    """Erase all but so many; those that cannot be dropped now are dropped the next time, or with their job."""
    try:
        all_but(keep)
    except Exception:
        # The database may be away, which is no error of the run's.
        log.warning("superseded snapshots could not be erased", exc_info=True)
