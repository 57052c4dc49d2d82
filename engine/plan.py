"""Checks, orders and folds a set of chosen instructions. Knows no instruction by name and no list of conflicts.

Everything is read off the instructions themselves: two holders of one slot clash, `needs` must be provided, `excludes`
must be absent, `after` orders, ties go by number. All problems are told at once, each with its remedy.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.baseline import BASELINE
from engine.errors import Fault, InvalidPlan
from engine.hooks import Phase
from engine.instruction import HOOKS, Instruction
from engine.providers import remedy

if TYPE_CHECKING:  # a spec holds instructions that a plan orders: a circle of types only
    from engine.spec import Spec

_NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plan:
    """Instructions in the order in which they act, and the facts that hold of the run."""

    instructions: tuple[Instruction, ...]
    facts: frozenset[str]

    @classmethod
    def of(cls, spec: "Spec", facts: Iterable[str] = ()) -> "Plan":
        """Order `spec.instructions`; `facts` are known of the data and the base model ("fixed_splits", "pretrained").

        Raises:
            InvalidPlan: with every fault found, pointers into the spec.
        """
        chosen = spec.instructions
        known = frozenset(facts).union(*(one.provides for one in chosen))
        faults = [
            *_wrong_task(chosen, spec.task),
            *clashes(chosen, spec.kind, known),
            *_own_faults(chosen, spec, known),
            *BASELINE.check(spec, known),
        ]
        if faults:
            raise InvalidPlan(faults)
        return cls(_ordered(chosen), known)

    @cached_property
    def _holders(self) -> dict[str, tuple[Instruction, ...]]:
        return {hook: tuple(one for one in self.instructions if hook in one.hooks) for hook in HOOKS}

    def on(self, hook: str) -> tuple[Instruction, ...]:
        """Who acts on a fold or an each, in order."""
        return self._holders[hook]

    def slot(self, hook: str) -> Instruction:
        """Who holds a slot; the baseline where nobody does."""
        return next(iter(self._holders[hook]), BASELINE)

    def without(self, numbers: Iterable[int]) -> "Plan":
        """The same plan less some instructions: for a twin that is compared against."""
        left_out = set(numbers)
        kept = tuple(one for one in self.instructions if one.number not in left_out)
        gone = frozenset().union(*(one.provides for one in self.instructions if one.number in left_out), frozenset())
        return Plan(kept, (self.facts - gone).union(*(one.provides for one in kept)))

    def describe(self) -> list[dict[str, Any]]:
        """The ordered plan as JSON: what each step is, with which parameters, and what it will do."""
        return [
            {
                "number": one.number,
                "name": one.name,
                "parameters": one.parameters(),
                "hooks": list(one.hooks),
                "does": one.does(),
            }
            for one in self.instructions
        ]


def clashes(chosen: Sequence[Instruction], kind: str, facts: Iterable[str] = ()) -> list[Fault]:
    """What is wrong with the choice whatever the task is, pointers into the spec; `facts` as `Plan.of` has them."""
    known = frozenset(facts).union(*(one.provides for one in chosen))
    return [
        *_repeated(chosen),
        *_wrong_kind(chosen, kind),
        *_missing(chosen, known),
        *_excluded(chosen, known),
        *_contested(chosen),
    ]


def _fault(index: int, code: str, detail: str, mend: str) -> Fault:
    return Fault(f"/instructions/{index}", code, detail, mend)


def _repeated(chosen: Sequence[Instruction]) -> Iterator[Fault]:
    before: set[int] = set()
    for index, one in enumerate(chosen):
        if one.number in before:
            # Not where: of a body with faults the plan knows a part, and not the places of its items.
            detail = f"{one.name} ({one.number}) is chosen twice; another stands before it"
            yield _fault(index, "repeated_instruction", detail, "keep one of the two")
        before.add(one.number)


def _wrong_task(chosen: Sequence[Instruction], task: str) -> Iterator[Fault]:
    for index, one in enumerate(chosen):
        if task not in one.tasks:
            why = f": {one.unserved[task]}" if task in one.unserved else f"; it serves {', '.join(sorted(one.tasks))}"
            detail = f"{one.name} does not serve {task}{why}"
            yield _fault(index, "wrong_task", detail, f"leave {one.name} out of this job")


def _wrong_kind(chosen: Sequence[Instruction], kind: str) -> Iterator[Fault]:
    for index, one in enumerate(chosen):
        if kind not in one.kinds:
            detail = f"{one.name} does nothing in a job of kind {kind}; it acts in {', '.join(sorted(one.kinds))}"
            yield _fault(index, "wrong_kind", detail, f"leave {one.name} out of this job")


def _missing(chosen: Sequence[Instruction], facts: frozenset[str]) -> Iterator[Fault]:
    there = facts | {one.name for one in chosen}
    for index, one in enumerate(chosen):
        for need, reason in one.needs.items():
            if need not in there:
                yield _fault(index, "missing_need", f"{one.name} needs {need}: {reason}", remedy(need, one, chosen))


def _excluded(chosen: Sequence[Instruction], facts: frozenset[str]) -> Iterator[Fault]:
    for index, one in enumerate(chosen):
        for excluded, reason in one.excludes.items():
            culprits = [
                other.name for other in chosen if other is not one and excluded in {other.name, *other.provides}
            ]
            if culprits:
                detail = f"{one.name} does not go with {', '.join(culprits)}: {reason}"
                yield _fault(index, "excluded", detail, f"keep {one.name} or {', '.join(culprits)}, not both")
            elif excluded in facts and not any(excluded in other.provides for other in chosen):
                yield _fault(
                    index, "excluded", f"{one.name} does not go with {excluded}: {reason}", f"leave {one.name} out"
                )


def _contested(chosen: Sequence[Instruction]) -> Iterator[Fault]:
    holders: dict[str, dict[int, int]] = {}
    for index, one in enumerate(chosen):
        for hook in one.hooks:
            if HOOKS[hook] is Phase.SLOT:
                # The same instruction twice is told once, as a repetition.
                holders.setdefault(hook, {}).setdefault(one.number, index)
    for hook, numbers in holders.items():
        if len(numbers) > 1:
            indices = [*numbers.values()]
            names = ", ".join(chosen[index].name for index in indices)
            yield _fault(indices[-1], "slot_conflict", f"{names} each decide `{hook}` alone", f"keep one of {names}")


def _own_faults(chosen: Sequence[Instruction], spec: "Spec", facts: frozenset[str]) -> Iterator[Fault]:
    for index, one in enumerate(chosen):
        for fault in one.check(spec, facts):
            yield (
                _fault(index, fault.code, fault.detail, fault.remedy)
                if not fault.pointer
                else Fault(f"/instructions/{index}{fault.pointer}", fault.code, fault.detail, fault.remedy)
            )


def _ordered(chosen: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """Kahn's algorithm over `after`, always taking the lowest number that is free.

    Two that wait for each other are a pairing and not an order: these too go by number.
    """
    waits = _waits(chosen)
    left = {one.number: one for one in sorted(chosen, key=lambda one: one.number)}
    done: list[Instruction] = []
    while left:
        nearest = next((number for number in left if waits.get(number, _NOBODY).isdisjoint(left)), next(iter(left)))
        done.append(left.pop(nearest))
    return tuple(done)


def _waits(chosen: Sequence[Instruction]) -> dict[int, set[int]]:
    """For whom each waits that does not wait back, by number."""
    facts = {one.number: {one.name, *one.provides} for one in chosen}
    wanted = {
        one.number: {
            number for number, theirs in facts.items() if number != one.number and not theirs.isdisjoint(after)
        }
        for one in chosen
        if (after := one.after)
    }
    return {
        number: {other for other in others if number not in wanted.get(other, _NOBODY)}
        for number, others in wanted.items()
    }
