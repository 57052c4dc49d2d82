"""The database: one transaction a session, on SQLite and Postgres alike, on the database's own clock.

Knows no table; the domains declare theirs on `Base`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import ColumnElement, DateTime, Dialect, Engine, create_engine, event, literal, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.durability import SharedSync

BUSY_MILLISECONDS = 5_000
_JSON: dict[str, Any] = {
    "json_serializer": lambda document: orjson.dumps(document).decode(),
    "json_deserializer": orjson.loads,
    # An error's text ends up in logs, and the values of a statement are people's own.
    "hide_parameters": True,
}


# Of libpq with a server: in seconds, the last in milliseconds. One that falls silent, as its network or its machine is
# gone, would hold a worker and every thread of the API for as long as the system sends anew, a quarter of an hour.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Base(DeclarativeBase):
    """The base of every table."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and in UTC both ways; SQLite has no time zones, so there it is stored naive, in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive moment; hand SQLite a naive one in UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without its time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the moment its time zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Now(FunctionElement[datetime]):
    """The database's clock, some seconds from now."""

    type = UtcDateTime()
    inherit_cache = True
    name = "database_now"


def database_now(plus_seconds: float | ColumnElement[float] = 0) -> FunctionElement[datetime]:
    """The database's clock as a SQL expression, `plus_seconds` from now, on both dialects."""
    return _Now(plus_seconds if isinstance(plus_seconds, ColumnElement) else literal(float(plus_seconds)))


@compiles(_Now, "sqlite")
def _now_on_sqlite(element: _Now, compiler: SQLCompiler, **keywords: Any) -> str:
    seconds = compiler.process(element.clauses, **keywords)
    # `%f` has three decimals and stored moments have six: equal lengths keep the comparison of texts right.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', ({seconds}) || ' seconds') || '000')"


@compiles(_Now, "postgresql")
def _now_on_postgres(element: _Now, compiler: SQLCompiler, **keywords: Any) -> str:
    seconds = compiler.process(element.clauses, **keywords)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"


def insert_into(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that may say what is done where the row is there already.

    Both dialects have the clause in the same words; SQLAlchemy has it on the dialects' own inserts only.
    """
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def let_go(session: Session) -> None:
    """End the transaction before what may take long, such as a look into the store of files; give the connection back.

    What was read stays readable, and a further query begins anew.
    """
    session.close()


class Database:
    """The way to one database; safe to share among threads.

    On SQLite `engine` has a single connection: writers of this process queue for it in order instead of spinning on
    the file's lock, and readers have connections of their own. A session takes its connection with its first
    statement, so work done before that holds nobody up.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        if self.url.drivername in ("postgres", "postgresql"):
            self.url = self.url.set(drivername="postgresql+psycopg")
        self._closing: list[Callable[[], None]] = []
        self._durable: SharedSync | None = None
        if self.url.get_backend_name() == "sqlite":
            self.engine = create_engine(self.url, pool_size=1, max_overflow=0, pool_timeout=30, **_JSON)
            self.readers = create_engine(self.url, pool_size=8, max_overflow=32, pool_timeout=30, **_JSON)
            self._durable = SharedSync(Path(f"{self.url.database}-wal"))
            _prepare_sqlite(self.engine, "BEGIN IMMEDIATE")
            _prepare_sqlite(self.readers, "BEGIN")
        else:
            self.engine = create_engine(
                self.url,
                pool_size=8,
                max_overflow=32,
                pool_timeout=10,
                pool_pre_ping=True,
                connect_args={name: value for name, value in _PATIENCE.items() if name not in self.url.query},
                **_JSON,
            )
            self.readers = self.engine.execution_options(postgresql_readonly=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One write transaction: committed at the end and durable after it, rolled back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session
        if self._durable is not None:
            self._durable.wait()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One read-only transaction; nothing in it is ever committed."""
        with Session(self.readers, expire_on_commit=False, autoflush=False) as session:
            yield session

    def at_close(self, action: Callable[[], None]) -> None:
        """Do this when the database is closed."""
        self._closing.append(action)

    def close(self) -> None:
        """Close every connection."""
        while self._closing:
            self._closing.pop()()
        self.engine.dispose()
        self.readers.dispose()


def _prepare_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _record: object) -> None:
        # The driver must not open transactions by itself: a deferred one cannot be upgraded under load.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # Consistent in itself; `SharedSync` makes it durable.
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)
