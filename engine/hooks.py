"""The three kinds of hook. Knows neither the instructions nor the loop.

A method of `engine.instruction.Instruction` becomes a hook by one of these decorators; which hooks an instruction
holds is read off the methods that it overrides, so a declaration cannot drift from the code.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


class Phase(StrEnum):
    """How the holders of one hook share it."""

    FOLD = "fold"  # each hands a value on to the next
    EACH = "each"  # all act, nothing is handed on
    SLOT = "slot"  # one may hold it; two are a conflict


def _mark(phase: Phase) -> Callable[[F], F]:
    def mark(method: F) -> F:
        method.__hook__ = phase  # type: ignore[attr-defined]  # functions take attributes; typeshed does not say so
        return method

    return mark


fold = _mark(Phase.FOLD)
each = _mark(Phase.EACH)
slot = _mark(Phase.SLOT)


def hooks_of(base: type) -> dict[str, Phase]:
    """The hooks that a class defines, by name, in the order of their definition: the order of the loop."""
    marked = {name: getattr(member, "__hook__", None) for name, member in vars(base).items()}
    return {name: phase for name, phase in marked.items() if isinstance(phase, Phase)}


@cache
def overridden(kind: type, base: type) -> tuple[str, ...]:
    """The hooks of `base` that `kind` gives a body of its own, in loop order."""
    return tuple(name for name in hooks_of(base) if getattr(kind, name) is not getattr(base, name))


@cache
def held(kind: type, base: type, idle: frozenset[str]) -> tuple[str, ...]:
    """Those that are overridden and not `idle`."""
    return tuple(hook for hook in overridden(kind, base) if hook not in idle)
