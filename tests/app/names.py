"""Rows that name stored files, and that do so no more: snapshots, where any row with a `storage_key` would do."""

from pathlib import Path

from sqlalchemy import delete, insert

from app.database import Database
from app.erasure import keep_all, storing, unname
from app.jobs.models import JobSnapshot
from app.storage import S3Storage, Stored
from tests.service import put_job


def files(storage: S3Storage) -> set[str]:
    """The keys of all that is stored."""
    return set(storage.client.objects)


def name(database: Database, stored: Stored, owner: str) -> None:
    """Let a row name the file, as its owner would."""
    job_id = put_job(database)
    with database.session() as session:
        keep_all(session, owner, [stored.key])
        values = {"job_id": job_id, "step": 1, "path": "p", "sha256": stored.sha256, "storage_key": stored.key}
        session.execute(insert(JobSnapshot).values(values))


def drop_names(database: Database) -> list[str]:
    """Let no row name any file; their keys."""
    with database.session() as session:
        keys = list(session.scalars(delete(JobSnapshot).returning(JobSnapshot.storage_key)))
        unname(session, keys)
    return keys


def named_file(database: Database, storage: S3Storage, file: Path) -> Stored:
    """A stored file that one row names."""
    with storing(database, storage, "one") as store:
        stored = store(file)
        name(database, stored, "one")
    return stored
