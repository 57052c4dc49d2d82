"""Turns pydantic's errors into faults with a pointer and a remedy. Knows no field by name."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.catalogue import NAMES
from engine.errors import Fault
from engine.spec import Splits

_REMEDIES: Mapping[str, str] = {
    "missing": "add this field",
    "json_invalid": "send a JSON object",
    "model_attributes_type": "send a JSON object",
    "model_type": "send a JSON object",
    "dict_type": "send a JSON object",
    "string_type": "send a string",
    "int_type": "send a whole number",
    "int_from_float": "send a whole number",
    "int_parsing": "send a whole number",
    "float_parsing": "send a number",
    "list_type": "send a list",
    "string_too_short": "send a string that is not empty",
    "float_type": "send a number",
    "bool_type": "send true or false",
    "tuple_type": "send a list",
    "finite_number": "send a finite number",
    "number_and_name_differ": "name the instruction once, by number or by name",
}


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "of at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "of at most"),
}
# What pydantic puts into a location to say which alternative of a union it tried.
_TAGS: Mapping[str, type[BaseModel] | None] = {**NAMES, "one_file": None, "file_a_split": Splits}


def from_validation(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Every fault of a body."""
    return [_fault(detail, model) for detail in error.errors(include_url=False, include_input=False)]


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    kind, context = detail["type"], detail.get("ctx", {})
    path, owner = _place(detail["loc"], model, whole=kind == "extra_forbidden")
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    if kind == "extra_forbidden":
        said = f"there is no field {str(path[-1])[:80]!r} here"
        return Fault(pointer, "unknown_field", said, _nearest(str(path[-1]), owner, model))
    text = detail["msg"].removeprefix("Value error, ")
    return Fault(pointer, kind, text, str(context.get("remedy") or _REMEDIES.get(kind) or _from_context(kind, context)))


def _nearest(name: str, owner: type[BaseModel] | None, model: type[BaseModel]) -> str:
    """The remedy for an unknown field: the nearest known name, or the pointer of one that belongs elsewhere."""
    known = sorted(set(owner.model_fields) - {"name"}) if owner else []
    here, elsewhere = {one: one for one in known}, _pointers(model)
    # A name that is all but right elsewhere is likelier meant than one that is merely like it here.
    for places, cutoff in ((here, 0.8), (elsewhere, 0.8), (here, 0.5)):
        if near := difflib.get_close_matches(name, places, n=1, cutoff=cutoff):
            return f"did you mean {places[near[0]]}?"
    return f"leave it out; known are {', '.join(known) or 'none'}"


def _pointers(model: type[BaseModel], above: str = "") -> dict[str, str]:
    """Where each field of a body and of its sections stands; of a name that is there twice, the outermost."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        section = _model_in(field.annotation)
        found |= _pointers(section, f"{above}/{name}") if section is not None else {}
    return found | {name: f"{above}/{name}" for name in model.model_fields}


def _from_context(kind: str, context: Mapping[str, Any]) -> str:
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"send a number {words} {context[key]:g}"
    if kind in {"literal_error", "enum"}:
        return f"send {context['expected']}"
    return "mend the value as the detail says"


def _place(
    loc: tuple[int | str, ...], model: type[BaseModel], *, whole: bool
) -> tuple[list[int | str], type[BaseModel] | None]:
    """The path into the body, without the tags that pydantic adds for alternatives, and the model that owns its end.

    `whole`: the last part is the sender's own word, whatever it is, and no tag.
    """
    path: list[int | str] = []
    owner: type[BaseModel] | None = model
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if last and part == "[key]" and not whole:
            # pydantic's word for "the key itself is wrong": the pointer names the member.
            continue
        if part in _TAGS and not (last and whole):
            owner = _TAGS[str(part)]
            continue
        path.append(part)
        if isinstance(part, str) and owner is not None and not last:
            owner = _model_in(owner.model_fields[part].annotation) if part in owner.model_fields else None
    return path, owner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that a field holds, None where it holds none or a choice of several."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
