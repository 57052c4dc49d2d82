"""What every private run does alike, whatever its unit: write a draw down, noise it once, tell what was spent.

Knows no instruction; who clips, and by which unit, stands in those that call here.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from engine import accounting
from engine.errors import BudgetExhausted, EngineError
from engine.events import PrivacyDrawn
from engine.journal import Journal
from engine.noise import Source, privatise, source
from engine.run import Run
from engine.terms import Terms

_SECTION = (
    "mechanism",
    "epsilon",
    "delta",
    "accountant",
    "unit",
    "relation",
    "noise_multiplier",
    "max_grad_norm",
    "sampling_rate",
    "steps",
    "sampling",
    "noise_source",
    "covers",
    "dataset_total_epsilon",
    "audited_lower_bound",
)


def journal_of(run: Run) -> Journal:
    """The run's journal: without one nothing is drawn, since nothing would count it."""
    if run.journal is None:
        raise EngineError("this run has no journal of draws, so none may be made", remedy="report this as a fault")
    return run.journal


def draws_left(run: Run, terms: Terms) -> int:
    """What was planned, less what lost attempts have drawn before their first snapshot.

    Raises:
        BudgetExhausted: where nothing is left of it, or it is more than the budget holds.
    """
    left = journal_of(run).left(terms.plan)
    if not left:
        detail = "earlier attempts made every draw that was planned, and none of them left a snapshot"
        raise BudgetExhausted(detail, remedy="submit a new job, whose draws are accounted for anew")
    return left


def release(run: Run, terms: Terms, bound: float, divisor: float, noise_source: Source) -> None:
    """Write the draw down, then add noise once to the sums in `.grad` and divide by the fixed number.

    Raises:
        BudgetExhausted: before a draw that was not planned.
    """
    journal, draw = journal_of(run), terms.plan.times(1)
    journal.append(draw, terms.plan)
    run.sink.emit(PrivacyDrawn(step=run.clock.step + 1, draw=draw.to_json(), drawn=journal.count))
    sums = []
    for weight in run.model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            sums.append(weight.grad)
    privatise(sums, bound, terms.sigma, divisor, source(noise_source))
    run.metric("epsilon", terms.spent_by(journal.count))


def spent(run: Run, terms: Terms) -> dict[str, float]:
    """What the run has spent so far, for its report."""
    epsilon = accounting.epsilon(journal_of(run).drawn(), terms.delta)
    return {"epsilon": epsilon, "delta": terms.delta, "noise_multiplier": terms.sigma}


def privacy_section(
    run: Run, terms: Terms, *, mechanism: str, unit: str, bound: float, covers: str, noise_source: Source
) -> Mapping[str, Mapping[str, Any]]:
    """The receipt's section `privacy`."""
    journal = journal_of(run)
    own = journal.drawn()
    total = accounting.quoted(own, journal.budget.spent, terms.delta, journal.budget.order)
    section = {
        **dict.fromkeys(_SECTION),
        "mechanism": mechanism,
        "epsilon": accounting.epsilon(own, terms.delta),
        "delta": terms.delta,
        "accountant": accounting.accountant(),
        "unit": unit,
        "relation": "add or remove one",
        "noise_multiplier": terms.sigma,
        "max_grad_norm": bound,
        "sampling_rate": terms.rate,
        "steps": journal.count,
        "sampling": "poisson",
        "noise_source": noise_source if noise_source == "os" else "torch (not cryptographic)",
        "covers": covers,
        "dataset_total_epsilon": total if math.isfinite(total) else None,
    }
    return {"privacy": section}


def audited_section(lower_bound: float) -> Mapping[str, Mapping[str, Any]]:
    """The section `privacy` of an audit: it claims nothing, so what a release would tell is null."""
    return {"privacy": {**dict.fromkeys(_SECTION), "audited_lower_bound": lower_bound}}
