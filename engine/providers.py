"""Which instructions could provide what another one needs, and with which parameters. Knows none of them by name."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError

from engine.instruction import Instruction


def remedy(need: str, by: Instruction, chosen: Sequence[Instruction]) -> str:
    """What to do where `by` needs a fact or an instruction that nobody among the chosen ones provides."""
    ways = [_way(one, parameters, chosen) for one, parameters in _providers(need)]
    if not ways:
        return f"leave {by.name} out, or choose other parameters: no instruction of this server provides {need}"
    return ", or ".join([*ways, f"leave {by.name} out"])


def could_provide(need: str) -> frozenset[str]:
    """The names of all instructions that provide a fact with some parameters."""
    return frozenset(one.name for one, _ in _providers(need))


def _way(one: Instruction, parameters: dict[str, Any], chosen: Sequence[Instruction]) -> str:
    named = f"{one.name} ({one.number})"
    settings = " and ".join(f"{name} {value}" for name, value in parameters.items())
    if any(other.number == one.number for other in chosen):
        return f"give {named} {settings}"
    return f"add {named} with {settings}" if settings else f"add {named}"


def _providers(need: str) -> Iterator[tuple[Instruction, dict[str, Any]]]:
    """Each instruction that provides it, with what differs from its default parameters then."""
    for kind in sorted(Instruction.__subclasses__(), key=lambda one: one.number):
        if not kind.__module__.startswith("engine.instructions."):  # what a test has made up nobody can choose
            continue
        for parameters in _variants(kind):
            try:
                one = kind.model_validate({"name": kind.model_fields["name"].default, **parameters})
            except ValidationError:  # one choice needs another number beside it
                continue
            if need in {one.name, *one.provides}:
                yield one, parameters
                break


def _variants(kind: type[Instruction]) -> Iterator[dict[str, Any]]:
    """The default parameters, and those with one choice among words made otherwise."""
    yield {}
    for name, field in kind.model_fields.items():
        if name != "name" and get_origin(field.annotation) is Literal:
            yield from ({name: value} for value in get_args(field.annotation) if value != field.default)
