"""What is derived from an instruction holds against what is read off its source: hooks, schema, round trip, order.

Its file, docstring and proof are looked at by tests/house.
"""

import ast
import inspect
import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from engine.catalogue import CATALOGUE, AnyInstruction, describe, named, resolve_choice
from engine.instruction import ALL_TASKS, HOOKS, Instruction
from engine.plan import _waits

# Numbers and bands of all 52, whether they exist yet or not.
BANDS = {
    "preprocessing": range(1, 13),
    "augmentation": range(13, 19),
    "gradients": range(19, 26),
    "mixed_precision": range(26, 31),
    "adversarial_defence": range(31, 37),
    "privacy": range(37, 43),
    "compression": range(43, 49),
    "quantization_aware_training": range(49, 53),
}
TIER_OF_BAND = dict(
    zip(BANDS, ["foundation"] * 2 + ["efficiency"] * 2 + ["safety"] * 2 + ["deployment"] * 2, strict=True)
)
KINDS = [pytest.param(kind, id=f"{number:02}") for number, kind in CATALOGUE.items()]
DESCRIPTIONS = {one["number"]: one for one in describe()}


def _default(kind: type[Instruction]) -> Instruction:
    return kind.model_validate({"name": kind.model_fields["name"].default})


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_belongs_to_its_band_and_tier(kind: type[Instruction]) -> None:
    assert kind.number in BANDS[kind.band]
    assert kind.tier() == TIER_OF_BAND[kind.band]
    assert kind.tasks <= ALL_TASKS
    assert set(kind.unserved) <= ALL_TASKS - kind.tasks


@pytest.mark.parametrize("kind", KINDS)
def test_the_hooks_told_are_the_methods_written(kind: type[Instruction]) -> None:
    (written,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(written, ast.ClassDef)
    methods = {part.name for part in written.body if isinstance(part, ast.FunctionDef)}
    one = _default(kind)
    assert one.idle <= methods, "only a hook with a body can be left alone"
    assert DESCRIPTIONS[kind.number]["hooks"] == [hook for hook in HOOKS if hook in methods - one.idle]
    assert set(HOOKS) & methods, "it does something"


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_choice_comes_back_equal(kind: type[Instruction]) -> None:
    one = _default(kind)
    read: TypeAdapter[Instruction] = TypeAdapter(AnyInstruction)
    assert read.validate_python(one.model_dump(mode="json")) == one
    assert read.validate_json(one.model_dump_json()) == one
    assert type(read.validate_python(one.model_dump(mode="json"))) is kind
    assert named(kind.number) is named(one.name) is kind
    for asked in (kind.number, str(kind.number), one.name, {"number": kind.number}, {"name": one.name}):
        assert read.validate_python(resolve_choice(asked)) == one


@pytest.mark.parametrize("kind", KINDS)
def test_an_instruction_is_frozen_and_refuses_what_it_does_not_know(kind: type[Instruction]) -> None:
    one = _default(kind)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(one, "name", "other")  # noqa: B010 - a plain assignment is refused by the type checker already
    with pytest.raises(ValidationError, match="Extra inputs"):
        kind.model_validate({"name": one.name, "no_such_parameter": 1})


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    branches: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return branches


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_describes_and_bounds_every_parameter(kind: type[Instruction]) -> None:
    told = DESCRIPTIONS[kind.number]["parameters"]["properties"]
    assert set(told) == set(kind.model_fields) - {"name"}
    for name, schema in told.items():
        assert schema["description"], name
        assert "default" in schema, name
        for branch in _branches(schema):
            if branch.get("type") in {"integer", "number"} and "enum" not in branch and "const" not in branch:
                assert {"minimum", "exclusiveMinimum"} & set(branch), f"{name} has no lower bound"
                assert {"maximum", "exclusiveMaximum"} & set(branch), f"{name} has no upper bound"
            if branch.get("type") == "string" and "enum" not in branch and "const" not in branch:
                assert "maxLength" in branch, f"{name} has no longest length"


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_are_refused(kind: type[Instruction]) -> None:
    name = kind.model_fields["name"].default
    for field, schema in DESCRIPTIONS[kind.number]["parameters"]["properties"].items():
        numeric = [branch for branch in _branches(schema) if branch.get("type") in {"integer", "number"}]
        if numeric:
            # A literal set of numbers takes true for 1, as Python does; nothing else may.
            truth = [] if any({"enum", "const"} & set(branch) for branch in numeric) else [True]
            for value in (math.nan, math.inf, -math.inf, 10**400, *truth):
                with pytest.raises(ValidationError):
                    kind.model_validate({"name": name, field: value})


@pytest.mark.parametrize("kind", KINDS)
def test_every_reason_is_a_sentence_of_its_own(kind: type[Instruction]) -> None:
    one = _default(kind)
    for reason in [*one.needs.values(), *one.excludes.values()]:
        assert len(reason.split()) > 3
    assert not set(one.needs) & set(one.excludes)
    assert one.name not in one.excludes


def test_the_order_has_no_cycle_but_pairings() -> None:
    chosen = [_default(kind) for kind in CATALOGUE.values()]
    names = {one.number: one.name for one in chosen}
    before = {names[number]: {names[other] for other in others} for number, others in _waits(chosen).items()}
    before |= {name: set() for name in names.values() if name not in before}
    while before:
        free = [name for name, waits in before.items() if not waits & set(before)]
        assert free, f"these wait for each other: {sorted(before)}"
        for name in free:
            del before[name]
