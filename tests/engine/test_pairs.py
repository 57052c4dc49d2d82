"""Each instruction is delivered whole, and every pair and a sample of larger sets run two real steps, or is refused.

A pair whose two both act after the training is delivered too.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from engine.catalogue import CATALOGUE
from engine.hooks import Phase, held
from engine.instruction import HOOKS, Instruction
from tests.engine.walk import (
    PAIRS,
    TASKS,
    assert_reasons,
    home,
    refusals,
    sample,
    serves,
    walk,
    with_company,
    without_an_encoder,
)

SAMPLED_PAIRS = 0.06
# Two that hold one of these each meet in every forward pass, which no two tasks make alike.
IN_A_PASS = frozenset({"context", "loss", "backward"})
# Two that hold one of these each meet on the way to the file: the rows and the model that one leaves the other finds.
TO_THE_FILE = frozenset({"training_records", "trained", "compress", "audit", "evidence"})


@pytest.fixture(autouse=True, scope="module")
def _no_encoder() -> Iterator[None]:
    with without_an_encoder():
        yield


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("number", CATALOGUE)
def test_each_alone_runs_or_is_refused(task: str, number: int, tmp_path: Path) -> None:
    served = task in CATALOGUE[number].tasks
    assert walk(task, [number], tmp_path, whole=True) is served


def _runs_on(task: str, pair: tuple[int, int]) -> bool:
    return task == home(pair) or _both(pair, IN_A_PASS) or random.Random(f"{task} {pair}").random() < SAMPLED_PAIRS


def _both(pair: tuple[int, int], hooks: frozenset[str]) -> bool:
    """Whether each of the two holds one of these hooks, whatever its parameters are."""
    return all(hooks & set(held(CATALOGUE[number], Instruction, frozenset())) for number in pair)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_each_pair_runs_or_is_refused(task: str, pair: tuple[int, int], tmp_path: Path) -> None:
    alone = [{"number": number} for number in pair]
    assert_reasons(refusals(task, alone), alone)
    if not refusals(task, with_company(task, pair)) and not _runs_on(task, pair):
        return
    composes = walk(task, pair, tmp_path, whole=task == home(pair) and _both(pair, TO_THE_FILE))
    assert composes or not serves(task, pair) or _declares_a_conflict(task, pair)


def _declares_a_conflict(task: str, numbers: Iterable[int]) -> bool:
    """Whether two of them say by their own declaration that they do not go together: a slot, or an exclusion."""
    chosen = [CATALOGUE[one["number"]].model_validate(_named(one)) for one in with_company(task, numbers)]
    for one, other in combinations(chosen, 2):
        excluded = set(one.excludes) & {other.name, *other.provides} | set(other.excludes) & {one.name, *one.provides}
        slots = {name for name, phase in HOOKS.items() if phase is Phase.SLOT}
        if excluded or slots & set(one.hooks) & set(other.hooks):
            return True
    return False


def _named(choice: dict[str, Any]) -> dict[str, Any]:
    name = CATALOGUE[choice["number"]].model_fields["name"].default
    return {"name": name, **{key: value for key, value in choice.items() if key != "number"}}


def test_most_pairs_compose() -> None:
    for task in TASKS:
        served = [pair for pair in PAIRS if serves(task, pair)]
        composed = [pair for pair in served if not refusals(task, with_company(task, pair))]
        assert len(composed) > 0.8 * len(served)


@pytest.mark.parametrize(("task", "numbers"), [(task, numbers) for task in TASKS for numbers in sample(task)], ids=str)
def test_larger_sets_run_or_are_refused(task: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    composes = walk(task, numbers, tmp_path)
    assert composes or _declares_a_conflict(task, numbers)
