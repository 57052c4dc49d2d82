"""Lost runs: what their jobs become, how often, and that one worker's death takes no other's job."""

import pytest

from app.database import Database
from app.jobs import lapses, lifecycle
from app.jobs.states import CANCEL_RUN, PAUSE, Move, State
from tests.service import claimed, job_of, let_lapse, owner_moves, put_job


@pytest.mark.parametrize(("asked", "state"), [(None, "queued"), (PAUSE, "paused"), (CANCEL_RUN, "cancelled")])
def test_rescue_follows_what_was_asked(database: Database, asked: Move | None, state: str) -> None:
    job_id = put_job(database)
    claimed(database)
    if asked is not None:
        assert owner_moves(database, job_id, asked)
    assert lifecycle.rescue(database, 5) == []
    let_lapse(database, job_id)
    assert lifecycle.rescue(database, 5) == [(job_id, State(state))]
    assert lifecycle.rescue(database, 5) == []
    assert job_of(database, job_id).lapses == (1 if asked is None else 0)


@pytest.mark.parametrize(("asked", "state"), [(None, "queued"), (PAUSE, "paused"), (CANCEL_RUN, "cancelled")])
def test_a_dead_workers_job_is_released_at_once(database: Database, asked: Move | None, state: str) -> None:
    job_id, neighbour = put_job(database), put_job(database)
    dead, living = (lifecycle.owner_name("worker@here", process) for process in (7, 77))
    run = claimed(database, dead)
    claimed(database, living)
    if asked is not None:
        assert owner_moves(database, job_id, asked)
    assert lapses.release(database, lifecycle.owner_name("worker@there", 7), 5) == []
    assert lapses.release(database, dead, 5) == [(job_id, State(state))]
    assert lapses.release(database, dead, 5) == []
    assert job_of(database, job_id).lapses == (1 if asked is None else 0)
    assert lifecycle.heartbeat(database, run, 60) is None
    assert job_of(database, neighbour).state == "running"


def test_a_job_that_kills_its_workers_is_not_tried_for_ever(database: Database) -> None:
    job_id = put_job(database)
    for _ in range(3):
        claimed(database, "dead")
        lapses.release(database, "dead", 3)
    job = job_of(database, job_id)
    assert (job.state, job.lapses, (job.error or {})["code"]) == ("failed", 3, "worker_lost")


def test_a_name_of_any_length_fits_the_column() -> None:
    assert len(lifecycle.owner_name("w" * 300, 4_194_304)) == 128
    assert lifecycle.owner_name("w" * 300, 1) != lifecycle.owner_name("w" * 300, 2)


def test_the_last_lapse_fails_the_job(database: Database) -> None:
    job_id = put_job(database)
    for lapse in range(1, 4):
        claimed(database)
        let_lapse(database, job_id)
        lifecycle.rescue(database, 3)
        assert job_of(database, job_id).lapses == lapse
    job = job_of(database, job_id)
    assert (job.state, (job.error or {})["code"], job.finished_at is None) == ("failed", "worker_lost", False)
