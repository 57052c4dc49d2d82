"""Transactions of SQLite: writers wait for each other, nothing is lost, readers write nothing."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.database import Database, UtcDateTime, database_now
from app.durability import SharedSync
from tests import postgres


class Private(DeclarativeBase):
    """Keeps the table of these tests out of the service's own."""


class Counter(Private):
    """A table for these tests."""

    __tablename__ = "test_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one counter at 0."""
    made = Database(f"sqlite:///{tmp_path / 'test.db'}")
    Private.metadata.create_all(made.engine)
    with made.session() as session:
        session.add(Counter(id=1, value=0, at=None))
    yield made
    made.close()


def test_no_update_is_lost_among_threads_and_processes(database: Database) -> None:
    twin = Database(str(database.url))

    def raise_it(number: int) -> None:
        with (database if number % 2 else twin).session() as session:
            counter = session.scalars(select(Counter)).one()
            counter.value += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(raise_it, range(200)))
    with database.reading() as session:
        assert session.scalars(select(Counter.value)).one() == 200
    twin.close()


def test_an_error_rolls_everything_back(database: Database) -> None:
    def fail() -> None:
        with database.session() as session:
            session.execute(update(Counter).values(value=5))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    with database.reading() as session:
        assert session.scalars(select(Counter.value)).one() == 0


def test_readers_keep_reading_while_a_writer_writes(database: Database) -> None:
    with database.session() as writing, database.reading() as reading:
        writing.execute(update(Counter).values(value=7))
        assert reading.scalars(select(Counter.value)).one() == 0


def test_what_is_committed_is_synced_before_anybody_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path(f"{database.url.database}-wal")
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: synced.append(log.read_bytes()))
    with database.session() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        session.execute(update(Counter).values(value=9))
        assert synced == []

    assert synced == [log.read_bytes()]


def test_threads_share_a_sync_that_began_after_their_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log"
    file.touch()
    synced: list[int] = []

    def slow_sync(_: int) -> None:
        seen = file.stat().st_size
        time.sleep(0.01)
        synced.append(seen)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    shared, writing = SharedSync(file), threading.Lock()

    def write(_: int) -> None:
        with writing, file.open("ab") as stream:
            stream.write(b"x")
            stream.flush()
            mine = file.stat().st_size
        shared.wait()
        assert max(synced) >= mine

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(160)))
    assert len(synced) < 100


def test_a_sync_that_fails_is_told_to_somebody_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").touch()
    shared = SharedSync(tmp_path / "log")

    def fail(_: int) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="gone"):
            shared.wait()
    shared.wait()


def test_moments_come_back_aware_and_in_utc(database: Database) -> None:
    elsewhere = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with database.session() as session:
        session.execute(update(Counter).values(at=elsewhere))
    with database.reading() as session:
        found = session.scalars(select(Counter.at)).one()

    assert found == datetime(2026, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert found is not None
    assert found.tzinfo is UTC


def test_a_moment_without_its_zone_is_refused(database: Database) -> None:
    with database.reading() as session, pytest.raises(StatementError, match="time zone"):
        session.scalars(select(Counter).where(Counter.at == datetime(2026, 1, 1)))


def test_the_databases_clock_compares_with_stored_moments(database: Database) -> None:
    with database.session() as session:
        session.execute(update(Counter).values(at=database_now(plus_seconds=60)))
    with database.reading() as session:
        later = select(Counter.id).where(Counter.at > database_now(plus_seconds=30))
        sooner = select(Counter.id).where(Counter.at < database_now(plus_seconds=90))
        assert session.scalars(later).all() == session.scalars(sooner).all() == [1]
        now = session.scalar(select(database_now()))
    assert now is not None
    assert abs((now - datetime.now(UTC)).total_seconds()) < 5


def test_a_server_that_falls_silent_is_given_up(server: postgres.Server) -> None:
    """One whose network is gone sends no end of the connection: a statement would wait for a quarter of an hour."""
    own = f"{server.url('postgres')}&tcp_user_timeout=7000"
    for url, patience in ((server.url("postgres"), "20000"), (own, "7000")):
        with closing(Database(url)) as database, database.engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            given = raw.info.get_parameters()
            assert (given["tcp_user_timeout"], given["keepalives_idle"]) == (patience, "10")
