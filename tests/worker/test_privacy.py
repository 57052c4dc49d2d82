"""What a worker settles in the ledger: every draw that was made, whatever ended the run."""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from app.database import Database
from app.datasets.models import Dataset
from app.jobs import lifecycle
from app.jobs.models import Job
from app.jobs.states import CANCEL_RUN, PAUSE, RESUME
from app.privacy import repository, settlement
from app.privacy.composition import Spending, total
from app.privacy.models import PrivacyAccount, PrivacyEntry
from app.privacy.service import reserve
from app.settings import Settings
from engine.accounting import PrivacyEvent, epsilon
from tests.service import claimed, job_of, let_lapse, owner_moves, put_job, worker_for

DRAW = PrivacyEvent(q=0.01, sigma=1.0)
PLANNED = 30


def put_private_job(database: Database, planned: int = PLANNED, **ways: Any) -> str:
    """A job of the stand-in engine that draws before each step, with its reservation."""
    job_id = put_job(database, **{"steps": 12, "sleep": 0.01, **ways, "private": DRAW.to_json()})
    spending = Spending("record", 1_000, 1e-5, (DRAW.times(planned),))
    with database.session() as session:
        reserve(session, "default", "rows", job_id, spending)
    return job_id


def entry_of(database: Database, job_id: str) -> PrivacyEntry:
    with database.reading() as session:
        (entry,) = settlement.entries_of(session, job_id)
        return entry


def made(settings: Settings, job_id: str) -> int:
    """How many draws the spy saw."""
    spy = settings.data_dir / "runs" / f"{job_id}.draws"
    return len(spy.read_text()) if spy.exists() else 0


def when_step(database: Database, job_id: str, step: int) -> None:
    """Wait until the run has recorded this step."""
    deadline = time.monotonic() + 20
    while job_of(database, job_id).step < step:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_to_its_end_is_settled_to_what_it_drew(settings: Settings, database: Database) -> None:
    job_id = put_private_job(database)
    worker_for(settings, database).run_next()
    entry = entry_of(database, job_id)
    assert job_of(database, job_id).state == "succeeded"
    assert (entry.state, entry.counted, entry.count) == ("spent", 12, 12)
    assert entry.settled_at is not None


def test_a_failed_run_keeps_what_it_drew(settings: Settings, database: Database) -> None:
    error = {"code": "diverged", "title": "", "detail": "", "remedy": "", "errors": []}
    job_id = put_private_job(database, steps=5, fail=error)
    worker_for(settings, database).run_next()
    assert job_of(database, job_id).state == "failed"
    assert (entry_of(database, job_id).state, entry_of(database, job_id).counted) == ("spent", 5)


@pytest.mark.parametrize("at", [1, 2, 4, 7, 11])
def test_an_engine_that_is_killed_draws_again_and_all_of_it_counts(
    settings: Settings, database: Database, at: int
) -> None:
    job_id = put_private_job(database, crash={"at": at, "how": "kill", "once": True})
    worker_for(settings, database).run_next()
    entry = entry_of(database, job_id)
    assert job_of(database, job_id).attempt == 2
    # From the snapshot before, so what was drawn since is drawn again.
    assert made(settings, job_id) == entry.counted == 12 + at % 3
    assert entry.state == "spent"


@pytest.mark.parametrize("at", [0, 4])
def test_a_draw_that_was_made_and_never_told_counts(settings: Settings, database: Database, at: int) -> None:
    job_id = put_private_job(database, crash={"at": at, "how": "untold"})
    worker_for(settings, database).run_next()
    entry = entry_of(database, job_id)
    assert job_of(database, job_id).state == "failed"
    assert (entry.state, entry.counted) == ("spent", made(settings, job_id))


def test_a_cancelled_run_keeps_what_it_drew(settings: Settings, database: Database) -> None:
    job_id = put_private_job(database, planned=2_000, steps=2_000, sleep=0.005)
    thread = threading.Thread(target=worker_for(settings, database).run_next)
    thread.start()
    when_step(database, job_id, 3)
    assert owner_moves(database, job_id, CANCEL_RUN)
    thread.join()
    entry = entry_of(database, job_id)
    assert job_of(database, job_id).state == "cancelled"
    assert entry.state == "spent"
    assert made(settings, job_id) <= entry.counted <= made(settings, job_id) + 1


def test_a_pause_settles_nothing_and_the_next_attempt_knows(settings: Settings, database: Database) -> None:
    job_id = put_private_job(database, planned=2_000, steps=300, sleep=0.005)
    worker = worker_for(settings, database)
    thread = threading.Thread(target=worker.run_next)
    thread.start()
    when_step(database, job_id, 3)
    assert owner_moves(database, job_id, PAUSE)
    thread.join()
    entry = entry_of(database, job_id)
    assert (entry.state, entry.count) == ("reserved", 2_000)
    assert entry.counted == made(settings, job_id)
    owner_moves(database, job_id, RESUME)
    run = claimed(database)
    assert run.privacy is not None
    assert run.privacy["recorded"] == [DRAW.times(entry.counted).to_json()]
    assert (run.privacy["rows"], run.privacy["lost"]) == (1_000, None)


def test_a_lost_worker_is_settled_in_full_and_stays_so(settings: Settings, database: Database) -> None:
    job_id = put_private_job(database)
    run = claimed(database)
    batch = lifecycle.Batch(1, drawn=[lifecycle.Drawn("gaussian", "poisson", 0.01, 1.0, 4)])
    lifecycle.record(database, run, batch)
    let_lapse(database, job_id)
    assert lifecycle.rescue(database, 5) == [(job_id, "queued")]
    entry = entry_of(database, job_id)
    assert (entry.state, entry.counted, entry.count) == ("lost", 4, PLANNED)
    worker_for(settings, database).run_next()
    assert job_of(database, job_id).state == "succeeded"
    assert (entry_of(database, job_id).state, entry_of(database, job_id).count) == ("lost", PLANNED)
    # One that was fenced off changes nothing any more.
    late = lifecycle.Batch(2, drawn=[lifecycle.Drawn("gaussian", "poisson", 0.01, 1.0, 99)])
    assert lifecycle.record(database, run, late) is None
    # Those of the lost worker, of which no journal tells here, and those of this one.
    assert entry_of(database, job_id).counted == 4 + 12


def test_draws_that_nobody_planned_are_entered_too(settings: Settings, database: Database) -> None:
    job_id = put_private_job(database)
    run = claimed(database)
    told = [lifecycle.Drawn("gaussian", "poisson", 0.01, 0.5, 3), lifecycle.Drawn("gaussian", "poisson", 0.01, 1.0, 40)]
    lifecycle.record(database, run, lifecycle.Batch(1, drawn=told))
    lifecycle.finish(database, run, lifecycle.Ending())
    with database.reading() as session:
        found = {entry.noise_multiplier: entry.count for entry in settlement.entries_of(session, job_id)}
    assert found == {1.0: 40, 0.5: 3}


def test_another_job_is_told_what_was_spent(settings: Settings, database: Database) -> None:
    first = put_private_job(database)
    worker_for(settings, database).run_next()
    put_private_job(database)
    run = claimed(database)
    assert run.privacy is not None
    assert run.privacy["spent"] == [DRAW.times(12).to_json()]
    assert entry_of(database, first).count == 12


def put_datasets(database: Database, *names: str) -> None:
    """Data sets with these ids, which are their subjects too."""
    rows = {"rows": 1, "size_bytes": 1, "splits": {}, "columns": {}, "labels": [], "label_counts": {}, "problems": []}
    with database.session() as session:
        for name in names:
            about = {"task": "text_classification", "status": "ready", "sha256": name, "storage_key": name}
            session.add(Dataset(id=name, tenant="default", created_at=datetime.now(UTC), **about, **rows))


def opened(database: Database) -> dict[str, str | None]:
    """The first job that read each subject without privacy."""
    with database.reading() as session:
        return {one.subject: one.open_job for one in session.query(PrivacyAccount)}


def test_a_plain_job_takes_the_guarantee_from_the_rows_it_reads(settings: Settings, database: Database) -> None:
    put_datasets(database, "ds_read", "ds_left")
    job_id = put_job(database)
    with database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.inputs = {"ds_read": "key"}
    claimed(database)
    assert opened(database) == {"ds_read": job_id}


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"kind": "detect", "inputs": {"dataset": "ds_own", "texts": None}, "calibration": "ds_other"}, True),
        ({"kind": "detect", "inputs": {"dataset": None, "texts": ["a"]}, "calibration": "ds_own"}, True),
        ({"kind": "evaluate", "dataset": "ds_own"}, True),
        ({"kind": "compress", "dataset": None}, False),
    ],
)
@pytest.mark.parametrize("trained_on", ["ds_own", {"train": "ds_own", "valid": "ds_other", "test": "ds_other"}])
def test_rows_that_a_training_read_are_opened_by_a_job_that_names_them_itself(
    settings: Settings, database: Database, fields: dict[str, Any], read: bool, trained_on: Any
) -> None:
    put_datasets(database, "ds_own", "ds_other")
    job_id = put_job(database)
    with database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.spec = {**fields, "parent": {"job": "job_1", "spec": {"dataset": trained_on}}}
        job.inputs = {"ds_own": "key", "art_1": "key"}
    claimed(database)
    assert opened(database) == ({"ds_own": job_id} if read else {})


def test_the_total_is_never_below_what_was_drawn(settings: Settings, database: Database) -> None:
    jobs = [
        put_private_job(database, steps=4),
        put_private_job(database, steps=9, crash={"at": 5, "how": "kill", "once": True}),
        put_private_job(database, steps=3, crash={"at": 2, "how": "memory"}),
    ]
    worker_for(settings, database).run_next()
    drawn = sum(made(settings, job_id) for job_id in jobs)
    with database.reading() as session:
        spent = total(None, repository.entries_on(session, "default", "rows"))
    assert drawn == 4 + 9 + 2 + 2
    assert spent.quoted >= spent.pld == epsilon([DRAW.times(drawn)], 1e-5)
