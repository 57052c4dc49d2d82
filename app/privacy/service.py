"""The rules of the ledger: what a job plans is reserved before it is queued, or the job is refused. Knows no request.

Every reservation, budget and placing of rows of one tenant happens one at a time (`repository.lock`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.auth.audit import audit
from app.datasets.models import Dataset
from app.errors import Conflict, Forbidden, NotFound
from app.identity import Identity
from app.ids import new_id
from app.privacy import repository
from app.privacy.composition import Spending, fits, left, own, total
from app.privacy.models import RESERVED, PrivacyAccount, PrivacyEntry
from app.privacy.nominal import public_rows
from app.privacy.schemas import BudgetPut
from app.privacy.settlement import ensure_account
from app.unfit import Unfit, checked
from engine.accounting import best_order, default_delta, planned
from engine.errors import Fault, InvalidPlan
from engine.instruction import Instruction
from engine.spec import Spec

CODE = "budget_exhausted"
# Ids of a tenant's jobs that have not ended and read a data set.
Readers = Callable[[Session, str, str], Sequence[str]]


@dataclass(frozen=True)
class BudgetFault(Fault):
    """A fault of a job that would overspend, with what is left."""

    left: float


def is_private(spec: Spec) -> bool:
    """Whether a job promises privacy to its training rows."""
    return any("differential_privacy" in one.provides for one in spec.instructions)


def spending(spec: Spec, train: Dataset, rows: Mapping[str, int]) -> Spending | None:
    """What a job plans to spend on its training rows; None where it is not private.

    Args:
        spec: the job.
        train: the data set of its training rows.
        rows: rows a split, as far as they are known before the run.

    Raises:
        InvalidPlan: its numbers give no guarantee on so many rows.
    """
    private = [one for one in spec.instructions if "differential_privacy" in one.provides]
    if not private:
        return None
    by_client = any("client_updates" in one.provides for one in private)
    counted = rows.get("train", train.rows)
    nominal = public_rows(train, alone="train" in dict(spec.files())) or max(1, counted)
    if by_client:
        nominal = _asked(private, "clients") or train.groups or 1
    given = _asked(private, "delta")
    events = tuple(planned(spec, nominal))
    delta = given or default_delta(nominal)
    if by_client:
        return Spending("client", nominal, delta, events, train.grouping)
    if delta * counted >= 1:
        detail = f"at a delta of {delta:g}, by the nominal number of rows, all of one of the rows may leak"
        remedy = "send a smaller delta, or upload the rows with a nominal_rows near to their number"
        raise InvalidPlan([Fault("/dataset", "nominal_rows_too_small", detail, remedy)])
    return Spending("record", nominal, delta, events)


def warm(session: Session, tenant: str, subject: str, wanted: Spending) -> None:
    """Do the accountant's sums where nobody waits for a lock; it remembers them. Raises what `check` raises."""
    check(session, tenant, subject, wanted)


def check(
    session: Session, tenant: str, subject: str, wanted: Spending, pointer: str = "/dataset", who: str = "job"
) -> None:
    """Refuse what would overspend the subject's budget: a job, or as `who` says.

    Raises:
        Conflict: with what is left.
    """
    account = repository.account(session, tenant, subject)
    if account is None or account.epsilon is None:
        return
    entries = repository.entries_on(session, tenant, subject)
    if fits(account, entries, wanted):
        return
    spent = total(account, entries)
    remaining = left(account, spent)
    others = {entry.protects for entry in entries if entry.count} - {wanted.protects}
    alone = own(wanted, spent.delta)
    detail = (
        f"the {who} would spend epsilon {alone:g} at delta {spent.delta:g}; of the budget of {account.epsilon:g}"
        f" {spent.quoted:g} is spent or reserved and {remaining:g} is left"
    )
    remedy = "choose more noise or fewer steps, use other rows, or let an admin raise the budget"
    if others:
        unit, _ = others.pop()
        detail = f"what was spent on these rows protects a {unit}, and the {who} would protect a {wanted.unit}"
        remedy = "keep to one unit on these rows, or use other rows"
        if unit == wanted.unit:
            detail = "what was spent on these rows protects clients by another grouping of them than the {who}'s"
            remedy = "use the data set that was used before, or one whose rows and groups are the same"
    raise Conflict(detail, code=CODE, remedy=remedy, faults=[BudgetFault(pointer, CODE, detail, remedy, remaining)])


def reserve(session: Session, tenant: str, subject: str, job_id: str, wanted: Spending) -> None:
    """Enter what a job plans, in the transaction that stores the job; `check` it first."""
    ensure_account(session, tenant, subject)
    now = datetime.now(UTC)
    rows = [
        {
            "id": new_id("led"),
            "tenant": tenant,
            "subject": subject,
            "job_id": job_id,
            "unit": wanted.unit,
            "grouping": wanted.grouping,
            "mechanism": event.mechanism,
            "sampling": event.sampling,
            "sampling_rate": event.q,
            "noise_multiplier": event.sigma,
            "delta": wanted.delta,
            "nominal": wanted.nominal,
            "planned": event.count,
            "counted": 0,
            "state": RESERVED,
            "created_at": now,
        }
        for event in wanted.events
    ]
    for row in rows:
        session.execute(insert(PrivacyEntry).values(row))


def set_budget(
    session: Session, identity: Identity, dataset_id: str, body: BudgetPut | Unfit[BudgetPut], readers: Readers
) -> tuple[PrivacyAccount, Sequence[Dataset]]:
    """Give the rows of a data set a budget; its account, and the data sets that share it.

    Raises:
        NotFound: there is no such data set.
        Invalid: with every fault, that delta would let a whole row out among them.
        Conflict: a job without privacy is about to read the rows.
        Forbidden: only an admin may loosen a budget that something was spent of.
    """
    repository.lock(session, [identity.tenant])
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.tenant != identity.tenant:
        raise NotFound(f"no data set {dataset_id}", remedy="GET /v1/datasets lists yours")
    subject = dataset.lineage
    sharing = repository.hold_datasets(session, identity.tenant, subject)
    rows = max((one.nominal_rows or one.rows for one in sharing), default=1)
    wanted = checked(body, lambda sound: _delta_faults(sound, rows))
    _refuse_open(session, identity.tenant, subject, [one.id for one in sharing], readers)
    ensure_account(session, identity.tenant, subject)
    account = repository.account(session, identity.tenant, subject)
    assert account is not None
    before = {"epsilon": account.epsilon, "delta": account.delta}
    if account.epsilon is not None and account.delta is not None:
        loosened = wanted.epsilon > account.epsilon or wanted.delta > account.delta
        spent = any(entry.count for entry in repository.entries_on(session, identity.tenant, subject))
        if loosened and spent and identity.role != "admin":
            raise Forbidden("something was spent of this budget already", remedy="let an admin raise it")
    account.epsilon, account.delta = wanted.epsilon, wanted.delta
    account.order = best_order(wanted.epsilon, wanted.delta)
    session.flush()
    repository.mark_budgeted(session, identity.tenant, subject)
    detail = {"epsilon": wanted.epsilon, "delta": wanted.delta, "before": before}
    audit(session, identity, "privacy.budget", dataset_id, detail)
    return account, sharing


def _delta_faults(wanted: BudgetPut, rows: int) -> list[Fault]:
    if wanted.delta < 1 / rows:
        return []
    detail = f"with delta {wanted.delta:g} and {rows} rows a whole row may be let out"
    remedy = f"send a delta below {1 / rows:.3g}, such as {default_delta(rows):.1g}"
    return [Fault("/delta", "delta_too_large", detail, remedy)]


def _refuse_open(session: Session, tenant: str, subject: str, dataset_ids: Sequence[str], readers: Readers) -> None:
    private = {entry.job_id for entry in repository.entries_on(session, tenant, subject)}
    open_jobs = {job for one in dataset_ids for job in readers(session, tenant, one)} - private
    if open_jobs:
        some = ", ".join(sorted(open_jobs)[:10])
        detail = f"{len(open_jobs)} jobs without privacy are about to read these rows: {some}"
        raise Conflict(detail, code="dataset_in_use", remedy="cancel them, or wait for their end")


def _asked(private: Iterable[Instruction], name: str) -> Any:
    """The first number of this name that a choice gives, or None: not every instruction has such a parameter."""
    return next((value for one in private if (value := getattr(one, name, None))), None)
