"""Finds the instruction files and describes them. Knows none of them by name.

A file `engine/instructions/<band>/iNN_name.py` with one subclass of `Instruction` is all that an instruction needs.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Field
from pydantic_core import PydanticCustomError

import engine.instructions
from engine.instruction import Instruction


def _found() -> Iterator[type[Instruction]]:
    for module in pkgutil.walk_packages(engine.instructions.__path__, "engine.instructions."):
        if not module.ispkg:
            members = vars(importlib.import_module(module.name)).values()
            yield from (
                one
                for one in members
                if isinstance(one, type) and issubclass(one, Instruction) and one.__module__ == module.name
            )


CATALOGUE: Mapping[int, type[Instruction]] = {one.number: one for one in sorted(_found(), key=lambda one: one.number)}
NAMES: Mapping[str, type[Instruction]] = {
    name_of: one for one in CATALOGUE.values() for name_of in [one.model_fields["name"].default]
}

if TYPE_CHECKING:  # a union made at run time is no type to a checker; its members share this base
    AnyInstruction: TypeAlias = Instruction
else:
    AnyInstruction = Annotated[Union[tuple(CATALOGUE.values())], Field(discriminator="name")]  # noqa: UP007


# Python refuses to read a number of thousands of digits, and no number of an instruction has more than two.
_MOST_DIGITS = 9


def named(choice: int | str) -> type[Instruction] | None:
    """The instruction of a number or a name, None where there is none; digits in a string count as a number."""
    if isinstance(choice, str) and not (choice.isdecimal() and len(choice) <= _MOST_DIGITS):
        return NAMES.get(choice)
    return CATALOGUE.get(int(choice))


def resolve_choice(choice: Any) -> Any:
    """A request's choice (number, name, or object with either) as an object with `name`.

    Raises:
        PydanticCustomError: for an unknown one, with the nearest known name.
    """
    if isinstance(choice, Instruction):
        return choice
    if isinstance(choice, Mapping):
        fields = dict(choice)
        number = fields.pop("number", None)
        given = fields.get("name", number)
        if given is None:
            told = {"remedy": "add its number or its name; GET /v1/instructions lists them"}
            raise PydanticCustomError("unknown_instruction", "the object names no instruction", told)
        kind = _known(given)
        if number is not None and number != kind.number:
            raise PydanticCustomError(
                "number_and_name_differ",
                f"number {number!r} and name {given!r} are two instructions; give one of the two",
            )
        return {**fields, "name": kind.model_fields["name"].default}
    return {"name": _known(choice).model_fields["name"].default}


def _known(choice: Any) -> type[Instruction]:
    kind = named(choice) if isinstance(choice, int | str) and not isinstance(choice, bool) else None
    if kind is None:
        near = difflib.get_close_matches(str(choice), NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(map(str, CATALOGUE))}, by number or name"
        raise PydanticCustomError(
            "unknown_instruction", "there is no instruction {choice}", {"choice": repr(choice)[:80], "remedy": hint}
        )
    return kind


def _defaults(kind: type[Instruction]) -> Instruction:
    return kind.model_validate({"name": kind.model_fields["name"].default})


@cache
def describe() -> list[dict[str, Any]]:
    """Each instruction as the API tells it, in the order of the numbers; facts are those of the default parameters."""
    return [_description(kind) for kind in CATALOGUE.values()]


def _description(kind: type[Instruction]) -> dict[str, Any]:
    one = _defaults(kind)
    schema = kind.model_json_schema()
    schema["properties"].pop("name", None)
    return {
        "object": "instruction",
        "number": kind.number,
        "name": one.name,
        "band": kind.band,
        "tier": kind.tier(),
        "title": kind.title,
        "does": kind.does(),
        "tasks": sorted(kind.tasks),
        "kinds": sorted(kind.kinds),
        "hooks": list(one.hooks),
        "provides": sorted(one.provides),
        "needs": dict(one.needs),
        "excludes": dict(one.excludes),
        "metric": kind.metric,
        "source": kind.source,
        "parameters": schema,
    }
