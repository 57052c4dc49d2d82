"""A look by a connection of its own: a failed one is closed, and the answer comes the usual way."""

import asyncio
import sqlite3
from pathlib import Path

from sqlalchemy import bindparam, select

from app.database import Database
from app.peek import Peek


class Broken(sqlite3.Connection):
    """A connection that answers nothing."""

    closed = 0

    def execute(self, *_: object) -> sqlite3.Cursor:
        """Fail."""
        raise sqlite3.OperationalError("disk I/O error")

    def close(self) -> None:
        """Count."""
        Broken.closed += 1
        super().close()


def test_a_connection_that_failed_is_closed_and_another_answers(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    peek = Peek(database, select(bindparam("word", type_=None)))
    peek._connection = Broken(":memory:")
    assert [asyncio.run(peek.first({"word": word})) for word in ("a", "b")] == [("a",), ("b",)]
    assert Broken.closed == 1
    database.close()
    assert peek._connection is None
