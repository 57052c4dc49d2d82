"""The tables of the ledger. Knows no query and no accountant; the worker loads it too.

A subject is what shares one budget: rows by their content (the hash of the first upload that held them, whatever was
uploaded since), or a population of clients. Nothing here hangs on a job or a data set, so nothing goes with one.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Float, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.database import Base, UtcDateTime

RESERVED, SPENT, LOST, VOID = "reserved", "spent", "lost", "void"
"""States of an entry: planned and perhaps running; counted; counted in full, as nobody knows the count; never drawn."""


class PrivacyAccount(Base):
    """A subject's budget, if it has one, and whether a job without privacy has read it."""

    __tablename__ = "privacy_accounts"
    __table_args__ = (UniqueConstraint("tenant", "subject", name="uq_privacy_accounts_subject"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    subject: Mapped[str] = mapped_column(String(64))
    epsilon: Mapped[float | None] = mapped_column(Float)
    delta: Mapped[float | None] = mapped_column(Float)
    order: Mapped[float | None] = mapped_column("renyi_order", Float)
    """The order of the Rényi divergence that later jobs are held against: fixed with the budget."""
    open_job: Mapped[str | None] = mapped_column(String(40))
    """The first job without privacy that read the rows: from then on no figure covers all that is known of them."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PrivacyEntry(Base):
    """A group of equal releases of one job: as many as `planned` while it is reserved or lost, else as `counted`."""

    __tablename__ = "privacy_entries"
    __table_args__ = (
        Index("ix_privacy_entries_subject", "tenant", "subject"),
        Index("ix_privacy_entries_job_id", "job_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(63))
    subject: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(40))
    unit: Mapped[str] = mapped_column(String(16))
    grouping: Mapped[str | None] = mapped_column(String(64))
    """Whose rows are together, where the unit is a client of a data set's: `Dataset.grouping`."""
    mechanism: Mapped[str] = mapped_column(String(16))
    sampling: Mapped[str] = mapped_column(String(16))
    sampling_rate: Mapped[float] = mapped_column(Float)
    noise_multiplier: Mapped[float] = mapped_column(Float)
    delta: Mapped[float] = mapped_column(Float)
    """The delta that the job itself was planned for."""
    nominal: Mapped[int] = mapped_column(BigInteger)
    """The public number of units that the plan was made for."""
    planned: Mapped[int] = mapped_column(BigInteger)
    counted: Mapped[int] = mapped_column(BigInteger, default=0)
    state: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    settled_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def protects(self) -> tuple[str, str | None]:
        """What one of those is whom the entry protects: guarantees of two such do not add up to either."""
        return self.unit, self.grouping

    @property
    def count(self) -> int:
        """How many releases have to be reckoned with."""
        return max(self.planned, self.counted) if self.state in (RESERVED, LOST) else self.counted


class PrivacyRow(Base):
    """The hash of a row that was once uploaded, or of one of many, by which its copies are known again."""

    __tablename__ = "privacy_rows"

    tenant: Mapped[str] = mapped_column(String(63), primary_key=True)
    row_hash: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    subject: Mapped[str] = mapped_column(String(64), index=True)
