"""A job's life in the database, on SQLite and on Postgres: claims, fences, lapses, and what is written when."""

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from app.database import Database
from app.erasure import announce
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Batch, Ending, Happening, Output, Point, Run
from app.jobs.models import Job, MetricPoint
from app.jobs.states import CANCEL_IDLE, CANCEL_RUN, PAUSE, RESUME, Move, State
from app.storage import Stored
from tests.service import (
    artifacts_of,
    claimed,
    job_of,
    let_lapse,
    owner_moves,
    put_job,
    settings_for,
    states_of,
    worker_for,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OUTPUT = Output("model", "model.zip", "application/zip", Stored("sha256/aa/" + "a" * 64, "a" * 64, 3))


def with_output(database: Database, run: Run) -> Ending:
    """A good end with one file, as if the run had stored it."""
    announce(database, run.owner, OUTPUT.stored)
    return Ending(result={"chain": "c"}, outputs=[OUTPUT])


def test_nothing_queued_is_nothing_claimed(database: Database) -> None:
    put_job(database, state=State.CREATED)
    assert lifecycle.claim(database, "one", 60, 1) is None


def test_a_claim_takes_lease_and_attempt(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    job = job_of(database, job_id)
    assert (run.job_id, run.attempt, run.threads) == (job_id, 1, 2)
    assert (job.state, job.lease_owner) == ("running", "one")
    assert job.lease_expires is not None
    assert 50 < (job.lease_expires - datetime.now(UTC)).total_seconds() < 70
    assert lifecycle.claim(database, "two", 60, 1) is None


def test_the_fairest_job_is_claimed(database: Database) -> None:
    first, _, third = (put_job(database, tenant="busy") for _ in range(3))
    urgent = put_job(database, tenant="busy")
    other = put_job(database, tenant="calm")
    with database.session() as session:
        session.execute(update(Job).where(Job.id == urgent).values(priority=1))
    order = [claimed(database).job_id for _ in range(4)]
    assert order[0] == urgent
    assert order[1] == other
    assert order[2] == first
    assert third not in order


def test_claims_at_the_same_time_take_each_job_once(database: Database) -> None:
    jobs = {put_job(database) for _ in range(12)}
    taken: list[str] = []

    def work() -> None:
        while (run := lifecycle.claim(database, "any", 60, 1)) is not None:
            taken.append(run.job_id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(jobs)


def test_a_heartbeat_renews_and_tells_what_the_owner_wants(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    let_lapse(database, job_id)
    assert lifecycle.heartbeat(database, run, 60) is State.RUNNING
    assert lifecycle.rescue(database, 5) == []
    assert owner_moves(database, job_id, PAUSE)
    assert lifecycle.heartbeat(database, run, 60) is State.PAUSING
    assert lifecycle.look(database, run) is State.PAUSING


def test_every_write_of_a_fenced_run_changes_nothing(database: Database) -> None:
    job_id = put_job(database)
    old = claimed(database)
    let_lapse(database, job_id)
    assert lifecycle.rescue(database, 5) == [(job_id, State.QUEUED)]
    new = claimed(database, "two")
    before = job_of(database, job_id)
    assert lifecycle.heartbeat(database, old, 60) is None
    assert lifecycle.look(database, old) is None
    batch = Batch(99, [Point("train_loss", 1, 1.0, NOW)], [Happening("warned", NOW, {})], progress={"step": 99})
    assert lifecycle.record(database, old, batch) is None
    assert lifecycle.finish(database, old, Ending(outputs=[OUTPUT])) is None
    assert lifecycle.settle(database, old) is None
    assert lifecycle.lose(database, old, 5, "gone") is None
    after = job_of(database, job_id)
    assert (after.revision, after.events, after.lease_owner) == (before.revision, before.events, "two")
    assert not artifacts_of(database, job_id)
    assert lifecycle.finish(database, new, with_output(database, new)) is State.SUCCEEDED


def test_without_the_fence_a_zombie_would_finish_twice(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the fence is what holds: taken out, the run that lost its lease ends the job."""
    job_id = put_job(database)
    old = claimed(database)
    let_lapse(database, job_id)
    lifecycle.rescue(database, 5)
    claimed(database, "two")
    monkeypatch.setattr(repository, "fence", lambda attempt: ())
    assert lifecycle.finish(database, old, with_output(database, old)) is State.SUCCEEDED
    assert artifacts_of(database, job_id) == {"model": "a" * 64}


def test_a_batch_is_written_whole(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    points = [Point("train_loss", step, 1 / step, NOW) for step in range(1, 4)]
    happenings = [Happening("phase_started", NOW, {"phase": "train"}), Happening("warned", NOW, {"code": "c"})]
    assert lifecycle.record(database, run, Batch(1, points, happenings, progress={"step": 3})) is State.RUNNING
    with database.reading() as session:
        events = repository.events_after(session, job_id, 0, 100)
        stored = [tuple(row) for row in repository.points(session, job_id, None, 2)]
    assert [(event.sequence, event.type) for event in events] == [
        (1, "state_changed"),
        (2, "state_changed"),
        (3, "phase_started"),
        (4, "warned"),
    ]
    assert events[2].at == NOW
    assert stored == [("train_loss", 2, 0.5, NOW), ("train_loss", 3, 1 / 3, NOW)]
    assert job_of(database, job_id).step == 3


def test_repeated_steps_overwrite_their_points(database: Database) -> None:
    put_job(database)
    run = claimed(database)
    for number in (1, 2):
        lifecycle.record(database, run, Batch(number, [Point("train_loss", 7, float(number), NOW)]))
    with database.reading() as session:
        assert session.scalars(select(MetricPoint.value)).all() == [2.0]


def test_a_repeated_batch_is_written_once(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    batch = Batch(1, happenings=[Happening("warned", NOW, {})], progress={"step": 3})
    assert lifecycle.record(database, run, batch) is State.RUNNING
    before = job_of(database, job_id)
    assert owner_moves(database, job_id, PAUSE)
    assert lifecycle.record(database, run, batch) is State.PAUSING
    after = job_of(database, job_id)
    assert (after.events, after.revision) == (before.events + 1, before.revision + 1)  # the owner's move
    assert lifecycle.record(database, run, Batch(2, happenings=[Happening("warned", NOW, {})])) is State.PAUSING
    assert job_of(database, job_id).events == after.events + 1


def test_each_attempt_counts_its_batches_anew(database: Database) -> None:
    job_id = put_job(database)
    batch = Batch(1, happenings=[Happening("warned", NOW, {})])
    for _ in range(2):
        run = claimed(database)
        assert lifecycle.record(database, run, batch) is State.RUNNING
        lifecycle.settle(database, run)
    with database.reading() as session:
        told = [event.type for event in repository.events_after(session, job_id, 0, 100)]
    assert told.count("warned") == 2


def test_finish_is_one_transaction_and_may_be_repeated(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    ending = with_output(database, run)
    assert lifecycle.finish(database, run, ending) is State.SUCCEEDED
    events = job_of(database, job_id).events
    assert lifecycle.finish(database, run, ending) is State.SUCCEEDED
    assert job_of(database, job_id).events == events
    assert artifacts_of(database, job_id) == {"model": "a" * 64}
    assert states_of(database, job_id).count("succeeded") == 1


def test_a_finish_that_breaks_leaves_nothing(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    with_output(database, run)
    broken = Output("model", "model.zip", None, OUTPUT.stored)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="media_type"):
        lifecycle.finish(database, run, Ending(outputs=[OUTPUT, broken]))
    assert job_of(database, job_id).state == "running"
    assert not artifacts_of(database, job_id)
    assert lifecycle.finish(database, run, Ending(outputs=[OUTPUT])) is State.SUCCEEDED, "the file waits to be named"


@pytest.mark.parametrize("ending", [Ending(outputs=[OUTPUT]), Ending(log_key=OUTPUT.stored.key)], ids=["output", "log"])
def test_a_file_that_is_not_stored_for_the_run_cannot_be_named(database: Database, ending: Ending) -> None:
    job_id = put_job(database)
    run = claimed(database)
    announce(database, "another run", OUTPUT.stored)
    with pytest.raises(FileNotFoundError, match=OUTPUT.stored.key):
        lifecycle.finish(database, run, ending)
    assert job_of(database, job_id).state == "running"
    assert not artifacts_of(database, job_id)


@pytest.mark.parametrize(
    ("asked", "settled"),
    [(None, "queued"), (PAUSE, "paused"), (CANCEL_RUN, "cancelled")],
    ids=["deploy", "pause", "cancel"],
)
def test_settle_follows_what_was_asked(database: Database, asked: Move | None, settled: str) -> None:
    job_id = put_job(database)
    run = claimed(database)
    if asked is not None:
        assert owner_moves(database, job_id, asked)
    assert lifecycle.settle(database, run) == settled
    job = job_of(database, job_id)
    assert (job.state, job.lapses, job.lease_owner) == (settled, 0, None)


@pytest.mark.parametrize("asked", [None, PAUSE, CANCEL_RUN], ids=["deploy", "pause", "cancel"])
def test_a_repeat_tells_the_state_that_was_reached(database: Database, asked: Move | None) -> None:
    for hand_back in (lifecycle.settle, lambda database, run: lifecycle.lose(database, run, 5, "gone")):
        job_id = put_job(database)
        run = claimed(database)
        if asked is not None:
            assert owner_moves(database, job_id, asked)
        reached = hand_back(database, run)
        before = job_of(database, job_id)
        assert reached == before.state
        assert hand_back(database, run) is reached
        after = job_of(database, job_id)
        assert (after.revision, after.lapses) == (before.revision, before.lapses)
        if reached is State.QUEUED:
            assert claimed(database, "two").job_id == job_id
            assert hand_back(database, run) is None


def test_a_repeat_of_a_cancelled_end_tells_so(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    assert owner_moves(database, job_id, CANCEL_RUN)
    for _ in range(2):
        assert lifecycle.finish(database, run, Ending(outputs=[OUTPUT])) is State.CANCELLED
    assert states_of(database, job_id).count("cancelled") == 1


def test_a_cancelled_run_cannot_succeed(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    assert owner_moves(database, job_id, CANCEL_RUN)
    assert lifecycle.finish(database, run, Ending(outputs=[OUTPUT])) is State.CANCELLED
    assert not artifacts_of(database, job_id)


def test_a_run_that_ends_while_pausing_has_ended(database: Database) -> None:
    job_id = put_job(database)
    run = claimed(database)
    assert owner_moves(database, job_id, PAUSE)
    assert lifecycle.finish(database, run, with_output(database, run)) is State.SUCCEEDED


def test_a_cancelled_job_in_the_queue_never_runs(database: Database) -> None:
    job_id = put_job(database)
    assert owner_moves(database, job_id, CANCEL_IDLE)
    assert lifecycle.claim(database, "one", 60, 1) is None
    assert not owner_moves(database, job_id, RESUME)


def test_two_whole_jobs(database: Database, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    lost = put_job(database, crash={"at": 4, "how": "kill", "once": True})
    plain = put_job(database, steps=5)
    worker_for(settings, database).run_next()
    assert [job_of(database, job_id).state for job_id in (lost, plain)] == ["succeeded", "succeeded"]
    assert job_of(database, lost).attempt == 2
    assert set(artifacts_of(database, lost)) == {"model", "checkpoint", "receipt"}
    with database.reading() as session:
        counted = session.scalar(select(func.count()).select_from(MetricPoint).where(MetricPoint.job_id == lost))
    assert counted == 24
