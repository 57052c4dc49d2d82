"""Walks every pair of states and holds it against the table as the architecture gives it."""

import itertools
import re
from pathlib import Path

import pytest

from app.jobs import states
from app.jobs.states import LEASED, MOVES, OPEN, TERMINAL, Mover, State, allowed_from, movers

OWNER, WORKER, RESCUE = Mover.OWNER, Mover.WORKER, Mover.RESCUE
TABLE: dict[tuple[str, str], set[Mover]] = {
    ("created", "queued"): {OWNER},
    ("created", "cancelled"): {OWNER},
    ("queued", "running"): {WORKER},
    ("queued", "cancelled"): {OWNER},
    ("running", "queued"): {WORKER, RESCUE},
    ("running", "succeeded"): {WORKER},
    ("running", "failed"): {WORKER, RESCUE},
    ("running", "pausing"): {OWNER},
    ("running", "cancelling"): {OWNER},
    ("pausing", "paused"): {WORKER, RESCUE},
    ("pausing", "succeeded"): {WORKER},
    ("pausing", "failed"): {WORKER},
    ("pausing", "cancelling"): {OWNER},
    ("paused", "queued"): {OWNER},
    ("paused", "cancelled"): {OWNER},
    ("cancelling", "cancelled"): {WORKER, RESCUE},
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(State, State)))
def test_every_pair(source: State, target: State) -> None:
    assert movers(source, target) == TABLE.get((source.value, target.value), set())


def test_the_table_of_moves_is_whole() -> None:
    declared = {move for move in vars(states).values() if isinstance(move, states.Move)}
    assert declared == set(MOVES)


def test_terminal_states_are_those_nobody_leaves() -> None:
    assert frozenset(state for state in State if not any(movers(state, other) for other in State)) == TERMINAL
    assert set(State) == OPEN | TERMINAL
    assert not OPEN & TERMINAL


def test_only_leased_states_are_moved_by_rescue() -> None:
    rescued = {source for move in MOVES if move.mover is RESCUE for source in move.sources}
    assert rescued == LEASED


def test_every_state_names_its_mover() -> None:
    text = Path(states.__file__).read_text()
    for state in State:
        assert re.search(rf'^    {state.name} = "{state.value}"  # \w', text, re.MULTILINE), state


def test_allowed_from_reads_the_table() -> None:
    assert allowed_from("cancel") == ("created", "queued", "running", "pausing", "paused")
    assert allowed_from("pause") == ("running",)
    assert allowed_from("resume") == ("paused",)
