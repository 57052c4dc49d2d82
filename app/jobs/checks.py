"""Everything that can be wrong with a job before it runs, told at once. Knows no request and changes nothing.

`check` is that of `train`, and goes by the class of the request for the others: a further kind adds a line there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.datasets.models import Dataset
from app.errors import Invalid
from app.jobs import derived, detecting
from app.jobs.checked import Checked, FindDataset, Lookups, data_set, invalid, limit_faults, rows_of
from app.jobs.parents import TRAINED
from app.jobs.requests import AnyCreate, CompressCreate, DetectCreate, EvaluateCreate, JobCreate
from app.privacy.nominal import public_rows
from app.privacy.service import is_private
from app.unfit import Unfit
from engine import foreign, models
from engine.catalogue import named
from engine.conformal import VALID_ROWS
from engine.errors import Fault, InvalidPlan
from engine.estimate import estimate
from engine.foreign import Foreign
from engine.plan import Plan
from engine.rows import client_facts, group_facts
from engine.spec import Spec, Splits

_OF_ABSENCE = frozenset({"missing_need", "not_applicable", "needs_privacy", "nothing_to_do"})
"""Codes of what is told because no instruction does something: one that cannot be read might."""
# What checks a request of each kind but `train`; each function takes its own class, which a mapping cannot say.
OTHERS: Mapping[type[AnyCreate], Callable[[Lookups, str, Any], Checked]] = {
    EvaluateCreate: derived.check,
    CompressCreate: derived.check,
    DetectCreate: detecting.check,
}


@dataclass(frozen=True)
class BaseLook:
    """What a look at the base model of a job told, or at the folder that it begins with.

    `beside`: faults that were found meanwhile, since that too takes longer than a transaction should.
    """

    fault: Fault | None
    pretrained: bool
    folder: Foreign | Fault | None = None
    beside: tuple[Fault, ...] = ()


def base_is_near(body: AnyCreate) -> bool:
    """Whether a look at what the job begins with takes no time."""
    return models.built_in(body.base_model) if isinstance(body, JobCreate) else not _begins_with_folder(body)


def look_at_base(body: AnyCreate, models_dir: Path | None) -> BaseLook:
    """Look at the base model; it may be on a hub that is slow to answer, so no transaction should wait for this."""
    if not isinstance(body, JobCreate):
        return BaseLook(None, False, foreign.look(body.model, models_dir) if _begins_with_folder(body) else None)
    fault = models.fault(body.base_model, body.task, models_dir)
    return BaseLook(fault, fault is None and models.find(body.base_model, models_dir, weights=False).pretrained)


def _begins_with_folder(body: AnyCreate) -> bool:
    return isinstance(body, CompressCreate) and not body.model.startswith(TRAINED)


def check(lookups: Lookups, tenant: str, body: AnyCreate, base: BaseLook) -> Checked:
    """The job with what it needs.

    Raises:
        Invalid: with every fault found.
    """
    try:
        checked = _checked(lookups, tenant, body, base)
    except Invalid as error:
        raise invalid([*base.beside, *error.faults]) from error
    if base.beside:
        raise invalid(base.beside)
    return checked


def _checked(lookups: Lookups, tenant: str, body: AnyCreate, base: BaseLook) -> Checked:
    if isinstance(body, CompressCreate) and base.folder is not None:
        return derived.check_folder(lookups, tenant, body, base.folder)
    if not isinstance(body, JobCreate):
        return OTHERS[type(body)](lookups, tenant, body)
    found, faults = _datasets(lookups.dataset, tenant, body)
    faults += limit_faults(body)
    facts = {"fixed_splits"} if isinstance(body.dataset, Splits) or ("" in found and found[""].splits) else set()
    if len(found) == len(body.files()):
        facts |= group_facts(dataset.columns for dataset in found.values())
        train = found.get("train") or found[""]
        facts |= client_facts(train.groups, train.columns.get("group"))
        if "valid" in rows_of(found) and not any("split" in one.hooks for one in body.instructions):
            facts.add(f"{VALID_ROWS}{rows_of(found)['valid']}")
    if base.fault is not None:
        faults.append(base.fault)
    if base.fault is not None or base.pretrained:
        # Of a base that nobody knows nothing is told that follows from its having learned nothing.
        facts.add("pretrained")
    try:
        plan = Plan.of(body, facts)
    except InvalidPlan as error:
        raise invalid([*faults, *error.faults]) from error
    if faults:
        raise invalid(faults)
    inputs = {dataset.id: dataset.storage_key for dataset in found.values()}
    return Checked(
        body, body.task, body.resolved(base.pretrained), plan, inputs, lambda: estimate(body, _told_rows(body, found))
    )


def _told_rows(spec: Spec, found: Mapping[str, Dataset]) -> dict[str, int]:
    """Rows a split as they may be told: of a private training's rows the public number, where there is one."""
    rows, train = rows_of(found), found.get("train") or found[""]
    public = public_rows(train, alone="train" in found) if is_private(spec) else None
    return rows if public is None else rows | {"train": public}


def refusal(lookups: Lookups, tenant: str, body: Unfit[Any], models_dir: Path | None, *more: Fault) -> Invalid:
    """Everything that is wrong with a body that is no job: with its fields, `more`, and what the sound ones ask for."""
    return invalid([*body.faults, *more, *_further_faults(lookups, tenant, body, models_dir)])


def _further_faults(lookups: Lookups, tenant: str, body: Unfit[Any], models_dir: Path | None) -> list[Fault]:
    if body.sound is None:
        return []
    try:
        check(lookups, tenant, body.sound, look_at_base(body.sound, models_dir))
    except Invalid as error:
        return [fault for fault in body.told(error.faults) if not _by_absence(fault, body)]
    return []


def _by_absence(fault: Fault, body: Unfit[Any]) -> bool:
    """Whether a fault may only say that what is faulty was left out: that is answered once it is mended."""
    lost = [path for path in body.lost if path[0] == "instructions"]
    if any(len(path) <= 2 for path in lost) and fault.code in _OF_ABSENCE:
        return True
    if fault.code == "missing_need":
        # The remedy names who could provide it: one of those whose parameters are faulty may, once they are mended.
        return any(_name(body.body["instructions"][int(path[1])]) in fault.remedy for path in lost if len(path) > 2)
    return fault.pointer == "/limits/confidence" and any(path[0] == "limits" for path in body.lost)


def _name(choice: Mapping[str, Any]) -> str:
    kind = named(choice.get("name", choice.get("number", "")))
    return "" if kind is None else str(kind.model_fields["name"].default)


def _datasets(find: FindDataset, tenant: str, spec: Spec) -> tuple[dict[str, Dataset], list[Fault]]:
    found: dict[str, Dataset] = {}
    faults = []
    private = is_private(spec)
    for role, dataset_id in spec.files():
        plainly = not (private and role in ("", "train"))
        pointer = f"/dataset/{role}" if role else "/dataset"
        one = data_set(find, tenant, dataset_id, pointer, spec.task, plainly=plainly)
        if isinstance(one, Fault):
            faults.append(one)
        else:
            found[role] = one
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
