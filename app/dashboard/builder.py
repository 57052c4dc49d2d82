"""A job's request as a form: its fields for each kind, the body that they make, and a job as what fills them.

The fields of training, limits, export and of every instruction come out of the JSON Schema of the request. Knows no
HTTP and checks nothing: a dry run does.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from app.dashboard.forms import Field, Given, fields_of, text_of, values_of
from app.dashboard.reading import TIERS
from app.jobs.requests import REQUESTS
from engine.catalogue import describe, named
from engine.errors import Fault
from engine.spec import Spec

Built: TypeAlias = Literal["train", "compress", "evaluate", "detect"]
KINDS: Mapping[str, str] = {
    "train": "A base model learns a data set; what compresses it may be chosen along.",
    "compress": "A trained model's file gets smaller, scored on the test rows of its training.",
    "evaluate": "A trained model's file is measured, on its own test rows or on a data set.",
    "detect": "Inputs are screened: which look manipulated, at a stated rate of false alarms.",
}
SECTIONS = ("training", "limits", "export")
# These have controls of their own.
_APART = {"kind", "task", "model", "dataset", "inputs", "calibration", "instructions", "metadata", "webhook", *SECTIONS}
_WEBHOOK = ("url", "secret")
# Behind the name of a control that offers the newest of something: the field for the id of an older one.
TYPED = ".id"
_WORKED_ON: Mapping[str, tuple[str, ...]] = {
    "train": ("task", "dataset", "dataset.valid", "dataset.test", "model"),
    "compress": ("model", "dataset"),
    "evaluate": ("model", "dataset"),
    "detect": ("model", "inputs.dataset", "inputs.texts", "calibration"),
}


@dataclass(frozen=True)
class Choice:
    """An instruction as the form offers it."""

    number: int
    name: str
    title: str
    does: str
    tasks: tuple[str, ...]
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Form:
    """The fields of one kind of job; `tiers` from the top of the pyramid, each with its bands."""

    kind: str
    tiers: tuple[tuple[str, tuple[tuple[str, tuple[Choice, ...]], ...]], ...]
    sections: Mapping[str, tuple[Field, ...]]
    others: tuple[Field, ...]

    @functools.cached_property
    def choices(self) -> Mapping[int, Choice]:
        """Its instructions by number."""
        return {one.number: one for _, bands in self.tiers for _, choices in bands for one in choices}

    def tier_of(self, number: int) -> str:
        """The level of the pyramid that an instruction stands on."""
        numbers = {tier: {one.number for _, choices in bands for one in choices} for tier, bands in self.tiers}
        return next(tier for tier, found in numbers.items() if number in found)

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names of all its controls; `instructions.45` stands for the box of an instruction."""
        fields = [field for section in self.sections.values() for field in section]
        fields += [field for choice in self.choices.values() for field in choice.fields]
        boxes = {f"instructions.{number}" for number in self.choices}
        return frozenset(
            {field.name for field in (*fields, *self.others)}
            | boxes
            | {"metadata", *(f"webhook.{name}" for name in _WEBHOOK), *_WORKED_ON[self.kind]}
        )


@functools.cache
def form_of(kind: str) -> Form:
    """The form of a kind of job."""
    schema = REQUESTS[kind].model_json_schema()
    sections = {
        name: tuple(fields_of(schema["$defs"][name.capitalize()], f"{name}."))
        for name in SECTIONS
        if _is_section(schema["properties"].get(name, {}))
    }
    return Form(kind, _tiers(kind), sections, tuple(fields_of(schema, leave_out=_APART)))


def _is_section(told: Mapping[str, Any]) -> bool:
    """Whether a property is an object of its own, or one that may be left out."""
    return any("$ref" in one for one in told.get("anyOf", [told]))


def _tiers(kind: str) -> tuple[tuple[str, tuple[tuple[str, tuple[Choice, ...]], ...]], ...]:
    found: dict[str, dict[str, list[Choice]]] = {tier: {} for tier in TIERS}
    for one in describe():
        if kind in one["kinds"]:
            fields = tuple(fields_of(one["parameters"], f"{one['number']}."))
            choice = Choice(one["number"], one["name"], one["title"], one["does"], tuple(one["tasks"]), fields)
            found[one["tier"]].setdefault(one["band"], []).append(choice)
    return tuple(
        (tier, tuple((band, tuple(choices)) for band, choices in bands.items())) for tier, bands in found.items()
    )


def chosen(form: Form, given: Given) -> list[int | str]:
    """The numbers of the instructions that are ticked, in order; what is none of the form's stands as it came."""
    found: dict[int | str, None] = {}
    for text in given.texts("instructions"):
        kind = named(text)
        found[kind.number if kind is not None and kind.number in form.choices else text] = None
    return sorted(found, key=lambda one: (isinstance(one, str), one if isinstance(one, int) else 0))


def body_of(form: Form, given: Given, tasks: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST /v1/jobs`: what was chosen, and of all else only what is not its default.

    Args:
        tasks: of each data set that the form offers.
    """
    body: dict[str, Any] = {"kind": form.kind, **_work(form, given, tasks)}
    steps = [_step(form, given, number) for number in chosen(form, given)]
    if steps:
        body["instructions"] = steps
    for name, fields in form.sections.items():
        if values := values_of(fields, given):
            body[name] = values
    body |= values_of(form.others, given)
    if pairs := [line.partition("=") for line in given.lines("metadata")]:
        body["metadata"] = {key.strip(): value.strip() for key, _, value in pairs}
    if webhook := {name: text for name in _WEBHOOK if (text := given.text(f"webhook.{name}"))}:
        body["webhook"] = webhook
    return body


def picked(given: Given, name: str) -> str:
    """What a choice names: the id that was typed, else the one that was chosen."""
    return given.text(f"{name}{TYPED}") or given.text(name)


def picked_datasets(given: Given) -> list[str]:
    """Every data set that the form names."""
    names = ("dataset", "dataset.valid", "dataset.test", "inputs.dataset", "calibration")
    return [text for name in names if (text := picked(given, name))]


def _work(form: Form, given: Given, tasks: Mapping[str, str]) -> dict[str, Any]:
    """What the job works on."""
    named_model = given.text("model") if form.kind == "train" else picked(given, "model")
    told = {"task": given.text("task"), "model": named_model}
    work: dict[str, Any] = {name: text for name, text in told.items() if text}
    dataset = picked(given, "dataset")
    if form.kind == "train":
        if "task" not in work and dataset in tasks:
            work = {"task": tasks[dataset], **work}
        parts = {name: text for name in ("valid", "test") if (text := picked(given, f"dataset.{name}"))}
        return work | ({"dataset": {"train": dataset, **parts} if parts else dataset} if dataset else {})
    if form.kind != "detect":
        return work | ({"dataset": dataset} if dataset else {})
    inputs: dict[str, Any] = {"dataset": text} if (text := picked(given, "inputs.dataset")) else {}
    inputs |= {"texts": lines} if (lines := given.lines("inputs.texts")) else {}
    calibration = picked(given, "calibration")
    return work | ({"inputs": inputs} if inputs else {}) | ({"calibration": calibration} if calibration else {})


def _step(form: Form, given: Given, number: int | str) -> Any:
    if isinstance(number, str):
        return number
    one = form.choices[number]
    values = values_of(one.fields, given)
    return {"name": one.name, **values} if values else one.name


def beside(form: Form, given: Given, faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    """The faults by the control that each belongs to; those that belong to none stand under ""."""
    numbers = chosen(form, given)
    found: dict[str, list[Fault]] = {}
    for fault in faults:
        found.setdefault(_control(form, numbers, fault.pointer), []).append(fault)
    return found


def _control(form: Form, numbers: Sequence[int | str], pointer: str) -> str:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    if parts[:1] == ["instructions"]:
        index = int(parts[1]) if parts[1:] and parts[1].isdecimal() else len(numbers)
        number = numbers[index] if index < len(numbers) else ""
        names = [f"{number}.{parts[2]}" if len(parts) > 2 else "", f"instructions.{number}"]
    else:
        names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        names += ["dataset"] if parts[:1] == ["dataset"] else []
        names += ["webhook.url"] if parts[:1] == ["webhook"] else []
        names += ["inputs.dataset"] if parts[:1] == ["inputs"] else []
    return next((name for name in names if name in form.names), "")


def mends(form: Form, given: Given, control: str, fault: Fault) -> list[tuple[str, int]]:
    """The boxes whose change would mend a fault of an instruction: what the button says, and whose box it is."""
    if not control.startswith("instructions."):
        return []
    ticked, number = chosen(form, given), int(control.partition(".")[2])
    needed = re.match(r"add (\w+)", fault.remedy)
    wanted = [
        (f"Add {one['number']}", one["number"])
        for one in describe()
        if needed and one["number"] in form.choices and one["number"] not in ticked
        if needed[1] in (one["name"], *one["provides"])
    ]
    return [*wanted, (f"Leave {number} out", number)]


def filled_by(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What fills the form so that it asks for this job again; `job` as the API shows it."""
    pairs = [(name, text_of(job.get(name))) for name in ("task", "model", "calibration")]
    dataset = job.get("dataset")
    if isinstance(dataset, Mapping):
        pairs += [("dataset" if name == "train" else f"dataset.{name}", text_of(one)) for name, one in dataset.items()]
    else:
        pairs.append(("dataset", text_of(dataset)))
    pairs += [(f"inputs.{name}", text_of(value)) for name, value in (job.get("inputs") or {}).items()]
    form, decided = form_of(str(job["kind"])), _decided(job)
    for section, fields in form.sections.items():
        values = job.get(section) or {}
        if section == "training" and values == _training_of_the_model(job):
            continue
        pairs += _texts((one for one in fields if one.name not in decided), values)
    for step in job.get("instructions") or ():
        kind = named(step.get("name", ""))
        if kind is not None and kind.number in form.choices:
            pairs.append(("instructions", step["name"]))
            pairs += _texts(form.choices[kind.number].fields, step)
    pairs += _texts(form.others, job)
    pairs.append(("webhook.url", text_of((job.get("webhook") or {}).get("url"))))
    pairs.append(("metadata", "\n".join(f"{key} = {value}" for key, value in (job.get("metadata") or {}).items())))
    return pairs


def _training_of_the_model(job: Mapping[str, Any]) -> Any:
    """The numbers that a compression takes over where it has none of its own."""
    return ((job.get("parent") or {}).get("spec") or {}).get("training")


def _texts(fields: Iterator[Field] | Sequence[Field], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in fields:
        if field.key not in values:
            continue
        if field.kind == "several":
            yield from ((field.name, str(one)) for one in values[field.key] or ())
        else:
            yield field.name, text_of(values[field.key])


def _decided(job: Mapping[str, Any]) -> set[str]:
    """The numbers of `training` that the job's instructions own: to write them twice would be a fault."""
    if job["kind"] != "train":
        return set()
    try:
        spec = Spec.model_validate({name: value for name, value in job.items() if name in Spec.model_fields})
    except ValidationError:  # it asked for what this server does not know any more: the dry run will say so
        return set()
    return {f"training.{name}" for one in spec.instructions for name in one.decides}
