"""Transactions of SQLite: writers wait for each other, nothing is lost, readers write nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, Database, UtcDateTime, database_now


class Counter(Base):
    """A table for these tests."""

    __tablename__ = "test_counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int]
    at: Mapped[datetime | None] = mapped_column(UtcDateTime)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one counter at 0."""
    made = Database(f"sqlite:///{tmp_path / 'test.db'}")
    Base.metadata.create_all(made.engine)
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


def test_what_is_committed_is_synced_to_the_disk(database: Database) -> None:
    with database.session() as session:
        assert session.scalar(text("PRAGMA synchronous")) == 2
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


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
