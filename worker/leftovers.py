"""Erases what runs have left on this machine once their jobs have ended elsewhere: copies of rows, snapshots, logs.

A worker clears the folder of a run that it ends itself. It cannot where the job goes on on another machine, or is ended
while it is queued, paused or lost; and of a job that is erased the log goes too. Knows no process.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.database import Database
from app.jobs.lifecycle import states_of
from app.jobs.states import TERMINAL
from worker.folder import clear, runs_of
from worker.supervise import LOCK_NAME, LOG_NAME

SWEEP_SECONDS = 600.0
_AT_A_TIME = 500


def sweep_runs(database: Database, data_dir: Path) -> None:
    """Clear the folders of jobs that have ended, all but their logs, and erase those of jobs that are no more."""
    runs = runs_of(data_dir)
    # Listed before the jobs are asked for: a folder is made for a job that is on record.
    names = sorted(entry.name for entry in runs.iterdir() if entry.is_dir()) if runs.is_dir() else []
    for some in (names[start : start + _AT_A_TIME] for start in range(0, len(names), _AT_A_TIME)):
        states = states_of(database, some)
        for name in some:
            if states.get(name) in {None, *TERMINAL}:
                with suppress(FileNotFoundError):  # somebody else erases it just now
                    _erase(runs / name, keep_log=name in states)


def _erase(folder: Path, *, keep_log: bool) -> None:
    if keep_log and all(entry.name == LOG_NAME for entry in folder.iterdir()):
        return
    with _unused(folder) as unused:
        if unused and keep_log:
            clear(folder)
        elif unused:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unused(folder: Path) -> Iterator[bool]:
    """Whether no process of a run works there still, such as that of a worker which was fenced off; held meanwhile."""
    try:
        lock = (folder / LOCK_NAME).open("rb")
    except FileNotFoundError:
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
