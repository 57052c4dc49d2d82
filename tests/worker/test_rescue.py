"""Rounds go on whatever goes wrong in one of them, until they are stopped; and who is taken for lost in them."""

import threading

import pytest
from sqlalchemy.exc import OperationalError

from app.database import Database
from app.jobs import lifecycle
from tests.service import SilentBell, claimed, job_of, let_lapse, put_job
from worker.rescue import Rescue, Rounds


def test_no_error_ends_the_rounds() -> None:
    errors = iter([OperationalError("", {}, Exception("away")), RuntimeError("a fault")])
    third = threading.Event()

    def look() -> None:
        for error in errors:
            raise error
        third.set()

    rounds = Rounds("looks", look, 0.001)
    rounds.start()
    assert third.wait(20)
    rounds.stop()
    third.clear()
    assert not third.wait(0.05)


def test_whoever_lives_through_an_outage_renews_its_lease_before_it_is_taken_for_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage that is longer than a lease lets all of them lapse; at a start nobody knows what was before it."""
    bell, now, away, slow = SilentBell(), [0.0], [False], [0.0]
    present = lifecycle.present

    def answer(of: Database, name: str) -> None:
        if away[0]:
            raise OperationalError("", {}, Exception("away"))
        now[0] += slow[0]
        present(of, name)

    monkeypatch.setattr(lifecycle, "present", answer)
    rescue = Rescue(database, "one", 5, bell.ring, patience_seconds=2, clock=lambda: now[0])
    job_id = put_job(database)
    for start in (0, 100):
        claimed(database)
        let_lapse(database, job_id)
        away[0] = True
        with pytest.raises(OperationalError):
            rescue.round()
        away[0] = False
        for seconds, state in ((0, "running"), (1.9, "running"), (2, "queued")):
            now[0] = start + seconds
            rescue.round()
            assert job_of(database, job_id).state == state
    for hung, state in ((0, "queued"), (60, "running")):
        claimed(database)
        let_lapse(database, job_id)
        slow[0] = hung
        rescue.round()
        assert job_of(database, job_id).state == state
    assert bell.rings == 3
