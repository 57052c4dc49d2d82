"""A plan tells every problem at once, and its order follows from what the instructions say of themselves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field

from engine.baseline import BASELINE
from engine.errors import Fault, InvalidPlan
from engine.hooks import Phase
from engine.instruction import HOOKS, Instruction
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec


class Made(Instruction):
    """Stands in for an instruction; what it declares comes as parameters."""

    number: ClassVar[int] = 0
    band: ClassVar[str] = "gradients"
    title: ClassVar[str] = "Made"
    source: ClassVar[str] = "none"
    metric: ClassVar[str] = "none"
    gives: frozenset[str] = frozenset()
    wants: Mapping[str, str] = Field(default_factory=dict)
    waits_for: frozenset[str] = frozenset()
    refuses: Mapping[str, str] = Field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def provides(self) -> frozenset[str]:
        return self.gives

    @property
    def needs(self) -> Mapping[str, str]:
        return self.wants

    @property
    def after(self) -> frozenset[str]:
        return self.waits_for | frozenset(self.wants)

    @property
    def excludes(self) -> Mapping[str, str]:
        return self.refuses

    def check(self, spec: Spec, facts: frozenset[str]) -> Iterable[Fault]:
        return [Fault("/faults", code, code, "mend it") for code in self.faults]


class First(Made):
    """Holds the order of the rows."""

    number = 1
    name: Literal["first"] = "first"

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        yield from ()


class Second(Made):
    """Holds the order of the rows as well."""

    number = 2
    name: Literal["second"] = "second"

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        yield from ()

    def after_epoch(self, run: Run, epoch: int) -> None:
        """Acts."""


class Third(Made):
    """Holds nothing."""

    number = 3
    name: Literal["third"] = "third"


class Between(Made):
    """Holds nothing, and stands between two by its number."""

    number = 2
    name: Literal["between"] = "between"


class Pictures(Made):
    """Serves pictures alone."""

    number = 4
    name: Literal["pictures"] = "pictures"
    tasks = frozenset({"image_classification"})


def plan(*chosen: Instruction, facts: Sequence[str] = ()) -> Plan:
    spec = Spec(task="text_classification", dataset="ds").model_copy(update={"instructions": chosen})
    return Plan.of(spec, facts)


def faults(*chosen: Instruction, facts: Sequence[str] = ()) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPlan) as caught:
        plan(*chosen, facts=facts)
    assert all(fault.detail and fault.remedy for fault in caught.value.faults)
    return [(fault.pointer, fault.code) for fault in caught.value.faults]


def test_all_problems_are_told_at_once() -> None:
    found = faults(
        First(wants={"missing": "it reads it"}),
        Pictures(),
        Second(refuses={"third": "they differ"}),
        Third(faults=("own_fault",)),
        Third(),
    )
    assert found == [
        ("/instructions/1", "wrong_task"),
        ("/instructions/4", "repeated_instruction"),
        ("/instructions/0", "missing_need"),
        ("/instructions/2", "excluded"),
        ("/instructions/2", "slot_conflict"),
        ("/instructions/3/faults", "own_fault"),
    ]


def test_a_need_is_met_by_a_fact_a_name_or_what_is_known_of_the_data() -> None:
    wanting = Second(wants={"resized": "it follows shapes"})
    assert faults(wanting) == [("/instructions/0", "missing_need")]
    plan(wanting, Third(gives=frozenset({"resized"})))
    plan(Second(wants={"third": "it reads it"}), Third())
    plan(wanting, facts=["resized"])


def test_a_fact_of_the_data_can_be_excluded() -> None:
    assert faults(Third(refuses={"fixed_splits": "they would be lost"}), facts=["fixed_splits"]) == [
        ("/instructions/0", "excluded")
    ]


def test_nobody_excludes_itself() -> None:
    made = plan(Third(gives=frozenset({"a"}), refuses={"a": "one is enough"}))
    assert [one.number for one in made.instructions] == [3]


def test_order_follows_after_then_number_whatever_the_request_said() -> None:
    first, third = First(waits_for=frozenset({"late"})), Third(gives=frozenset({"late"}))
    assert [one.number for one in plan(third, first).instructions] == [3, 1]
    assert [one.number for one in plan(Third(), Second()).instructions] == [2, 3]


def test_a_mutual_need_is_a_pairing_and_goes_by_number() -> None:
    one, other = First(wants={"b": "pair"}, gives=frozenset({"a"})), Third(wants={"a": "pair"}, gives=frozenset({"b"}))
    assert [made.number for made in plan(other, Between(), one).instructions] == [1, 2, 3]


def test_hooks_are_read_off_the_methods() -> None:
    assert Second().hooks == ("order", "after_epoch")
    assert Third().hooks == ()
    made = plan(Second())
    assert [one.number for one in made.on("after_epoch")] == [2]
    assert made.slot("order").number == 2
    assert made.slot("schedule") is BASELINE


def test_every_slot_has_a_default_and_every_hook_one_line_of_docs() -> None:
    for hook, phase in HOOKS.items():
        documented = (getattr(Instruction, hook).__doc__ or "").strip()
        assert documented.endswith("."), hook
        assert "\n" not in documented, hook
        if phase is Phase.SLOT:
            assert hook in BASELINE.hooks, hook


def test_without_takes_facts_along() -> None:
    made = plan(Second(gives=frozenset({"x"})), Third(gives=frozenset({"y"})), facts=["pretrained"])
    left = made.without({3})
    assert [one.number for one in left.instructions] == [2]
    assert left.facts == {"x", "pretrained"}


@pytest.mark.parametrize(
    ("instructions", "remedy"),
    [
        ([51], "add quantization_aware_training (49), or leave dynamic_range out"),
        ([28], "add autocast (26) with dtype float16, or leave dynamic_loss_scaling out"),
        ([26, 28], "give autocast (26) dtype float16, or leave dynamic_loss_scaling out"),
        ([{"number": 9, "group": "cluster"}], "leave stratified_split out, or choose other parameters"),
    ],
)
def test_what_is_needed_is_told_by_who_provides_it(instructions: list[Any], remedy: str) -> None:
    spec = Spec.model_validate({"task": "text_classification", "dataset": "ds_1", "instructions": instructions})
    with pytest.raises(InvalidPlan) as caught:
        Plan.of(spec)
    assert remedy in next(fault.remedy for fault in caught.value.faults if fault.code == "missing_need")


def test_a_pair_alone_in_its_batch_is_refused() -> None:
    def plan(rows: int) -> Plan:
        body = {"task": "text_image_pairs", "dataset": "none", "training": {"batch_size": rows}}
        return Plan.of(Spec.model_validate(body))

    assert plan(2).instructions == ()
    with pytest.raises(InvalidPlan) as refused:
        plan(1)
    assert [(one.pointer, one.code) for one in refused.value.faults] == [("/training/batch_size", "too_few_negatives")]
