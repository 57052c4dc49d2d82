"""Every query on data sets; each one names the tenant. Knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from app.datasets.models import Dataset
from app.paging import Asked

# Built once: building a statement costs more than running it.
_FIND = select(Dataset).where(Dataset.id == bindparam("of_id"), Dataset.tenant == bindparam("of_tenant"))
_HOLD = _FIND.with_for_update(read=True)
_SEIZE = _FIND.with_for_update().execution_options(populate_existing=True)


def find(session: Session, tenant: str, dataset_id: str) -> Dataset | None:
    """The tenant's data set with this id, whatever its status."""
    return session.scalar(_FIND, {"of_id": dataset_id, "of_tenant": tenant})


def hold(session: Session, tenant: str, dataset_id: str) -> Dataset | None:
    """The same in a write transaction, until whose end the data set is not erased."""
    return session.scalar(_HOLD, {"of_id": dataset_id, "of_tenant": tenant})


def seize(session: Session, tenant: str, dataset_id: str) -> Dataset | None:
    """The same for who is to erase it: whoever holds it is waited for, and what they have stored is seen then."""
    return session.scalar(_SEIZE, {"of_id": dataset_id, "of_tenant": tenant})


def page(session: Session, tenant: str, asked: Asked, task: str | None) -> Sequence[Dataset]:
    """The tenant's data sets of one page and one more."""
    query = select(Dataset).where(Dataset.tenant == tenant)
    if task is not None:
        query = query.where(Dataset.task == task)
    return session.scalars(asked.cut(query, Dataset.id)).all()
