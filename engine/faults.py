"""Turns pydantic's errors into faults with a pointer and a remedy. Knows no field by name."""

import difflib
from collections.abc import Mapping, Sized
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from engine.catalogue import NAMES
from engine.errors import Fault

_REMEDIES: Mapping[str, str] = {
    "missing": "add this field",
    "json_invalid": "send a JSON object",
    "model_attributes_type": "send a JSON object",
    "model_type": "send a JSON object",
    "dict_type": "send a JSON object",
    "string_type": "send a string",
    "string_unicode": "send text without halves of surrogate pairs",
    "int_type": "send a whole number",
    "int_from_float": "send a whole number",
    "int_parsing": "send a whole number",
    "int_parsing_size": "send a smaller whole number",
    "float_parsing": "send a number",
    "list_type": "send a list",
    "string_too_short": "send a string that is not empty",
    "float_type": "send a number",
    "bool_type": "send true or false",
    "bool_parsing": "send true or false",
    "tuple_type": "send a list",
    "finite_number": "send a finite number",
    "number_and_name_differ": "name the instruction once, by number or by name",
}


# What pydantic names by the classes of this program.
_KINDS: Mapping[str, str] = {
    "model_attributes_type": "JSON object",
    "model_type": "JSON object",
    "dict_type": "JSON object",
    "list_type": "list",
    "tuple_type": "list",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "send a number above {}"),
    "greater_than_equal": ("ge", "send a number of at least {}"),
    "less_than": ("lt", "send a number below {}"),
    "less_than_equal": ("le", "send a number of at most {}"),
    "too_short": ("min_length", "send at least {} items"),
    "too_long": ("max_length", "send at most {} items"),
    "string_too_long": ("max_length", "send at most {} characters"),
}


def from_validation(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Every fault of a body."""
    return [_fault(detail, model) for detail in error.errors(include_url=False) if not _long_enough(detail)]


def at_once(title: str, found: Mapping[str, PydanticCustomError], sent: Any) -> ValidationError:
    """An error with several faults of a section, by the field of it that each is of; a validator raises one only."""
    lines = [InitErrorDetails(type=fault, loc=(name,), input=sent) for name, fault in found.items()]
    return ValidationError.from_exception_data(title, lines)


def pointer_to(path: tuple[int | str, ...]) -> str:
    """The JSON Pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _long_enough(detail: ErrorDetails) -> bool:
    """Whether a list only counts as too short because pydantic leaves its faulty items out, which are told anyhow."""
    given = detail["input"]
    return detail["type"] == "too_short" and isinstance(given, Sized) and len(given) >= detail["ctx"]["min_length"]


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    kind, context = detail["type"], detail.get("ctx", {})
    path, owner = _place(detail["loc"], model, whole=kind == "extra_forbidden")
    pointer = pointer_to(path)
    if kind == "extra_forbidden":
        said = f"there is no field {str(path[-1])[:80]!r} here"
        return Fault(pointer, "unknown_field", said, _nearest(str(path[-1]), owner, model))
    text = detail["msg"].removeprefix("Value error, ")
    if kind in _KINDS:
        text = f"this is no {_KINDS[kind]}"
    if kind in ("too_short", "too_long"):
        text = f"the number of items is {len(detail['input'])}"
    return Fault(pointer, kind, text, remedy_for(kind, context))


def remedy_for(kind: str, context: Mapping[str, Any]) -> str:
    """What to do about an error of pydantic's: by its type, or what its context says."""
    return str(context.get("remedy") or _REMEDIES.get(kind) or _from_context(kind, context))


def _nearest(name: str, owner: type[BaseModel] | None, model: type[BaseModel]) -> str:
    """The remedy for an unknown field: the nearest known name, or the pointer of one that belongs elsewhere."""
    known = sorted(set(owner.model_fields) - ({"name"} if owner in NAMES.values() else set())) if owner else []
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
        section = _model_in(_choices(field.annotation))
        found |= _pointers(section, f"{above}/{name}") if section is not None else {}
    return found | {name: f"{above}/{name}" for name in model.model_fields}


def _from_context(kind: str, context: Mapping[str, Any]) -> str:
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = context[key]
        return words.format(f"{bound:g}" if isinstance(bound, float) else bound)
    if kind in {"literal_error", "enum"}:
        return f"send {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"send text that fits {context['pattern']}"
    return "mend the value as the detail says"


def _place(
    loc: tuple[int | str, ...], model: type[BaseModel], *, whole: bool
) -> tuple[tuple[int | str, ...], type[BaseModel] | None]:
    """The path into the body, without the tags that pydantic adds for alternatives, and the model that owns its end.

    `whole`: the last part is the sender's own word, whatever it is, and no tag.
    """
    path: list[int | str] = []
    owner: type[BaseModel] | None = None
    choices: list[Any] = [model]
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if last and part == "[key]" and not whole:
            # pydantic's word for "the key itself is wrong": the pointer names the member.
            continue
        if len(choices) > 1:
            # pydantic's word for the alternative that it tried.
            choices = [one for one in choices if _tag(one) == part]
            continue
        path.append(part)
        owner = _model_in(choices)
        choices = _choices(_below(choices[0], part)) if choices else []
    return tuple(path), owner


def _choices(annotation: Any) -> list[Any]:
    """The alternatives of an annotation but for None, each as it is annotated."""
    origin = get_origin(annotation)
    if origin is Annotated and not any(isinstance(one, Tag) for one in annotation.__metadata__):
        return _choices(annotation.__origin__)
    if origin in (Union, UnionType):
        return [choice for one in get_args(annotation) for choice in _choices(one)]
    return [] if annotation in (None, type(None)) else [annotation]


def _tag(choice: Any) -> str:
    """What pydantic calls an alternative: by its tag, by the name that an instruction goes by, or by its class."""
    if get_origin(choice) is Annotated:
        return str(next(one.tag for one in choice.__metadata__ if isinstance(one, Tag)))
    return next((name for name, one in NAMES.items() if one is choice), getattr(choice, "__name__", ""))


def _plain(choice: Any) -> Any:
    return choice.__origin__ if get_origin(choice) is Annotated else choice


def _below(choice: Any, part: int | str) -> Any:
    """The annotation of what stands under a key or a number of this one; None where nobody says."""
    plain = _plain(choice)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return plain.model_fields[part].annotation if part in plain.model_fields else None
    inner = get_args(plain)
    return inner[0 if isinstance(part, int) else -1] if inner else None


def _model_in(choices: list[Any]) -> type[BaseModel] | None:
    """The pydantic model that a place holds, None where it holds none or a choice of several."""
    only = _plain(choices[0]) if len(choices) == 1 else None
    return only if isinstance(only, type) and issubclass(only, BaseModel) else None
