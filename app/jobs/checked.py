"""A job that may run, and the checks that every kind shares. Knows no request and changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from app.datasets.models import Dataset
from app.errors import Invalid
from app.jobs.parents import FindModel
from app.jobs.requests import AnyCreate
from app.privacy.nominal import HASHED_SHARE
from app.unfit import refusal
from engine.errors import Fault
from engine.kinds import Derived
from engine.plan import Plan
from engine.spec import Spec

# From a tenant and an id to the tenant's data set.
FindDataset: TypeAlias = Callable[[str, str], Dataset | None]
_OF_INTERVALS = ("max_metric_loss", "min_metric", "min_agreement", "min_speedup", "min_robust_score")
"""The limits on figures that have an interval."""
# The content hash deals the rows out where a data set names no splits.
SHARES = {"train": HASHED_SHARE, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Checked:
    """A job that can run: the request, what is stored of it, and what a worker has to lay out for it.

    `spec`: with every default filled in; `inputs`: storage key by id of each data set and artifact; `estimate`: what it
    will cost.
    """

    body: AnyCreate
    task: str
    spec: Mapping[str, Any]
    plan: Plan
    inputs: Mapping[str, str]
    estimate: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Lookups:
    """How to find what a job names, in the transaction at hand."""

    dataset: FindDataset
    model: FindModel


def invalid(faults: Sequence[Fault]) -> Invalid:
    """A refusal that tells each fault once."""
    told = {(fault.pointer, fault.code, fault.detail): fault for fault in faults}
    return refusal(list(told.values()))


def data_set(
    find: FindDataset, tenant: str, dataset_id: str, pointer: str, task: str | None, *, plainly: bool = True
) -> Dataset | Fault:
    """A data set that is ready and, where the task is known, of that task; else why not.

    Args:
        plainly: whether the job reads its rows without privacy, which one with a privacy budget does not allow.
    """
    dataset = find(tenant, dataset_id)
    if dataset is None:
        known = "GET /v1/datasets lists yours"
        return Fault(pointer, "unknown_dataset", f"there is no data set {dataset_id[:80]!r}", known)
    if task is not None and dataset.task != task:
        detail = f"{dataset_id} was uploaded for {dataset.task}, the job is of task {task}"
        return Fault(pointer, "wrong_task", detail, f"send task {dataset.task}, or another data set")
    if plainly and dataset.budgeted:
        detail = f"the rows of {dataset_id} have a privacy budget, and the job would read them without privacy"
        remedy = "add dp_sgd (37) or dp_gradient_aggregation (40), or name rows without a budget"
        return Fault(pointer, "needs_privacy", detail, remedy)
    return dataset


def rows_of(datasets: Mapping[str, Dataset]) -> dict[str, int]:
    """Rows a split, as far as they are known before the run, of data sets by role ("": one that holds all splits)."""
    if "" not in datasets:
        return {role: dataset.rows for role, dataset in datasets.items()}
    whole = datasets[""]
    return whole.splits or {split: round(whole.rows * share) for split, share in SHARES.items()}


def limit_faults(spec: Spec | Derived) -> list[Fault]:
    """Limits on figures that the chosen instructions do not bring about."""
    limits = spec.limits
    faults = []
    if limits.max_epsilon is not None and all("differential_privacy" not in one.provides for one in spec.instructions):
        detail = "no instruction of the plan spends privacy, so there is no epsilon to hold against this limit"
        remedy = "leave it out, or add an instruction of the band privacy"
        faults.append(Fault("/limits/max_epsilon", "not_applicable", detail, remedy))
    if limits.min_robust_score is not None and all("robust_accuracy" not in one.provides for one in spec.instructions):
        detail = "no instruction of the plan attacks the model, so there is no robust score to hold against this limit"
        remedy = "leave it out, or add robustness_audit (36)"
        faults.append(Fault("/limits/min_robust_score", "not_applicable", detail, remedy))
    if limits.confidence is not None and not any(getattr(limits, name) is not None for name in _OF_INTERVALS):
        detail = "there is no limit whose interval could decide"
        remedy = f"leave it out, or add one of {', '.join(_OF_INTERVALS)}"
        faults.append(Fault("/limits/confidence", "not_applicable", detail, remedy))
    return faults
