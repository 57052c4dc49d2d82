"""Each instruction, each pair where it has its home, and a sample of larger sets take two steps on a GPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from engine.catalogue import CATALOGUE
from tests.engine.walk import PAIRS, TASKS, home, sample, serves, walk, without_an_encoder

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:.*:UserWarning")]


@pytest.fixture(autouse=True, scope="module")
def _no_encoder() -> Iterator[None]:
    with without_an_encoder():
        yield


def _failed(sets: Iterable[tuple[str, tuple[int, ...]]], folder: Path) -> dict[str, str]:
    """Which of these sets did not take their steps, with what was said: all of them, not the first alone."""
    found = {}
    for number, (task, numbers) in enumerate(sets):
        try:
            walk(task, numbers, folder / str(number))
        except Exception as error:  # whatever a set raises is what is to be told of it
            found[f"{task} {numbers}"] = f"{type(error).__name__}: {str(error)[:300]}"
    return found


@pytest.mark.parametrize("number", CATALOGUE)
def test_each_alone(number: int, tmp_path: Path) -> None:
    assert _failed([(task, (number,)) for task in TASKS if serves(task, [number])], tmp_path) == {}


@pytest.mark.parametrize("number", CATALOGUE)
def test_each_with_those_behind_it(number: int, tmp_path: Path) -> None:
    homes = [(home(pair), pair) for pair in PAIRS if pair[0] == number]
    assert _failed([(task, pair) for task, pair in homes if task is not None], tmp_path) == {}


@pytest.mark.parametrize("task", TASKS)
def test_larger_sets(task: str, tmp_path: Path) -> None:
    assert _failed([(task, numbers) for numbers in sample(task)], tmp_path) == {}
