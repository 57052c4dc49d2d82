"""Every pair of instructions, and a sample of larger sets, runs two steps of the real loop or is refused."""

import random
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from engine.catalogue import CATALOGUE
from engine.hooks import Phase
from engine.instruction import HOOKS
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


@pytest.fixture(autouse=True, scope="module")
def _no_encoder() -> Iterator[None]:
    with without_an_encoder():
        yield


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("number", CATALOGUE)
def test_each_alone_runs_or_is_refused(task: str, number: int, tmp_path: Path) -> None:
    served = task in CATALOGUE[number].tasks
    assert walk(task, [number], tmp_path) is served


def _runs_on(task: str, pair: tuple[int, int]) -> bool:
    return task == home(pair) or random.Random(f"{task} {pair}").random() < SAMPLED_PAIRS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_each_pair_runs_or_is_refused(task: str, pair: tuple[int, int], tmp_path: Path) -> None:
    alone = [{"number": number} for number in pair]
    assert_reasons(refusals(task, alone), alone)
    if not refusals(task, with_company(task, pair)) and not _runs_on(task, pair):
        return
    composes = walk(task, pair, tmp_path)
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
