"""Erases files that no row names any more. Knows no table by name: any with a column `storage_key` names files."""

import zlib
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import Base
from app.storage import Storage


def hold(session: Session, key: str) -> None:
    """Keep others from erasing or naming the file `key` until this transaction ends.

    On SQLite the write transaction does so already.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(key.encode()))))


def erase_unnamed(session: Session, storage: Storage, keys: Sequence[str]) -> None:
    """Erase those of the files that no row names any more; call it last, after the rows were deleted."""
    session.flush()
    tables = [table for table in Base.metadata.tables.values() if "storage_key" in table.c]
    for key in sorted(set(keys)):
        hold(session, key)
        if not any(session.scalar(select(table.c.storage_key).where(table.c.storage_key == key)) for table in tables):
            storage.delete(key)
