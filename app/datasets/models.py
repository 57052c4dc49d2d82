"""The table of data sets. Knows no rules: those stand in the service."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Index, String
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime


def _own_content(context: DefaultExecutionContext) -> str:
    return str(context.get_current_parameters()["sha256"])  # type: ignore[no-untyped-call]  # SQLAlchemy has none


class Dataset(Base):
    """A data set whose rows are stored as one Parquet file under `storage_key`."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_tenant_id", "tenant", "id"),
        Index("ix_datasets_tenant_lineage", "tenant", "lineage"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    name: Mapped[str | None] = mapped_column(String(200))
    task: Mapped[str] = mapped_column(String(40))
    status: Mapped[str] = mapped_column(String(10))
    rows: Mapped[int] = mapped_column(BigInteger)
    nominal_rows: Mapped[int | None] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    splits: Mapped[dict[str, int]] = mapped_column(JSON)
    columns: Mapped[dict[str, Any]] = mapped_column(JSON)
    labels: Mapped[list[str]] = mapped_column(JSON)
    label_counts: Mapped[dict[str, int]] = mapped_column(JSON)
    problems: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    storage_key: Mapped[str] = mapped_column(String(80), index=True)
    groups: Mapped[int | None] = mapped_column(BigInteger)
    """How many different groups the rows to train on name; None where no row names any."""
    grouping: Mapped[str | None] = mapped_column(String(64))
    """A hash of which row is whose, over all rows in any order; None where no row names a group."""
    lineage: Mapped[str] = mapped_column(String(64), default=_own_content)
    """The hash of the first upload that shares rows with this one: they have one privacy account."""
    budgeted: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether that account has a budget: kept here too, so that a submit without privacy needs no further look."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
