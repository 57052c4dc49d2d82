"""One small query that is asked over and over by an event loop: on SQLite at once, elsewhere by a thread.

The way through the pool and a thread costs many times what SQLite takes to find one row by its key. Knows no table.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select
from sqlalchemy.dialects import sqlite
from starlette.concurrency import run_in_threadpool

from app.database import Database


class Peek:
    """The query, with a connection of its own on SQLite: it never waits for one, nor readers for writers there."""

    def __init__(self, database: Database, statement: Select[*tuple[Any, ...]]) -> None:
        self._database = database
        self._statement = statement
        self._text = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
        self._connection: sqlite3.Connection | None = None
        database.at_close(self._close)

    @property
    def at_once(self) -> bool:
        """Whether an answer takes no thread, so that to ask some times is cheaper than one larger query."""
        return self._database.url.get_backend_name() == "sqlite"

    async def first(self, values: dict[str, str]) -> Sequence[Any] | None:
        """The first row, or None."""
        if self.at_once:
            try:
                row: Sequence[Any] | None = self._own().execute(self._text, values).fetchone()
                return row
            except sqlite3.Error:
                # Whatever it is, the usual way tells it as every other query does.
                self._close()
        return await run_in_threadpool(self._asked, values)

    def _own(self) -> sqlite3.Connection:
        if self._connection is None:
            file = str(self._database.url.database)
            # Outside of any transaction, so that each look sees what was committed last.
            own = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
            self._connection = own
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _asked(self, values: dict[str, str]) -> Sequence[Any] | None:
        with self._database.reading() as session:
            return session.execute(self._statement, values).first()
