"""What a private job plans to spend of its training rows: found before its transaction, reserved within it.

To find the noise that a guarantee needs, and to add up what was spent, may take seconds, so nobody holds a lock
meanwhile; the accountant remembers its sums, and within the transaction only what changed since is added up anew.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy.orm import Session

from app.database import Database
from app.datasets import repository as datasets
from app.errors import Conflict, Invalid
from app.jobs.checked import FindDataset, invalid, rows_of
from app.jobs.requests import AnyCreate, JobCreate
from app.privacy import repository as ledger
from app.privacy import service as privacy
from app.privacy.composition import Spending, own
from engine.errors import InvalidPlan


def is_private(body: AnyCreate) -> bool:
    """Whether a job promises privacy."""
    return isinstance(body, JobCreate) and privacy.is_private(body)


def plan(session: Session, tenant: str, body: AnyCreate) -> Spending | None:
    """What a job plans to spend; None where it is not private, or its rows are not there.

    Raises:
        Invalid: its numbers give no guarantee on so many rows.
    """
    if not isinstance(body, JobCreate) or not is_private(body):
        return None
    found = {role: datasets.find(session, tenant, one) for role, one in body.files()}
    known = {role: one for role, one in found.items() if one is not None}
    if len(known) != len(found):
        return None
    train = known.get("train") or known[""]
    try:
        spending = privacy.spending(body, train, rows_of(known))
    except InvalidPlan as error:
        raise invalid(error.faults) from error
    if spending is not None:
        # The answer of now may be another one then, and a repeat of a request gets its first answer.
        with suppress(Conflict):
            privacy.check(session, tenant, train.lineage, spending)
    return spending


def plan_apart(database: Database, tenant: str, body: AnyCreate) -> Spending | None:
    """The same, in a transaction of its own; raises what `plan` raises."""
    with database.reading() as session:
        return plan(session, tenant, body)


def refuse_beyond(session: Session, find: FindDataset, tenant: str, body: AnyCreate, spending: Spending | None) -> None:
    """Refuse a job that would overspend the budget of its training rows; raises what `privacy.check` raises."""
    if spending is not None:
        privacy.check(session, tenant, subject(find, tenant, body), spending)


def subject(find: FindDataset, tenant: str, body: AnyCreate) -> str:
    """Whose account a job is reserved on: that of its training rows, which are there."""
    if not isinstance(body, JobCreate):
        raise TypeError("only a training reserves")
    files = dict(body.files())
    dataset = find(tenant, files.get("train") or files[""])
    if dataset is None:
        raise Invalid("the data set was erased just now", remedy="name another one")
    return dataset.lineage


def hold(session: Session, tenants: Sequence[str]) -> None:
    """Let no other job of these tenants be reserved until this transaction ends; nothing where there is none."""
    if tenants:
        ledger.lock(session, tenants)


def estimate(spending: Spending) -> dict[str, Any]:
    """What a dry run tells of the privacy that a job would spend."""
    return {
        "unit": spending.unit,
        "units": spending.nominal,
        "epsilon": own(spending, spending.delta),
        "delta": spending.delta,
        "releases": [event.to_json() for event in spending.events],
    }
