"""Where uploads land before they are checked and stored. Sweeps what a killed process has left. Knows no request.

Each lies in a folder of its own, which its process holds by a lock until it ends, however it ends; several processes,
on several machines too, may share the folder around them.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def landing(data_dir: Path) -> Iterator[Path]:
    """A new folder for one upload, erased in the end."""
    around = _around(data_dir)
    around.mkdir(parents=True, exist_ok=True)
    folder, lock = _held(around)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(data_dir: Path) -> None:
    """Erase the folders that no living process holds."""
    around = _around(data_dir)
    for folder in list(around.iterdir()) if around.is_dir() else ():
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # gone by now, or nothing of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _around(data_dir: Path) -> Path:
    return data_dir / "incoming"


def _held(around: Path) -> tuple[Path, int]:
    """A new folder and the lock on it; another one where it was swept before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=around))
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)
