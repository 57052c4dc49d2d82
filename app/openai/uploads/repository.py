"""Every query on uploads and their parts; each one names the tenant, but for those that sweep what has expired."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.openai.uploads.schemas import PENDING
from app.openai_tables.models import Upload, UploadPart


def find(session: Session, tenant: str, upload_id: str, *, hold: bool = False) -> Upload | None:
    """The tenant's upload; with `hold` nobody else writes it until the transaction ends."""
    query = select(Upload).where(Upload.id == upload_id, Upload.tenant == tenant)
    query = query.with_for_update().execution_options(populate_existing=True) if hold else query
    return session.scalars(query).one_or_none()


def parts(session: Session, tenant: str, upload_id: str) -> dict[str, UploadPart]:
    """The parts of an upload by id."""
    query = select(UploadPart).where(UploadPart.upload_id == upload_id, UploadPart.tenant == tenant)
    return {part.id: part for part in session.scalars(query)}


def size(session: Session, upload_id: str) -> tuple[int, int]:
    """How many parts there are, and how many bytes they have together."""
    query = select(func.count(), func.coalesce(func.sum(UploadPart.size_bytes), 0))
    number, size_bytes = session.execute(query.where(UploadPart.upload_id == upload_id)).one()
    return int(number), int(size_bytes)


def drop_parts(session: Session, upload_id: str) -> list[str]:
    """Take the parts of an upload off the record; their storage keys."""
    statement = delete(UploadPart).where(UploadPart.upload_id == upload_id).returning(UploadPart.storage_key)
    return list(session.scalars(statement.execution_options(synchronize_session=False)))


def expired(session: Session, by: datetime) -> Sequence[Upload]:
    """Every upload that is pending, and whose time was over by some moment; held."""
    query = select(Upload).where(Upload.status == PENDING, Upload.expires_at <= by)
    return session.scalars(query.with_for_update(skip_locked=True)).all()
