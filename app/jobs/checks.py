"""Everything that can be wrong with a job before it runs, told at once. Knows no request and changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from app.datasets.models import Dataset
from app.errors import Invalid
from app.jobs.schemas import JobCreate, Unfit
from engine import models
from engine.errors import Fault, InvalidPlan
from engine.plan import Plan
from engine.rows import group_facts
from engine.spec import Spec, Splits

# From a tenant and an id to the tenant's data set.
FindDataset: TypeAlias = Callable[[str, str], Dataset | None]
# The content hash deals the rows out where a data set names no splits.
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Checked:
    """A job that can run: the request, its plan, and the data sets by role ("" for one that holds all splits)."""

    body: JobCreate
    plan: Plan
    datasets: Mapping[str, Dataset]
    pretrained: bool

    @property
    def rows(self) -> dict[str, int]:
        """Rows a split, as far as they are known before the run."""
        if "" not in self.datasets:
            return {role: dataset.rows for role, dataset in self.datasets.items()}
        whole = self.datasets[""]
        return whole.splits or {split: round(whole.rows * share) for split, share in SHARES.items()}


@dataclass(frozen=True)
class BaseLook:
    """What a look at the base model of a job told."""

    fault: Fault | None
    pretrained: bool


def look_at_base(body: JobCreate, models_dir: Path | None) -> BaseLook:
    """Look at the base model; it may be on a hub that is slow to answer, so no transaction should wait for this."""
    fault = models.fault(body.base_model, body.task, models_dir)
    return BaseLook(fault, fault is None and models.find(body.base_model, models_dir, weights=False).pretrained)


def check(find: FindDataset, tenant: str, body: JobCreate, base: BaseLook) -> Checked:
    """The job with what it needs.

    Raises:
        Invalid: with every fault found.
    """
    found, faults = _datasets(find, tenant, body)
    faults += _limit_faults(body)
    facts = {"fixed_splits"} if isinstance(body.dataset, Splits) or ("" in found and found[""].splits) else set()
    if len(found) == len(body.files()):
        facts |= group_facts(dataset.columns for dataset in found.values())
    if base.fault is not None:
        faults.append(base.fault)
    elif base.pretrained:
        facts.add("pretrained")
    try:
        plan = Plan.of(body, facts)
    except InvalidPlan as error:
        raise _invalid([*faults, *error.faults]) from error
    if faults:
        raise _invalid(faults)
    return Checked(body, plan, found, base.pretrained)


def refusal(find: FindDataset, tenant: str, body: Unfit, models_dir: Path | None) -> Invalid:
    """Everything that is wrong with a body that is no job."""
    return _invalid(body.faults + _further_faults(find, tenant, body, models_dir))


def _invalid(faults: list[Fault]) -> Invalid:
    told = {(fault.pointer, fault.code): fault for fault in faults}
    return Invalid(
        "; ".join(fault.detail for fault in told.values()), remedy="mend every listed fault", faults=list(told.values())
    )


def _further_faults(find: FindDataset, tenant: str, body: Unfit, models_dir: Path | None) -> list[Fault]:
    """What else is wrong with a body that is no job: its sound fields are checked as if it held no others."""
    if not isinstance(body.body, Mapping):
        return []
    faulty = {fault.pointer.split("/")[1] for fault in body.faults if fault.pointer}
    sound: dict[str, Any] = {name: value for name, value in body.body.items() if name not in faulty}
    try:
        job = JobCreate.model_validate({"dataset": "ds_0"} | sound)
    except ValueError:
        return []
    try:
        check(find, tenant, job, look_at_base(job, models_dir))
    except Invalid as error:
        return [fault for fault in error.faults if "dataset" in sound or not fault.pointer.startswith("/dataset")]
    return []


def _datasets(find: FindDataset, tenant: str, spec: Spec) -> tuple[dict[str, Dataset], list[Fault]]:
    found: dict[str, Dataset] = {}
    faults = []
    for role, dataset_id in spec.files():
        pointer = f"/dataset/{role}" if role else "/dataset"
        dataset = find(tenant, dataset_id)
        if dataset is None:
            known = "GET /v1/datasets lists yours"
            faults.append(Fault(pointer, "unknown_dataset", f"there is no data set {dataset_id[:80]!r}", known))
        elif dataset.status != "ready":
            remedy = (
                "mend its problems and upload it again" if dataset.status == "invalid" else "wait until it is ready"
            )
            faults.append(Fault(pointer, "dataset_not_ready", f"{dataset_id} is {dataset.status}", remedy))
        elif dataset.task != spec.task:
            detail = f"{dataset_id} was uploaded for {dataset.task}, the job is of task {spec.task}"
            faults.append(Fault(pointer, "wrong_task", detail, f"send task {dataset.task}, or another data set"))
        else:
            found[role] = dataset
    return found, faults + _label_faults(found)


def _label_faults(found: Mapping[str, Dataset]) -> list[Fault]:
    train = found.get("train")
    if train is None:
        return []
    return [
        Fault(
            f"/dataset/{role}",
            "labels_differ",
            f"the labels of {dataset.id} are not all among those of {train.id}",
            "upload splits that share their labels",
        )
        for role, dataset in found.items()
        if not set(dataset.labels) <= set(train.labels)
    ]


def _limit_faults(spec: Spec) -> list[Fault]:
    """Limits on figures that the chosen instructions do not bring about."""
    limits = spec.limits
    faults = []
    if limits.max_epsilon is not None and all("differential_privacy" not in one.provides for one in spec.instructions):
        detail = "no instruction of the plan spends privacy, so there is no epsilon to hold against this limit"
        remedy = "leave it out, or add an instruction of the band privacy"
        faults.append(Fault("/limits/max_epsilon", "not_applicable", detail, remedy))
    if limits.min_robust_score is not None and all(one.band != "adversarial_defence" for one in spec.instructions):
        detail = "no instruction of the plan attacks the model, so there is no robust score to hold against this limit"
        remedy = "leave it out, or add an instruction of the band adversarial_defence"
        faults.append(Fault("/limits/min_robust_score", "not_applicable", detail, remedy))
    if limits.confidence is not None and not any(
        getattr(limits, name) is not None for name in ("max_metric_loss", "min_metric", "min_agreement")
    ):
        detail = "there is no limit whose interval could decide"
        remedy = "leave it out, or add max_metric_loss, min_metric or min_agreement"
        faults.append(Fault("/limits/confidence", "not_applicable", detail, remedy))
    return faults
