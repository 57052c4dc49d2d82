"""What becomes of a job whose run was lost: it is queued again, until the last time, or gets what its owner asked for.

Every move carries the attempt that was lost. Knows neither processes nor how their loss was noticed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.database import Database, database_now
from app.jobs import repository, tallies
from app.jobs.models import Job
from app.jobs.states import GIVE_UP, LAPSE, LAPSE_CANCELLING, LAPSE_PAUSING, Move, State

Lapses = Sequence[tuple[Move, tuple[ColumnElement[bool], ...], Mapping[str, Any]]]
"""Moves, each with what must hold for it and the columns it writes."""

WORKER_LOST: dict[str, Any] = {
    "code": "worker_lost",
    "title": "The run was lost too often",
    "detail": "The process of the run ended without a word, at the last time too.",
    "remedy": "read the job's log; if the process was killed for its memory, choose a smaller batch or model",
    "errors": [],
}


def lapse(
    session: Session, job_id: str, moves: Lapses, still: tuple[ColumnElement[bool], ...], reason: str
) -> State | None:
    """Make the first of these moves that fits while `still` holds; the state it leads to, or None."""
    for kind, conditions, values in moves:
        told = {"reason": reason}
        if job := repository.move(session, job_id, kind, conditions=(*still, *conditions), values=values, told=told):
            tallies.lapsed(session, job)
            return kind.target
    return None


def lapse_moves(max_lapses: int, again: Move, last: Move, pausing: Move, cancelling: Move) -> Lapses:
    """The moves after a lapse, first fitting one wins: again, or for the last time; or what its owner asked for."""
    raised = {"lapses": Job.lapses + 1}
    running = Job.state == State.RUNNING
    return [
        (again, (Job.lapses + 1 < max_lapses,), raised),
        (last, (running,), raised | {"error": WORKER_LOST}),
        (pausing, (), {}),
        (cancelling, (), {}),
    ]


def rescue(database: Database, max_lapses: int) -> list[tuple[str, State]]:
    """Move every job whose lease has lapsed; id and new state of each."""
    return _take_back(database, max_lapses, Job.lease_expires < database_now(), "the lease lapsed")


def release(database: Database, owner: str, max_lapses: int) -> list[tuple[str, State]]:
    """Take the jobs of a dead worker at once, which counts as a lapse; id and new state of each.

    Only for one who knows that the process `owner` names is dead: the one that started it, and saw it end. A job that
    kills its worker is thus not tried for ever.
    """
    return _take_back(database, max_lapses, Job.lease_owner == owner, "the worker died")


def release_all(database: Database) -> list[tuple[str, State]]:
    """Take every leased job from its worker at once, which is no lapse; id and new state of each.

    Only for one who knows that no worker lives: `fiftytwo serve`, which holds the lock of its data folder. A worker
    that lives after all is fenced off like any other that lost its lease.
    """
    moved: list[tuple[str, State]] = []
    with database.session() as session:
        for job_id, attempt in repository.leased(session):
            for kind in (LAPSE, LAPSE_PAUSING, LAPSE_CANCELLING):
                told = {"reason": "the server was started again"}
                if repository.move(session, job_id, kind, conditions=repository.fence(attempt), told=told):
                    moved.append((job_id, kind.target))
                    break
    return moved


def _take_back(database: Database, max_lapses: int, lost: ColumnElement[bool], reason: str) -> list[tuple[str, State]]:
    """Move every leased job that is lost as a lapse, each in a transaction of its own; id and new state of each."""
    with database.reading() as session:
        found = repository.leased(session, lost)
    moves = lapse_moves(max_lapses, LAPSE, GIVE_UP, LAPSE_PAUSING, LAPSE_CANCELLING)
    moved: list[tuple[str, State]] = []
    for job_id, attempt in found:
        with database.session() as session:
            state = lapse(session, job_id, moves, (*repository.fence(attempt), lost), reason)
        if state is not None:
            moved.append((job_id, state))
    return moved
