"""Makes commits of SQLite durable, many with one sync. Knows no SQL.

A sync of the disk takes milliseconds. Were it part of each commit, as with `synchronous = FULL`, writers would queue
for it one by one. So a commit only writes to the write-ahead log (`NORMAL`: consistent, whatever happens), and before
anybody is told, its thread waits for a sync of the log that began after it. Threads that wait together share one.
"""

import os
import threading
from pathlib import Path


class SharedSync:
    """Syncs one file for every thread that asks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._asked = 0
        self._done = 0
        self._syncing = False

    def wait(self) -> None:
        """Return once all that was written to the file before this call is on the disk; raises OSError if it fails."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            while self._done < mine:
                if self._syncing:
                    self._changed.wait()
                    continue
                self._syncing, covered = True, self._asked
                self._changed.release()
                try:
                    _sync(self._path)
                except OSError:
                    covered = 0
                    raise
                finally:
                    self._changed.acquire()
                    self._syncing, self._done = False, max(self._done, covered)
                    self._changed.notify_all()


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        # The last connection has gone: SQLite has moved the log into the database, synced, and removed it.
        return
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
