"""What a run drew, written into the ledger by the transactions that a worker makes. Knows neither engine nor request.

An entry is reserved in the submit transaction, counts up with what the run tells, and is settled to the count when its
job ends. Where a worker was lost nobody knows the count, so the entry is settled in full, and stays so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from app.database import database_now, insert_into
from app.datasets.models import Dataset
from app.ids import new_id
from app.privacy.models import LOST, RESERVED, SPENT, VOID, PrivacyAccount, PrivacyEntry
from app.privacy.nominal import public_rows

_ONCE = {"synchronize_session": False}


@dataclass(frozen=True)
class Drawn:
    """How often a run and its earlier attempts made one release, so far; the fields are those of the engine's event."""

    mechanism: str
    sampling: str
    q: float
    sigma: float
    count: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From the engine's JSON."""
        return cls(
            str(told["mechanism"]),
            str(told["sampling"]),
            float(told["q"]),
            float(told["sigma"]),
            int(told["count"]),
        )

    def matches(self) -> tuple[ColumnElement[bool], ...]:
        """What holds of the entry of this release."""
        return (
            PrivacyEntry.mechanism == self.mechanism,
            PrivacyEntry.sampling == self.sampling,
            PrivacyEntry.sampling_rate == self.q,
            PrivacyEntry.noise_multiplier == self.sigma,
        )


def note(session: Session, job_id: str, drawn: Iterable[Drawn]) -> None:
    """Raise the counts of a job to what was drawn; a release that nobody planned gets an entry of its own."""
    for one in drawn:
        counted = case((PrivacyEntry.counted < one.count, one.count), else_=PrivacyEntry.counted)
        statement = update(PrivacyEntry).where(PrivacyEntry.job_id == job_id, *one.matches()).values(counted=counted)
        if not session.execute(statement.execution_options(**_ONCE).returning(PrivacyEntry.id)).first():
            _unplanned(session, job_id, one)


def _unplanned(session: Session, job_id: str, one: Drawn) -> None:
    beside = session.scalars(select(PrivacyEntry).where(PrivacyEntry.job_id == job_id).limit(1)).first()
    if beside is None:
        # Nothing was reserved, so there is no account: what runs so was never promised to be private.
        return
    values = {
        "id": new_id("led"),
        "tenant": beside.tenant,
        "subject": beside.subject,
        "job_id": job_id,
        "unit": beside.unit,
        "grouping": beside.grouping,
        "mechanism": one.mechanism,
        "sampling": one.sampling,
        "sampling_rate": one.q,
        "noise_multiplier": one.sigma,
        "delta": beside.delta,
        "nominal": beside.nominal,
        "planned": 0,
        "counted": one.count,
        "state": RESERVED,
        "created_at": datetime.now(UTC),
    }
    session.execute(insert(PrivacyEntry).values(values))


def settle(session: Session, job_id: str) -> None:
    """The job has ended: what is reserved becomes what was counted, and void where that is nothing."""
    state = case((PrivacyEntry.counted > 0, SPENT), else_=VOID)
    mine = (PrivacyEntry.job_id == job_id, PrivacyEntry.state == RESERVED)
    statement = update(PrivacyEntry).where(*mine).values(state=state, settled_at=database_now())
    session.execute(statement.execution_options(**_ONCE))


def lose(session: Session, job_id: str) -> None:
    """The worker was lost, and with it the count: the whole reservation is spent, whatever is told later."""
    mine = (PrivacyEntry.job_id == job_id, PrivacyEntry.state == RESERVED)
    statement = update(PrivacyEntry).where(*mine).values(state=LOST, settled_at=database_now())
    session.execute(statement.execution_options(**_ONCE))


def entries_of(session: Session, job_id: str) -> Sequence[PrivacyEntry]:
    """The entries of a job, in the order in which they were made."""
    return session.scalars(select(PrivacyEntry).where(PrivacyEntry.job_id == job_id).order_by(PrivacyEntry.id)).all()


def budget_for_run(
    session: Session, job_id: str, dataset: str | Mapping[str, str | None] | None = None
) -> dict[str, Any] | None:
    """What a private run has to know of its account, as the engine reads it; None: the job reserved nothing.

    `dataset`: the id that the job names, or those of its splits.

    Beside the engine's fields, `lost` holds what has to be taken for drawn where the journal of a lost worker does not
    lie in the run's folder; None: none was lost.
    """
    mine = entries_of(session, job_id)
    if not mine:
        return None
    first = mine[0]
    others = select(PrivacyEntry).where(
        PrivacyEntry.tenant == first.tenant, PrivacyEntry.subject == first.subject, PrivacyEntry.job_id != job_id
    )
    account = session.scalars(
        select(PrivacyAccount).where(PrivacyAccount.tenant == first.tenant, PrivacyAccount.subject == first.subject)
    ).one()
    beside = session.scalars(others.order_by(PrivacyEntry.id)).all()
    spent = [as_event(one, one.count) for one in beside if one.count]
    bound = {"epsilon": account.epsilon, "delta": account.delta}
    if account.open_job is not None or any(one.protects != first.protects and one.count for one in beside):
        # What was run without privacy is past any bound, as is a client's guarantee beside a record's, or beside one
        # by another grouping: they do not add up to either. What the private jobs may spend was reserved.
        spent.append({"mechanism": "none", "q": 1.0, "sigma": 0.0, "count": 1, "sampling": "none"})
        bound["epsilon"] = None
    lost = [as_event(one, one.count) for one in mine] if any(one.state == LOST for one in mine) else None
    recorded = [as_event(one, one.counted) for one in mine if one.counted]
    found = {
        "rows": first.nominal,
        "shown_rows": _shown_rows(session, dataset),
        **bound,
        "order": account.order,
        "spent": spent,
        "recorded": recorded,
    }
    return {**found, "lost": lost}


def _shown_rows(session: Session, dataset: str | Mapping[str, str | None] | None) -> int | None:
    train_id = dataset.get("train") if isinstance(dataset, Mapping) else dataset
    train = session.get(Dataset, train_id) if train_id is not None else None
    return public_rows(train, alone=isinstance(dataset, Mapping)) if train is not None else None


def as_event(entry: PrivacyEntry, count: int) -> dict[str, Any]:
    """An entry in the engine's schema."""
    return {
        "mechanism": entry.mechanism,
        "q": entry.sampling_rate,
        "sigma": entry.noise_multiplier,
        "count": count,
        "sampling": entry.sampling,
    }


def open_to(session: Session, tenant: str, job_id: str, dataset_ids: Iterable[str]) -> None:
    """Write down that a job begins to read rows without privacy: of these data sets, but those it has reserved for.

    Only the first such job of a subject is written down, so this costs one look from the second on. The first holds the
    data sets, lest an upload make one subject of two meanwhile and the note stand on the one that is gone.
    """
    paid = select(PrivacyEntry.subject).where(PrivacyEntry.job_id == job_id)
    known = (PrivacyAccount.tenant == Dataset.tenant) & (PrivacyAccount.subject == Dataset.lineage)
    query = (
        select(Dataset.id)
        .outerjoin(PrivacyAccount, known)
        .where(Dataset.tenant == tenant, Dataset.id.in_(list(dataset_ids)), Dataset.lineage.not_in(paid))
        .where(or_(PrivacyAccount.id.is_(None), PrivacyAccount.open_job.is_(None)))
    )
    if first := session.scalars(query).all():
        held = select(Dataset.lineage).where(Dataset.id.in_(first)).order_by(Dataset.id).with_for_update(read=True)
        for subject in sorted(set(session.scalars(held))):
            ensure_account(session, tenant, subject, open_job=job_id)


def ensure_account(session: Session, tenant: str, subject: str, *, open_job: str | None = None) -> None:
    """Make the subject's account where there is none, and note the first job that read it without privacy."""
    statement = insert_into(session, PrivacyAccount).values(
        id=new_id("pac"), tenant=tenant, subject=subject, open_job=open_job, created_at=datetime.now(UTC)
    )
    columns = [PrivacyAccount.tenant, PrivacyAccount.subject]
    if open_job is None:
        statement = statement.on_conflict_do_nothing(index_elements=columns)
    else:
        first = func.coalesce(PrivacyAccount.open_job, statement.excluded.open_job)
        statement = statement.on_conflict_do_update(index_elements=columns, set_={"open_job": first})
    session.execute(statement)
