"""The states of a job and every move between them, each with its mover. Knows neither SQL nor HTTP nor processes.

    created -> queued -> running -> succeeded | failed
    created | queued | paused -> cancelled
    running -> pausing -> paused -> queued
    running | pausing -> cancelling -> cancelled
    running -> queued          a deploy, or a lapsed lease

Every move is one compare-and-set in the database: it names the states it starts from, so of two movers one wins.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache


class State(StrEnum):
    """Where a job stands; the comment says who moves it on."""

    CREATED = "created"  # its owner, by start or cancel
    QUEUED = "queued"  # a worker, by claim; its owner, by cancel
    RUNNING = "running"  # the worker that holds the lease; its owner, by pause or cancel; rescue, once the lease lapsed
    PAUSING = "pausing"  # the worker that holds the lease; its owner, by cancel; rescue, once the lease lapsed
    PAUSED = "paused"  # its owner, by resume or cancel
    CANCELLING = "cancelling"  # the worker that holds the lease; rescue, once the lease lapsed
    CANCELLED = "cancelled"  # nobody
    SUCCEEDED = "succeeded"  # nobody
    FAILED = "failed"  # nobody


LEASED = frozenset({State.RUNNING, State.PAUSING, State.CANCELLING})
"""A worker holds a lease: heartbeats and the fence hold here."""

TERMINAL = frozenset({State.CANCELLED, State.SUCCEEDED, State.FAILED})
"""Nobody moves a job out of these."""

OPEN = frozenset(State) - TERMINAL
"""The job still needs its data sets and counts against its tenant's cap."""


class Mover(StrEnum):
    """Who may make a move."""

    OWNER = "owner"  # over HTTP
    WORKER = "worker"  # the run that holds the lease, fenced by its attempt
    RESCUE = "rescue"  # any worker, once the lease has lapsed; who started the worker, once it has died


@dataclass(frozen=True)
class Move:
    """One kind of move: by whom, from which states, to which."""

    name: str
    mover: Mover
    sources: frozenset[State]
    target: State


def _move(name: str, mover: Mover, target: State, *sources: State) -> Move:
    return Move(name, mover, frozenset(sources), target)


START = _move("start", Mover.OWNER, State.QUEUED, State.CREATED)
PAUSE = _move("pause", Mover.OWNER, State.PAUSING, State.RUNNING)
RESUME = _move("resume", Mover.OWNER, State.QUEUED, State.PAUSED)
# A cancel is two moves: at once where nothing runs, else by way of the worker that has to kill the run first.
CANCEL_IDLE = _move("cancel", Mover.OWNER, State.CANCELLED, State.CREATED, State.QUEUED, State.PAUSED)
CANCEL_RUN = _move("cancel", Mover.OWNER, State.CANCELLING, State.RUNNING, State.PAUSING)

CLAIM = _move("claim", Mover.WORKER, State.RUNNING, State.QUEUED)
# A run that ends before it hears of a pause has ended; after a cancel it may only be cancelled.
SUCCEED = _move("succeed", Mover.WORKER, State.SUCCEEDED, State.RUNNING, State.PAUSING)
FAIL = _move("fail", Mover.WORKER, State.FAILED, State.RUNNING, State.PAUSING)
PAUSED = _move("paused", Mover.WORKER, State.PAUSED, State.PAUSING)
CANCELLED = _move("cancelled", Mover.WORKER, State.CANCELLED, State.CANCELLING)
# A deploy stops the worker, and is no lapse; a run whose process was lost is one.
YIELD = _move("yield", Mover.WORKER, State.QUEUED, State.RUNNING)
LOSE = _move("lose", Mover.WORKER, State.QUEUED, State.RUNNING)

LAPSE = _move("lapse", Mover.RESCUE, State.QUEUED, State.RUNNING)
GIVE_UP = _move("give_up", Mover.RESCUE, State.FAILED, State.RUNNING)
LAPSE_PAUSING = _move("lapse", Mover.RESCUE, State.PAUSED, State.PAUSING)
LAPSE_CANCELLING = _move("lapse", Mover.RESCUE, State.CANCELLED, State.CANCELLING)

MOVES: tuple[Move, ...] = (
    START,
    PAUSE,
    RESUME,
    CANCEL_IDLE,
    CANCEL_RUN,
    CLAIM,
    SUCCEED,
    FAIL,
    PAUSED,
    CANCELLED,
    YIELD,
    LOSE,
    LAPSE,
    GIVE_UP,
    LAPSE_PAUSING,
    LAPSE_CANCELLING,
)


def movers(source: State, target: State) -> frozenset[Mover]:
    """Who may move a job from `source` to `target`; empty: nobody."""
    return frozenset(move.mover for move in MOVES if source in move.sources and move.target is target)


@cache
def allowed_from(name: str) -> tuple[State, ...]:
    """The states an owner's move of this name starts from, in the order of `State`."""
    sources = {source for move in MOVES if move.name == name and move.mover is Mover.OWNER for source in move.sources}
    return tuple(state for state in State if state in sources)
