"""Gives every stored file a name on record, from before it is there until it is erased; erases what no row names.

A file is announced before it is stored: an entry in `erasures` that falls due unless the transaction which names the
file takes it off. What loses its name is entered by the transaction that drops the name, and erased after the commit.
The store is never called in a transaction: on SQLite there is one write lock, and a store may be slow.

Knows no table by name: any column called `storage_key` or `log_key` names files.
"""

import logging
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Delete, String, Update, delete, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.database import Base, Database, UtcDateTime, database_now
from app.ids import new_id
from app.storage import Storage, Stored

log = logging.getLogger(__name__)

NAMING = ("storage_key", "log_key")
UNKEPT_SECONDS = 86_400.0
"""How long an announced file may take to be stored and named: longer than any upload, as nobody hears of its end."""
ERASING_SECONDS = 300.0
"""How long one erasure may take: more than the three tries of the store's client together."""
RETRY_SECONDS = 60.0
WAIT_SECONDS = 0.1
DUE_AT_A_TIME = 100


class Erasure(Base):
    """A file that is to be erased once the entry is due, unless a row names it or another entry of it is not yet due.

    `owner` has announced the file and may yet name it; `eraser` is erasing it, until the entry falls due again.
    """

    __tablename__ = "erasures"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(80), index=True)
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    due: Mapped[datetime] = mapped_column(UtcDateTime)
    eraser: Mapped[str | None] = mapped_column(String(40))


def hold(session: Session, key: str) -> None:
    """Keep others from announcing, naming or beginning to erase the file `key` until this transaction ends.

    On SQLite the write transaction does so already.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(key.encode()))))


@contextmanager
def storing(database: Database, storage: Storage, owner: str) -> Iterator[Callable[[Path], Stored]]:
    """Hands out what stores a file for `owner`; in the end the files that `owner` has not kept are erased.

    A file that could not be stored whole keeps its entry: the store may have it after all, or get it late.
    """
    done: list[str] = []

    def store(path: Path) -> Stored:
        stored = storage.save(path, partial(announce, database, owner))
        done.append(stored.key)
        return stored

    try:
        yield store
    finally:
        try:
            if done:
                with database.session() as session:
                    unkept = _release(session, owner, done)
                erase(database, storage, unkept)
        except Exception:
            # Whatever this context was for has succeeded or failed already, and the entries stay.
            log.warning("the files of %s wait to be erased by a worker", owner, exc_info=True)


def keep(session: Session, owner: str, keys: Iterable[str]) -> set[str]:
    """Take files that `owner` has stored off the record of erasures, in the transaction that names them.

    Returns those that it may name. The others it must not: they are named already, or erased.
    """
    wanted = sorted(set(keys))
    for key in wanted:
        hold(session, key)
    mine = (Erasure.owner == owner, Erasure.key.in_(wanted), Erasure.eraser.is_(None))
    return set(session.scalars(delete(Erasure).where(*mine).returning(Erasure.key)))


def keep_all(session: Session, owner: str, keys: Iterable[str]) -> None:
    """The same where all have to be there; raises FileNotFoundError if one is not."""
    wanted = set(keys)
    if lost := wanted - keep(session, owner, wanted):
        raise FileNotFoundError(f"erased before it was on record: {', '.join(sorted(lost))}")


def unname(session: Session, keys: Iterable[str]) -> None:
    """Enter files that lose a name in this transaction; `erase` them after it."""
    for key in sorted(set(keys)):
        session.execute(insert(Erasure).values(key=key, due=database_now()))


def erase(database: Database, storage: Storage, keys: Iterable[str]) -> None:
    """Erase those of the files that are due and that no row names, outside any transaction.

    Raises nothing, and ends with the first that the store will not erase: the entries stay, and a worker tries again.
    """
    for key in sorted(set(keys)):
        try:
            _erase(database, storage, key)
        except Exception:
            # The store's client has errors of its own.
            log.warning("%s could not be erased; a worker will try again", key, exc_info=True)
            return


def erase_due(database: Database, storage: Storage) -> None:
    """Erase what is due, the longest due first, at most so many: what a crash or a failing store has left."""
    due = select(Erasure.key).group_by(Erasure.key).having(func.max(Erasure.due) <= database_now())
    with database.reading() as session:
        keys = session.scalars(due.order_by(func.max(Erasure.due)).limit(DUE_AT_A_TIME)).all()
    erase(database, storage, keys)


def announce(database: Database, owner: str, stored: Stored) -> None:
    """Enter a file that will be there next; waits while an equal one is being erased."""
    erasing = (Erasure.key == stored.key, Erasure.eraser.is_not(None), Erasure.due > database_now())
    entry = {"key": stored.key, "owner": owner, "due": database_now(plus_seconds=UNKEPT_SECONDS)}
    while True:
        with database.session() as session:
            hold(session, stored.key)
            if session.scalar(select(Erasure.id).where(*erasing).limit(1)) is None:
                session.execute(insert(Erasure).values(entry))
                return
        time.sleep(WAIT_SECONDS)


def _release(session: Session, owner: str, keys: Iterable[str]) -> list[str]:
    """Let the entries of these files that `owner` has not kept be due now; their keys."""
    mine = (Erasure.owner == owner, Erasure.key.in_(list(keys)), Erasure.eraser.is_(None))
    statement = update(Erasure).where(*mine).values(due=database_now()).returning(Erasure.key)
    return list(session.scalars(statement.execution_options(synchronize_session=False)))


def _erase(database: Database, storage: Storage, key: str) -> None:
    with database.session() as session:
        eraser = _begin(session, key)
    if eraser is None:
        return
    mine = Erasure.eraser == eraser
    again = database_now(plus_seconds=RETRY_SECONDS)
    outcome: Delete | Update = update(Erasure).where(mine).values(eraser=None, due=again)
    try:
        storage.delete(key)
        outcome = delete(Erasure).where(mine)
    finally:
        with database.session() as session:
            session.execute(outcome)


def _begin(session: Session, key: str) -> str | None:
    """Take the erasure of a file upon oneself, in the name that is returned; None: it is not to be erased now."""
    hold(session, key)
    entries = Erasure.key == key
    if session.scalar(select(Erasure.id).where(entries, Erasure.due > database_now()).limit(1)) is not None:
        # Being stored, being erased, or to be tried again later. The entry that is not due keeps the name.
        return None
    if _named(session, key):
        session.execute(delete(Erasure).where(entries))
        return None
    eraser = new_id("eraser")
    begun = update(Erasure).where(entries).values(eraser=eraser, due=database_now(plus_seconds=ERASING_SECONDS))
    return eraser if session.scalars(begun.returning(Erasure.id)).all() else None


def _named(session: Session, key: str) -> bool:
    tables = Base.metadata.tables.values()
    columns = [table.c[name] for table in tables for name in NAMING if name in table.c]
    return any(session.scalar(select(column).where(column == key).limit(1)) is not None for column in columns)
