"""Every query on keys and on the audit log. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.auth.models import AuditEntry, Key
from app.paging import Asked


def count(session: Session) -> int:
    """How many keys there are."""
    return session.scalar(select(func.count()).select_from(Key)) or 0


def admins(session: Session, tenant: str) -> int:
    """How many admin keys a tenant has; until the transaction ends nobody else deletes one of them."""
    query = select(Key.id).where(Key.tenant == tenant, Key.role == "admin").order_by(Key.id).with_for_update()
    return len(session.scalars(query).all())


def find(session: Session, key_id: str, tenant: str | None) -> Key | None:
    """The key with this id; of any tenant if `tenant` is None."""
    query = select(Key).where(Key.id == key_id)
    return session.scalar(query if tenant is None else query.where(Key.tenant == tenant))


def page(session: Session, tenant: str | None, asked: Asked) -> Sequence[Key]:
    """The keys of one page and one more; of every tenant if `tenant` is None."""
    query = select(Key)
    return session.scalars(asked.cut(query if tenant is None else query.where(Key.tenant == tenant), Key.id)).all()


def audit_page(session: Session, tenant: str, asked: Asked) -> Sequence[AuditEntry]:
    """The tenant's audit entries of one page and one more."""
    return session.scalars(asked.cut(select(AuditEntry).where(AuditEntry.tenant == tenant), AuditEntry.id)).all()
