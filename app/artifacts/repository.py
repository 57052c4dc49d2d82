"""Every query on artifacts, and the one on files that rows still name. Knows no HTTP."""

import zlib
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.datasets.models import Dataset
from app.storage import Storage


def find(session: Session, tenant: str, artifact_id: str) -> Artifact | None:
    """The tenant's artifact with this id."""
    return session.scalar(select(Artifact).where(Artifact.id == artifact_id, Artifact.tenant == tenant))


def of_job(session: Session, tenant: str, job_id: str) -> Sequence[Artifact]:
    """The artifacts of one job, in the order they were made."""
    query = select(Artifact).where(Artifact.job_id == job_id, Artifact.tenant == tenant).order_by(Artifact.id)
    return session.scalars(query).all()


def hold(session: Session, key: str) -> None:
    """Keep others from erasing or naming the file `key` until this transaction ends.

    On SQLite the write transaction does so already.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(key.encode()))))


def erase_unnamed(session: Session, storage: Storage, keys: Sequence[str]) -> None:
    """Erase the files that no row names any more; call it last, after the rows were deleted."""
    session.flush()
    for key in sorted(set(keys)):
        hold(session, key)
        named = [
            session.scalar(select(func.count()).select_from(table).where(table.storage_key == key)) or 0
            for table in (Artifact, Dataset)
        ]
        if not any(named):
            storage.delete(key)
