"""Sets of instructions through two steps of the real loop on small runs of each task, wherever a run trains.

Knows no instruction by name but where one cannot stand without another; those come with it.
"""

import functools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.catalogue import CATALOGUE
from engine.errors import Fault, InvalidPlan
from engine.events import Listed, StepDone
from engine.models import Base
from engine.plan import Plan
from engine.rows import Rows
from engine.run import Run
from engine.spec import Spec
from tests.engine.delivering import assert_delivered
from tests.engine.runs import tiny_image_run, tiny_pair_run, tiny_run, trained
from tests.engine.tiny import tiny_image_rows, tiny_pair_rows, tiny_text_rows
from tests.engine.tiny_lm import tiny_lm_rows, tiny_lm_run


def _of_many(rows: Rows) -> Rows:
    """The rows, each of a client of its own."""
    return replace(rows, groups=np.array([f"client-{i}" for i in range(len(rows))]))


RUNS = {
    "text_classification": partial(tiny_run, rows=_of_many(tiny_text_rows(52))),
    "causal_lm": partial(tiny_lm_run, rows=_of_many(tiny_lm_rows(52))),
    "image_classification": partial(tiny_image_run, rows=tiny_image_rows(40)),
    "text_image_pairs": partial(tiny_pair_run, rows=tiny_pair_rows(40)),
}
TASKS = list(RUNS)
PAIRS = list(combinations(CATALOGUE, 2))
SAMPLED, LARGEST = 10, 8


class _OneMeaning:
    """Stands for the sentence encoder of whoever augments texts: all mean the same, and a river may be a stone."""

    def __init__(self, _: Any) -> None:
        """Nothing to load."""

    def words(self) -> "_OneMeaning":
        """Itself."""
        return self

    def propose(self, texts: Sequence[str], places: Sequence[Any], most: int) -> list[Any]:
        """A word that no text has."""
        return [[[("stone", 0.0)] for _ in of_text] for of_text in places]

    def of(self, texts: Sequence[str]) -> Any:
        """One direction."""
        return np.ones((len(texts), 1), np.float32)


@contextmanager
def without_an_encoder() -> Iterator[None]:
    """Within, texts are augmented without the weights of a sentence encoder."""
    with pytest.MonkeyPatch.context() as patch:
        augmentation = "engine.instructions.augmentation.i15_contextual_augmentation"
        patch.setattr(f"{augmentation}.Meaning", _OneMeaning)
        patch.setattr(f"{augmentation}.find", lambda name, _: Base(name, None))
        yield


# What each needs to stand, by number; the others stand alone.
COMPANY: dict[int, list[dict[str, Any]]] = {28: [{"number": 26, "dtype": "float16"}], 51: [{"number": 49}]}
# Half of the few rows here are the clients that a round must have.
COMPANY |= {40: [{"number": 40, "client_rate": 0.5}]}
# Two further steps show as much as two hundred.
COMPANY |= {43: [{"number": 43, "steps": 2}], 45: [{"number": 45, "recovery_steps": 2}]}
# And few rows are left where some are set aside.
COMPANY |= {47: [{"number": 47, "calibration_rows": 16}], 48: [{"number": 48, "max_unknown": 0.2}]}
COMPANY_BY_TASK: dict[tuple[str, int], list[dict[str, Any]]] = {
    ("causal_lm", 37): [{"number": 19}],
    ("causal_lm", 40): [{"number": 19}],
    ("text_image_pairs", 43): COMPANY[45],
}


def with_company(task: str, numbers: Iterable[int]) -> list[dict[str, Any]]:
    """The choices of these numbers and of what they need; a parameter that somebody needs wins over a default."""
    chosen: dict[int, dict[str, Any]] = {}
    for number in numbers:
        for one in [*COMPANY.get(number, []), *COMPANY_BY_TASK.get((task, number), []), {"number": number}]:
            kept = chosen.get(one["number"], {})
            chosen[one["number"]] = one if len(one) > len(kept) else kept
    return list(chosen.values())


def refusals(task: str, choices: list[dict[str, Any]]) -> tuple[Fault, ...]:
    """Why the plan is refused; nothing where it composes."""
    facts = {"pretrained"} if task in ("text_classification", "causal_lm") else set()
    try:
        Plan.of(Spec.model_validate({"task": task, "dataset": "none", "instructions": choices}), facts)
    except InvalidPlan as refused:
        return refused.faults
    return ()


def assert_reasons(faults: Iterable[Fault], choices: list[dict[str, Any]]) -> None:
    """Every fault has a code, a reason in words, a remedy and a place in the request."""
    for fault in faults:
        assert fault.code, fault
        assert len(fault.detail.split()) > 4, fault
        assert fault.remedy, fault
        assert fault.pointer.startswith(tuple(f"/instructions/{index}" for index in range(len(choices)))), fault


def _assert_two_steps(run: Run, folder: Path) -> None:
    trained(run, folder)
    assert isinstance(run.sink, Listed)
    steps = [
        event.values for event in run.sink.events if isinstance(event, StepDone) and "learning_rate" in event.values
    ]
    assert run.clock.step == len(steps) == 2
    # A private run tells no loss; whether it learned stands in its own tests.
    assert all(math.isfinite(value) for values in steps for value in values.values())
    # An optimizer of plain steps keeps none.
    assert {float(state["step"]) for state in run.optimizer.state.values() if "step" in state} <= {2.0}
    for one in run.plan.on("report"):
        assert all(math.isfinite(value) for value in one.report(run).values()), one.name


def walk(task: str, numbers: Iterable[int], folder: Path, *, whole: bool = False) -> bool:
    """Whether the set composes; it has run if so, as `whole` to its receipt, and was refused with reasons if not."""
    choices = with_company(task, numbers)
    faults = refusals(task, choices)
    if faults:
        assert_reasons(faults, choices)
        return False
    # A first step in half precision may overflow and be skipped, so there is more than one epoch to take two in.
    run = RUNS[task](folder, choices, epochs=6, max_steps=2)
    _assert_two_steps(run, folder / "run")
    if whole:
        assert_delivered(run, folder / "delivered")
    return True


@functools.cache
def home(pair: tuple[int, int]) -> str | None:
    """The first task on which a pair composes: there it always runs, elsewhere a sample does."""
    return next((task for task in TASKS if not refusals(task, with_company(task, pair))), None)


def serves(task: str, numbers: Iterable[int]) -> bool:
    """Whether each of a set, with its company, serves the task."""
    return all(task in CATALOGUE[one["number"]].tasks for one in with_company(task, numbers))


def sample(task: str) -> list[tuple[int, ...]]:
    """Some larger sets of those that serve a task, the same each time."""
    drawn = random.Random(f"sets of {task}")
    served = [number for number in CATALOGUE if serves(task, [number])]
    sizes = range(3, min(LARGEST, len(served)) + 1)
    return [tuple(sorted(drawn.sample(served, drawn.choice(sizes)))) for _ in range(SAMPLED)]
