"""What can be wrong with a job that begins with a trained model. Knows the rows that each kind reads, no request."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.datasets.models import Dataset
from app.jobs.checked import Checked, Lookups, data_set, invalid, limit_faults, rows_of
from app.jobs.parents import TrainedModel
from app.jobs.requests import CompressCreate, EvaluateCreate
from engine.errors import Fault, InvalidPlan
from engine.estimate import estimate_derived
from engine.foreign import Foreign
from engine.guard import PRIVATE
from engine.kinds import compress_faults, derived_faults
from engine.plan import Plan, clashes
from engine.spec import Spec

AnyDerived = CompressCreate | EvaluateCreate


def check(lookups: Lookups, tenant: str, body: AnyDerived) -> Checked:
    """The job with what it needs.

    Raises:
        Invalid: with every fault found.
    """
    model = lookups.model(tenant, body.model)
    if isinstance(model, Fault):
        given = _given(lookups, tenant, body, None)
        raise invalid([model, *([given] if isinstance(given, Fault) else []), *_whatever_the_model(body)])
    try:
        trained = Spec.model_validate(model.spec)
    except ValidationError as error:
        detail = f"the training of {body.model} asked for what this server does not know any more"
        raise invalid([Fault("/model", "stale_model", detail, "train the model again")]) from error
    found, faults = _rows(lookups, tenant, body, trained)
    facts = frozenset[str]().union(*(one.provides for one in trained.instructions))
    faults += derived_faults(body, trained, facts)
    return _checked(body, trained, found, faults, model)


def _whatever_the_model(body: AnyDerived) -> list[Fault]:
    """What is wrong with a job whose model is not known: what else is, follows from its task and its training."""
    faults = limit_faults(body) + clashes(body.instructions, body.kind)
    return faults + (compress_faults(body, None, frozenset()) if isinstance(body, CompressCreate) else [])


def check_folder(lookups: Lookups, tenant: str, body: CompressCreate, folder: Foreign | Fault) -> Checked:
    """The same for a model that lies in a folder: nobody knows its training, so the data set is to score it too.

    Raises:
        Invalid: with every fault found.
    """
    given = _given(lookups, tenant, body, None if isinstance(folder, Fault) else folder.task)
    faults = [one for one in (folder, given) if isinstance(one, Fault)]
    if given is None:
        detail = f"which rows {body.model} was trained on is not known, so a data set has to score it"
        faults.append(Fault("/dataset", "needs_rows", detail, "name a data set"))
    if isinstance(folder, Fault):
        raise invalid([*faults, *_whatever_the_model(body)])
    fields: dict[str, Any] = {"task": folder.task, "model": folder.name, "dataset": body.dataset or "none"}
    if body.training is not None:
        fields["training"] = body.training.model_dump()
    trained = Spec.model_validate(fields)
    found: dict[str, Dataset] = {}
    if isinstance(given, Dataset):
        found["given"] = given
        faults += _label_faults(given, folder.labels)
    faults += derived_faults(body, trained, frozenset())
    return _checked(body, trained, found, faults, None)


def _checked(
    body: AnyDerived, trained: Spec, found: dict[str, Dataset], faults: list[Fault], model: TrainedModel | None
) -> Checked:
    """The job with what it needs, where nothing is wrong; without a `model` it begins with a folder.

    Raises:
        Invalid: with these faults, those of the limits and those of the plan.
    """
    try:
        run = body.run_spec(body.kind, trained)
    except InvalidPlan as error:
        raise invalid([*faults, *error.faults, *_whatever_the_model(body)]) from error
    faults += limit_faults(run)
    try:
        plan = Plan.of(run)
    except InvalidPlan as error:
        raise invalid([*faults, *error.faults]) from error
    if faults:
        raise invalid(faults)
    inputs = {one.id: one.storage_key for one in found.values()} | (model.inputs if model is not None else {})
    shown = model.shown if model is not None else {"spec": trained.resolved(pretrained=True)}
    rows = _scored(body, found)
    return Checked(body, run.task, body.resolved(run, shown), plan, inputs, lambda: estimate_derived(run, rows))


def _rows(lookups: Lookups, tenant: str, body: AnyDerived, trained: Spec) -> tuple[dict[str, Dataset], list[Fault]]:
    """The data sets that the run reads: by role those of the training, and "given"."""
    found: dict[str, Dataset] = {}
    faults: list[Fault] = []
    given = _given(lookups, tenant, body, trained.task)
    if isinstance(given, Fault):
        faults.append(given)
    elif given is not None:
        found["given"] = given
    own = _own(lookups, tenant, trained)
    train = own.get("train") or own.get("")
    if isinstance(given, Dataset) and isinstance(train, Dataset):
        faults += _label_faults(given, train.labels)
    if isinstance(body, EvaluateCreate) and body.dataset is not None:
        return found | _known(trained, own), faults
    for (_, dataset_id), (role, one) in zip(trained.files(), own.items(), strict=True):
        if isinstance(one, Fault):
            detail = f"the test rows of {body.model} are gone: its data set {dataset_id} was deleted"
            faults.append(Fault("/model", "test_rows_gone", detail, _remedy(body)))
            break
        found[role] = one
    return found, faults


def _own(lookups: Lookups, tenant: str, trained: Spec) -> dict[str, Dataset | Fault]:
    """The data sets of a training by role: what is read of them are the rows that it read."""
    return {
        role: data_set(lookups.dataset, tenant, dataset_id, "/model", None, plainly=False)
        for role, dataset_id in trained.files()
    }


def known(lookups: Lookups, tenant: str, trained: Spec) -> dict[str, Dataset]:
    """The data sets by which to tell which of some rows a model was trained on, where that may be told."""
    return _known(trained, _own(lookups, tenant, trained))


def _known(trained: Spec, own: Mapping[str, Dataset | Fault]) -> dict[str, Dataset]:
    """The data sets by which to tell how many rows a model was trained on of those that score it; none where one is
    gone, or private: a count over rows of one's choosing says of a row whether it is there.
    """
    if any(PRIVATE in one.provides for one in trained.instructions):
        return {}
    there = {role: one for role, one in own.items() if isinstance(one, Dataset) and not one.budgeted}
    return there if len(there) == len(own) else {}


def _remedy(body: AnyDerived) -> str:
    if isinstance(body, EvaluateCreate):
        return "name a data set to score it on"
    return "train the model again on rows that are kept"


def _given(lookups: Lookups, tenant: str, body: AnyDerived, task: str | None) -> Dataset | Fault | None:
    return data_set(lookups.dataset, tenant, body.dataset, "/dataset", task) if body.dataset is not None else None


def _label_faults(given: Dataset, known: Sequence[str]) -> list[Fault]:
    if set(given.labels) <= set(known):
        return []
    detail = f"the labels of {given.id} are not all among those that the model knows"
    return [Fault("/dataset", "labels_differ", detail, "give rows with the labels of the model's training")]


def _scored(body: AnyDerived, found: dict[str, Dataset]) -> int:
    """How many rows are scored, roughly."""
    if isinstance(body, EvaluateCreate) and "given" in found:
        return found["given"].rows
    roles = {role: one for role, one in found.items() if role != "given"} or {"": found["given"]}
    return rows_of(roles).get("test", 0)
