"""What a subject has spent, and whether a further job fits: entries as the accountant's events. Knows no SQL.

The account of what was run is by privacy loss distributions. Whoever submits a later job has seen the models of earlier
ones, so a budget is held against a filter: Rényi divergence at one order, fixed with the budget (Feldman and Zrnic
2021). A first job saw nothing, so for it alone the sharper figure may decide; if the filter is full after it, nothing
follows. The larger of the two figures is the one that is quoted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.privacy.models import PrivacyAccount, PrivacyEntry
from engine.accounting import PrivacyEvent, admitted, best_order, epsilon


@dataclass(frozen=True)
class Spending:
    """What a job plans: equal releases in groups, on so many (nominal) units, at the job's own delta."""

    unit: str
    nominal: int
    delta: float
    events: tuple[PrivacyEvent, ...]
    grouping: str | None = None

    @property
    def protects(self) -> tuple[str, str | None]:
        """As of an entry."""
        return self.unit, self.grouping


@dataclass(frozen=True)
class Total:
    """What was spent in all at `delta`, both ways; infinite where nothing bounds it."""

    delta: float
    pld: float
    renyi: float
    quoted: float


def event_of(entry: PrivacyEntry) -> PrivacyEvent:
    """An entry as the accountant sees it: what may yet be drawn counts as drawn."""
    return PrivacyEvent.model_validate(
        {
            "mechanism": entry.mechanism,
            "q": entry.sampling_rate,
            "sigma": entry.noise_multiplier,
            "count": entry.count,
            "sampling": entry.sampling,
        }
    )


def total(account: PrivacyAccount | None, entries: Sequence[PrivacyEntry]) -> Total:
    """What the entries come to; a job without privacy on the same rows is no part of it."""
    counted = [entry for entry in entries if entry.count]
    delta = _delta(account, counted)
    order = _order(account, delta)
    if len({entry.protects for entry in counted}) > 1:
        # A record's guarantee and a client's do not add up to either, nor do those of clients of two groupings.
        return Total(delta, math.inf, math.inf, math.inf)
    events = [event_of(entry) for entry in counted]
    pld, renyi = epsilon(events, delta), admitted(events, delta, order)
    jobs = len({entry.job_id for entry in counted})
    return Total(delta, pld, renyi, pld if jobs <= 1 else max(pld, renyi))


def left(account: PrivacyAccount, spent: Total) -> float:
    """What is left of a budget, rounded down to two decimals."""
    assert account.epsilon is not None
    return max(0.0, math.floor((account.epsilon - spent.quoted) * 100) / 100) if spent.quoted < math.inf else 0.0


def fits(account: PrivacyAccount | None, entries: Sequence[PrivacyEntry], wanted: Spending) -> bool:
    """Whether a job may be reserved beside what is entered; always, where there is no budget."""
    if account is None or account.epsilon is None or account.delta is None:
        return True
    counted = [entry for entry in entries if entry.count]
    if any(entry.protects != wanted.protects for entry in counted):
        return False
    events = [*(event_of(entry) for entry in counted), *wanted.events]
    if admitted(events, account.delta, _order(account, account.delta)) <= account.epsilon:
        return True
    return not counted and epsilon(wanted.events, account.delta) <= account.epsilon


def own(wanted: Spending, delta: float) -> float:
    """What a job would spend by itself."""
    return epsilon(wanted.events, delta)


def _delta(account: PrivacyAccount | None, entries: Sequence[PrivacyEntry]) -> float:
    if account is not None and account.delta is not None:
        return account.delta
    return min((entry.delta for entry in entries), default=1e-5)


def _order(account: PrivacyAccount | None, delta: float) -> float:
    if account is not None and account.order is not None:
        return account.order
    return best_order(1.0, delta)
