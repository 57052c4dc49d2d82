"""Budgets and entries as they stand in requests and answers."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.answers import timestamp
from app.datasets.models import Dataset
from app.privacy.composition import Total, left, total
from app.privacy.models import PrivacyAccount, PrivacyEntry
from app.unfit import lenient

Epsilon = Annotated[float, Field(strict=True, ge=1e-3, le=1000, allow_inf_nan=False)]
Delta = Annotated[float, Field(strict=True, ge=1e-300, lt=1, allow_inf_nan=False)]
POPULATION = "pop_"


class BudgetPut(BaseModel):
    """The most that may ever be spent on a data set's rows."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"epsilon": 8.0, "delta": 1e-5}]}
    )

    stand_ins: ClassVar[Mapping[str, Any]] = {"epsilon": 1.0, "delta": 1e-300}

    epsilon: Epsilon = Field(description="Of all jobs together.")
    delta: Delta = Field(description="Below one over the number of rows.")


BudgetWanted = Annotated[BudgetPut, lenient(lambda _: BudgetPut)]


class Figures(BaseModel):
    """The two figures behind `spent`; null: nothing bounds it."""

    pld: float | None
    renyi: float | None
    renyi_order: float | None


class BudgetShown(BaseModel):
    """A subject's account: rows by their content, or a population. `epsilon` null: no budget, recorded all the same.

    `guarantee` is `none` once a job without privacy has read the rows: `spent` is then what the private ones gave away.
    """

    id: str
    object: Literal["privacy_budget"]
    dataset: str | None
    datasets: list[str]
    population: str | None
    epsilon: float | None
    delta: float
    spent: float | None
    left: float | None
    figures: Figures
    unit: str | None
    guarantee: Literal["differential_privacy", "none"]
    open_job: str | None
    created_at: str


class EntryShown(BaseModel):
    """A group of equal releases of one job; `count` of them have to be reckoned with."""

    id: str
    object: Literal["privacy_entry"]
    datasets: list[str]
    population: str | None
    job: str
    unit: str
    mechanism: str
    sampling: str
    sampling_rate: float
    noise_multiplier: float
    delta: float
    planned: int
    counted: int
    count: int
    state: Literal["reserved", "spent", "lost", "void"]
    created_at: str
    settled_at: str | None


def budget_json(
    account: PrivacyAccount, entries: Sequence[PrivacyEntry], datasets: Sequence[Dataset], asked: str | None = None
) -> dict[str, Any]:
    """An account as it stands in answers; `asked`: the data set that it was asked for by."""
    spent = total(account, entries)
    ids = [dataset.id for dataset in datasets]
    units = {entry.unit for entry in entries if entry.count}
    return {
        "id": account.id,
        "object": "privacy_budget",
        "dataset": asked or (ids[0] if ids else None),
        "datasets": ids,
        "population": _population(account.subject),
        "epsilon": account.epsilon,
        "delta": spent.delta,
        "spent": _finite(spent.quoted),
        "left": left(account, spent) if account.epsilon is not None else None,
        "figures": _figures(account, spent),
        "unit": units.pop() if len(units) == 1 else None,
        "guarantee": "none" if account.open_job is not None or spent.quoted == math.inf else "differential_privacy",
        "open_job": account.open_job,
        "created_at": timestamp(account.created_at),
    }


def entry_json(entry: PrivacyEntry, datasets: Sequence[Dataset]) -> dict[str, Any]:
    """An entry as it stands in answers."""
    return {
        "id": entry.id,
        "object": "privacy_entry",
        "datasets": [dataset.id for dataset in datasets],
        "population": _population(entry.subject),
        "job": entry.job_id,
        "unit": entry.unit,
        "mechanism": entry.mechanism,
        "sampling": entry.sampling,
        "sampling_rate": entry.sampling_rate,
        "noise_multiplier": entry.noise_multiplier,
        "delta": entry.delta,
        "planned": entry.planned,
        "counted": entry.counted,
        "count": entry.count,
        "state": entry.state,
        "created_at": timestamp(entry.created_at),
        "settled_at": timestamp(entry.settled_at),
    }


def _figures(account: PrivacyAccount, spent: Total) -> dict[str, float | None]:
    return {"pld": _finite(spent.pld), "renyi": _finite(spent.renyi), "renyi_order": account.order}


def _finite(value: float) -> float | None:
    return value if value < math.inf else None


def _population(subject: str) -> str | None:
    return subject if subject.startswith(POPULATION) else None
