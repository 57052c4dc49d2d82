"""The tables of what only OpenAI's surface knows: files as they came, uploads in parts, how a job was asked for there.

Knows no rule. What a job is, stands in the table of jobs; a file's rows stand in that of data sets.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime


class File(Base):
    """A file as it was uploaded. `task` and `problems` are what the check of one for training was for, and found."""

    __tablename__ = "openai_files"
    __table_args__ = (Index("ix_openai_files_tenant_id", "tenant", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    purpose: Mapped[str] = mapped_column(String(20))
    filename: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(80), index=True)
    task: Mapped[str | None] = mapped_column(String(40))
    problems: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)


class FileDataset(Base):
    """Which file a data set was read from. It outlives both, so that a job can tell what it was trained on."""

    __tablename__ = "openai_file_datasets"

    dataset_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    file_id: Mapped[str] = mapped_column(String(40), index=True)
    tenant: Mapped[str] = mapped_column(String(63))
    task: Mapped[str] = mapped_column(String(40))


class Upload(Base):
    """A file that comes in parts; `file_id` once it is complete. One that is pending past `expires_at` is expired."""

    __tablename__ = "openai_uploads"
    __table_args__ = (Index("ix_openai_uploads_status", "status", "expires_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    purpose: Mapped[str] = mapped_column(String(20))
    filename: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    keep_seconds: Mapped[int | None] = mapped_column(Integer)
    """How long the file is to be kept; None: until it is deleted."""
    status: Mapped[str] = mapped_column(String(10))
    file_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class UploadPart(Base):
    """A part of an upload, kept until the upload ends, however it ends."""

    __tablename__ = "openai_upload_parts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("openai_uploads.id", ondelete="CASCADE"), index=True)
    tenant: Mapped[str] = mapped_column(String(63))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    storage_key: Mapped[str] = mapped_column(String(80), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FineTuning(Base):
    """What a job was asked for with on this surface and what its spec does not say."""

    __tablename__ = "openai_fine_tunings"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    training_file: Mapped[str] = mapped_column(String(64))
    validation_file: Mapped[str | None] = mapped_column(String(64))
    learning_rate_multiplier: Mapped[float | None] = mapped_column(Float)
