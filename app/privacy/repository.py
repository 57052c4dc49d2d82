"""Every query on accounts and entries that the service makes. Knows no accountant and no request."""

import zlib
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.datasets.models import Dataset
from app.paging import Asked
from app.privacy.models import PrivacyAccount, PrivacyEntry


def lock(session: Session, tenants: Iterable[str]) -> None:
    """Keep others from reserving, budgeting or placing rows for these tenants until this transaction ends.

    On SQLite the write transaction does so already.
    """
    if session.get_bind().dialect.name == "postgresql":
        for tenant in sorted(set(tenants)):
            session.execute(select(func.pg_advisory_xact_lock(zlib.crc32(f"privacy:{tenant}".encode()))))


def account(session: Session, tenant: str, subject: str) -> PrivacyAccount | None:
    """The account of a subject, as it stands now."""
    query = select(PrivacyAccount).where(PrivacyAccount.tenant == tenant, PrivacyAccount.subject == subject)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def tighten(kept: PrivacyAccount, other: PrivacyAccount) -> None:
    """Let an account take over from another one of the same rows: of two budgets the smaller."""
    if other.epsilon is not None and (kept.epsilon is None or other.epsilon < kept.epsilon):
        kept.epsilon, kept.order = other.epsilon, other.order
    if other.delta is not None and (kept.delta is None or other.delta < kept.delta):
        kept.delta = other.delta
    kept.open_job = kept.open_job or other.open_job


def mark_budgeted(session: Session, tenant: str, subject: str) -> None:
    """Let the data sets of a subject say whether it has a budget: a submit reads no more than that."""
    with_budget = select(PrivacyAccount.id).where(
        PrivacyAccount.tenant == tenant, PrivacyAccount.subject == subject, PrivacyAccount.epsilon.is_not(None)
    )
    statement = (
        update(Dataset)
        .where(Dataset.tenant == tenant, Dataset.lineage == subject)
        .values(budgeted=with_budget.exists())
        .execution_options(synchronize_session=False)
    )
    session.execute(statement)


def entries_on(session: Session, tenant: str, subject: str) -> Sequence[PrivacyEntry]:
    """Everything that was entered for a subject, oldest first."""
    query = select(PrivacyEntry).where(PrivacyEntry.tenant == tenant, PrivacyEntry.subject == subject)
    return session.scalars(query.order_by(PrivacyEntry.id).execution_options(populate_existing=True)).all()


def entries_page(session: Session, tenant: str, asked: Asked, filters: Mapping[str, str]) -> Sequence[PrivacyEntry]:
    """The tenant's entries of one page and one more; `filters` are columns and their values."""
    query = select(PrivacyEntry).where(PrivacyEntry.tenant == tenant)
    query = query.where(*(getattr(PrivacyEntry, column) == value for column, value in filters.items()))
    return session.scalars(asked.cut(query, PrivacyEntry.id)).all()


def accounts_page(session: Session, tenant: str, asked: Asked) -> Sequence[PrivacyAccount]:
    """The tenant's accounts of one page and one more."""
    query = select(PrivacyAccount).where(PrivacyAccount.tenant == tenant)
    return session.scalars(asked.cut(query, PrivacyAccount.id)).all()


def datasets_of(session: Session, tenant: str, subjects: Iterable[str]) -> dict[str, list[Dataset]]:
    """The data sets that are there now, by subject, oldest first."""
    query = select(Dataset).where(Dataset.tenant == tenant, Dataset.lineage.in_(list(subjects)))
    found: dict[str, list[Dataset]] = {}
    for dataset in session.scalars(query.order_by(Dataset.id)):
        found.setdefault(dataset.lineage, []).append(dataset)
    return found


def lineage(session: Session, tenant: str, dataset_id: str) -> str | None:
    """The subject that a data set belongs to; None: there is no such data set."""
    return session.scalar(select(Dataset.lineage).where(Dataset.id == dataset_id, Dataset.tenant == tenant))


def hold_datasets(session: Session, tenant: str, *subjects: str) -> Sequence[Dataset]:
    """The data sets of some subjects, which no submit begins to read until this transaction ends."""
    query = select(Dataset).where(Dataset.tenant == tenant, Dataset.lineage.in_(subjects))
    return session.scalars(query.order_by(Dataset.id).with_for_update()).all()
