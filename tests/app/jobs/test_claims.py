"""Whose job is claimed next: tenants of equal priority take turns, on SQLite and on Postgres."""

from sqlalchemy import update

from app.database import Database, database_now
from app.jobs import lifecycle, repository
from app.jobs.lifecycle import Ending, Run
from app.jobs.models import Job
from app.jobs.states import State
from tests import postgres
from tests.service import claimed, put_job, tables


def ended(database: Database, run: Run) -> Run:
    """The run, after its end."""
    assert lifecycle.finish(database, run, Ending()) is State.SUCCEEDED
    return run


def tenants_in_turn(database: Database, claims: int) -> list[str]:
    """Whose jobs one worker runs, which takes the next when one has ended."""
    return [ended(database, claimed(database)).tenant for _ in range(claims)]


def put(database: Database, *tenants: str) -> list[str]:
    return [put_job(database, tenant=tenant) for tenant in tenants]


def urge(database: Database, *jobs: str) -> None:
    with database.session() as session:
        session.execute(update(Job).where(Job.id.in_(jobs)).values(priority=1))


def test_one_worker_serves_tenants_in_turn(database: Database) -> None:
    put(database, *"aaaaaabb")
    assert tenants_in_turn(database, 8) == list("ababaaaa")
    put(database, *"aabbcc")  # c was never served, b not since a
    assert tenants_in_turn(database, 6) == list("cbacba")


def test_claims_at_one_moment_take_turns_too(database: Database) -> None:
    put(database, *"aaabbb")
    order = []
    for _ in range(6):
        order += tenants_in_turn(database, 1)
        with database.session() as session:
            at = database_now()
            session.execute(update(Job).where(Job.started_at.is_not(None)).values(started_at=at, finished_at=at))
    assert order == list("ababab")


def test_a_tenants_jobs_are_served_by_age_in_its_turns(database: Database) -> None:
    jobs = put(database, *"aaabb")
    served = [ended(database, claimed(database)).job_id for _ in jobs]
    assert served == [jobs[index] for index in (0, 3, 1, 4, 2)]


def test_priority_comes_before_the_turn_and_running_jobs_before_priority(database: Database) -> None:
    urgent = put(database, *"aaa")[1:]
    put(database, *"bb")
    urge(database, *urgent)
    assert tenants_in_turn(database, 3) == list("aab")
    more = put(database, *"aa")
    urge(database, *more)
    assert claimed(database).job_id == more[0]
    assert claimed(database).tenant == "b"
    assert claimed(database).job_id == more[1]


def test_a_job_that_goes_on_takes_its_tenants_turn(database: Database) -> None:
    put(database, "a")
    begun = claimed(database)
    put(database, "b")
    assert tenants_in_turn(database, 1) == ["b"]
    assert lifecycle.settle(database, begun) is State.QUEUED
    again = ended(database, claimed(database))
    assert (again.job_id, again.attempt) == (begun.job_id, 2)
    put(database, *"ab")
    assert tenants_in_turn(database, 2) == list("ba")


def test_who_erases_jobs_is_not_served_sooner(database: Database) -> None:
    put(database, *"ba")
    tenants_in_turn(database, 1)
    run = ended(database, claimed(database))
    with database.session() as session:
        assert repository.erase(session, "a", run.job_id)
    put(database, *"ab")
    assert tenants_in_turn(database, 2) == list("ba")


def test_a_job_that_another_transaction_holds_is_passed_over(server: postgres.Server) -> None:
    with tables(server.fresh()) as database:
        jobs = put(database, *"aab")
        with database.session() as session:
            assert repository.get(session, "a", jobs[0], hold=True)
            assert [ended(database, claimed(database)).job_id for _ in range(2)] == [jobs[1], jobs[2]]
            assert lifecycle.claim(database, "one", 60, 1) is None
