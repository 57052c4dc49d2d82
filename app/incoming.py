"""Where uploads land before they are checked and stored, and copies of what is stored elsewhere. Knows no request.

Each lies in a folder of its own, which its process holds by a lock until it ends, however it ends; several processes,
on several machines too, may share the folder around them. What a killed process has left is swept.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.storage import Storage


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


@contextmanager
def at_hand(storage: Storage, key: str, name: str) -> Iterator[Path]:
    """A stored file on this machine: where it lies, or a copy of this name for as long as it is used."""
    if (path := storage.local_path(key)) is not None:
        yield path
        return
    with landing(storage.scratch) as folder:
        storage.fetch(key, folder / name)
        yield folder / name


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
