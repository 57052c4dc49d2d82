"""A database that is away for a moment costs no attempt, and no worker that starts meanwhile its rounds."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app import erasure
from app.database import Database
from app.jobs import lifecycle
from app.jobs.states import State
from app.settings import Settings
from tests.bucket import Bucket, stand_in
from tests.service import claimed, job_of, put_job, settings_for, worker_for
from worker import lease


def away_once(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int = 1) -> None:
    """Let the database be away at the call of this number of a function."""
    real: Callable[..., Any] = getattr(module, name)
    calls: list[int] = []

    def call(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise OperationalError("", {}, Exception("away"))
        return real(*given)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize(("storage", "at"), [(None, 1), (None, 3), ("s3://bucket", 5)])
def test_outputs_are_stored_once_it_is_back(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, storage: str | None, at: int
) -> None:
    """At the first and the last output, and at the log, which is stored after a snapshot and three outputs."""
    stand_in(monkeypatch, Bucket())
    away_once(monkeypatch, erasure, "announce", at)
    job_id = put_job(database, steps=3)
    worker_for(settings_for(settings.data_dir, storage_url=storage), database).run_next()
    job = job_of(database, job_id)
    assert (job.state, job.attempt, job.lapses) == ("succeeded", 1, 0)
    assert (job.log_key is None) == (storage is None)


def test_a_claimed_job_runs_whether_or_not_it_can_be_told_that_others_wait(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    away_once(monkeypatch, lifecycle, "any_queued")
    job_id = put_job(database, steps=1)
    worker_for(settings, database).run_next()
    assert job_of(database, job_id).state == "succeeded"


def test_a_worker_that_starts_before_the_database_makes_its_rounds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIFTYTWO_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("FIFTYTWO_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("FIFTYTWO_DATA_DIR", str(settings.data_dir))
    monkeypatch.delitem(sys.modules, "worker.main", raising=False)
    main = importlib.import_module("worker.main")
    try:
        main.start()
        assert all(one._thread.is_alive() for one in main.rounds)
    finally:
        for one in main.rounds:
            one.stop()
        main.bell.close()
        main.database.close()
        del sys.modules["worker.main"]


@pytest.mark.parametrize(
    ("leaving", "reached", "still"), [(False, State.SUCCEEDED, "succeeded"), (True, None, "running")]
)
def test_a_run_that_ends_in_an_outage_longer_than_its_lease_is_kept_unless_the_worker_has_to_leave(
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    leaving: bool,
    reached: State | None,
    still: str,
) -> None:
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.05)
    worker = worker_for(settings_for(settings.data_dir, lease_seconds=0.2, heartbeat_seconds=0.05), database)
    finish, ends = lifecycle.finish, list[int]()

    def away(*_: Any) -> None:
        raise OperationalError("", {}, Exception("away"))

    def end(*given: Any) -> Any:
        ends.append(1)
        if leaving:
            worker.stopping.set()
        return away() if len(ends) < 10 else finish(*given)

    for name, instead in (("heartbeat", away), ("look", away), ("finish", end)):
        monkeypatch.setattr(lifecycle, name, instead)
    job_id = put_job(database, steps=1)
    assert (worker.execute(claimed(database)), job_of(database, job_id).state) == (reached, still)
