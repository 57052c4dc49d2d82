"""Turns pydantic's errors into faults with a pointer and a remedy. Knows no field by name."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from engine.catalogue import NAMES
from engine.errors import Fault

_REMEDIES: Mapping[str, str] = {
    "missing": "add this field",
    "json_invalid": "send a JSON object",
    "model_attributes_type": "send a JSON object",
    "model_type": "send a JSON object",
    "dict_type": "send a JSON object",
    "string_type": "send a string",
    "int_type": "send a whole number",
    "int_from_float": "send a whole number",
    "float_type": "send a number",
    "bool_type": "send true or false",
    "tuple_type": "send a list",
    "finite_number": "send a finite number",
    "number_and_name_differ": "name the instruction once, by number or by name",
}


def from_validation(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Every fault of a body, one a place: alternatives of a union that failed at the same place are told once."""
    faults: dict[str, Fault] = {}
    for detail in error.errors(include_url=False, include_input=True):
        fault = _fault(detail, model)
        faults.setdefault(fault.pointer, fault)
    return list(faults.values())


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    path, owner = _place(detail["loc"], model)
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    kind, context = detail["type"], detail.get("ctx", {})
    text = detail["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = sorted(set(owner.model_fields)) if owner else []
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"leave it out; known are {', '.join(known)}"
        return Fault(pointer, "unknown_field", f"there is no field {str(path[-1])[:80]!r} here", remedy)
    return Fault(
        pointer, kind, text, str(context.get("remedy") or _REMEDIES.get(kind) or _from_context(kind, context, text))
    )


def _from_context(kind: str, context: Mapping[str, Any], text: str) -> str:
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    if kind in bounds:
        words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}[bounds[kind]]
        return f"send a number {words} {context[bounds[kind]]}"
    if kind in {"literal_error", "enum"}:
        return f"send one of {context['expected']}"
    return re.sub(r"^(Input|Value) should ", "it should ", text)


def _place(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[int | str], type[BaseModel] | None]:
    """The path into the body, without the labels that pydantic adds for alternatives, and the model that owns its end."""
    path: list[int | str] = []
    owner: type[BaseModel] | None = model
    labels = {*NAMES, "str", "int", "float"}
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        after_item = bool(path) and isinstance(path[-1], int)
        if after_item and part in NAMES:
            owner = NAMES[str(part)]
            continue
        fields = owner.model_fields if owner else {}
        if isinstance(part, str) and part not in fields and _alternative(part, owner, path) is not None:
            owner = _alternative(part, owner, path)
            continue
        if isinstance(part, str) and not last and part not in fields and part in labels | {"function-before"}:
            continue
        if (
            isinstance(part, str)
            and part.startswith(("constrained-", "function-", "lax-or-strict"))
            or (last and part in labels and part not in fields and path)
        ):
            continue
        path.append(part)
        if isinstance(part, str) and not last:
            owner = _model_in(fields[part].annotation) if part in fields else None
    return path, owner


def _alternative(part: str, owner: type[BaseModel] | None, path: list[int | str]) -> type[BaseModel] | None:
    """The model that a union's label names, such as `Splits` under `dataset`."""
    if owner is not None and owner.__name__ == part and path:
        return owner
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: Iterator[type[BaseModel] | None] = (_model_in(part) for part in get_args(annotation))
    return next((one for one in found if one is not None), None)
