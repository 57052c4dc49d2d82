"""Every query on files; each one names the tenant. One that has expired is not found."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from app.artifacts.models import Artifact
from app.artifacts.repository import handed_out
from app.datasets.models import Dataset
from app.openai_tables.models import File, FileDataset
from app.paging import Asked


def find(session: Session, tenant: str, file_id: str) -> File | None:
    """The tenant's file with this id."""
    return session.scalar(select(File).where(File.id == file_id, File.tenant == tenant, _alive()))


def page(session: Session, tenant: str, asked: Asked, purpose: str | None) -> Sequence[File]:
    """One page of the tenant's files and one more."""
    query = select(File).where(File.tenant == tenant, _alive())
    if purpose is not None:
        query = query.where(File.purpose == purpose)
    return session.scalars(asked.cut(query, File.id)).all()


def results(session: Session, tenant: str, asked: Asked) -> Sequence[Artifact]:
    """One page of what the tenant's jobs have made and one more."""
    return session.scalars(asked.cut(handed_out(tenant), Artifact.id)).all()


def datasets(session: Session, tenant: str, file_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """By file and task the first data set that was read from it and is still there."""
    query = select(FileDataset).join(Dataset, Dataset.id == FileDataset.dataset_id)
    query = query.where(FileDataset.tenant == tenant, FileDataset.file_id.in_(file_ids))
    found: dict[str, dict[str, str]] = {file_id: {} for file_id in file_ids}
    for row in session.scalars(query.order_by(FileDataset.dataset_id)):
        found[row.file_id].setdefault(row.task, row.dataset_id)
    return found


def all_datasets(session: Session, tenant: str, file_id: str) -> Sequence[str]:
    """Ids of every data set that was read from a file and is still there."""
    query = select(FileDataset.dataset_id).join(Dataset, Dataset.id == FileDataset.dataset_id)
    return session.scalars(query.where(FileDataset.tenant == tenant, FileDataset.file_id == file_id)).all()


def expired(session: Session) -> Sequence[tuple[str, str]]:
    """Tenant and id of every file that has expired."""
    query = select(File.tenant, File.id).where(File.expires_at <= datetime.now(UTC)).order_by(File.expires_at)
    return [(tenant, file_id) for tenant, file_id in session.execute(query)]


def expired_file(session: Session, file_id: str) -> File | None:
    """A file that has expired and is still there, held; None also where another process erases it just now."""
    query = select(File).where(File.id == file_id, File.expires_at <= datetime.now(UTC))
    return session.scalar(query.with_for_update(skip_locked=True))


def _alive() -> ColumnElement[bool]:
    return or_(File.expires_at.is_(None), File.expires_at > datetime.now(UTC))
