"""One worker and whole runs of the stand-in engine: each way a run can end, and what is left behind."""

import errno
import hashlib
import json
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from app.database import Database
from app.jobs import lifecycle, repository
from app.jobs.models import Job, JobEvent, MetricPoint
from app.jobs.states import CANCEL_RUN, PAUSE, RESUME, Move, State
from app.settings import Settings
from app.storage import Announce, FolderStorage, Stored
from tests.service import SilentBell, artifacts_of, job_of, put_job, states_of, worker_for
from worker.folder import RunFolder
from worker.tasks import Worker


def chain(steps: int) -> str:
    """What an undisturbed stand-in run computes."""
    value = ""
    for step in range(1, steps + 1):
        value = hashlib.sha256(f"{value}:{step}".encode()).hexdigest()
    return value


def expected(kind: str, steps: int) -> str:
    """The hash of an undisturbed run's output."""
    return hashlib.sha256(f"{kind}:{chain(steps)}".encode()).hexdigest()


def move(database: Database, job_id: str, kind: Move) -> bool:
    with database.session() as session:
        return repository.move(session, job_id, kind) is not None


def when_step(database: Database, job_id: str, step: int) -> None:
    """Wait until the run has recorded this step."""
    deadline = time.monotonic() + 20
    while job_of(database, job_id).step < step:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def in_thread(worker: Worker) -> threading.Thread:
    thread = threading.Thread(target=worker.run_next)
    thread.start()
    return thread


def test_a_run_to_its_end(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=8)
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert job.state == "succeeded"
    assert (job.step, job.total_steps, job.phase, job.attempt, job.lapses) == (8, 8, "export", 1, 0)
    assert job.latest == {"train_loss": 1 / 8, "learning_rate": 1e-3}
    assert job.result == {"chain": chain(8), "trained_tokens": 800}
    assert job.lease_owner is None
    assert job.lease_expires is None
    assert set(artifacts_of(database, job_id)) == {"model", "checkpoint", "receipt"}
    assert artifacts_of(database, job_id)["checkpoint"] == expected("checkpoint", 8)
    assert states_of(database, job_id) == ["queued", "running", "succeeded"]


def test_events_have_no_holes_and_metrics_no_doubles(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=8)
    worker_for(settings, database).run_next()
    with database.reading() as session:
        sequences = session.scalars(select(JobEvent.sequence).order_by(JobEvent.sequence)).all()
        points = session.execute(select(MetricPoint.name, MetricPoint.step)).all()
    assert list(sequences) == list(range(1, job_of(database, job_id).events + 1))
    assert sorted((name, step) for name, step in points) == sorted(
        (name, step) for name in ("train_loss", "learning_rate") for step in range(1, 9)
    )


def test_only_the_log_is_left_in_the_folder(settings: Settings, database: Database) -> None:
    job_id = put_job(database)
    worker_for(settings, database).run_next()
    folder = settings.data_dir / "runs" / job_id
    assert [entry.name for entry in folder.iterdir()] == ["log.txt"]
    assert "starting at step 0" in (folder / "log.txt").read_text()


def test_a_failure_that_the_engine_tells(settings: Settings, database: Database) -> None:
    problem = {"code": "diverged", "title": "t", "detail": "d", "remedy": "r", "errors": []}
    job_id = put_job(database, fail=problem)
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert job.state == "failed"
    assert job.error == problem
    assert job.attempt == 1


def test_missed_limits_keep_their_files(settings: Settings, database: Database) -> None:
    job_id = put_job(database, limit_missed=True)
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert (job.state, (job.error or {})["code"]) == ("failed", "limit_missed")
    assert set(artifacts_of(database, job_id)) == {"model", "checkpoint", "receipt"}


def test_refused_memory_is_told_as_such(settings: Settings, database: Database) -> None:
    job_id = put_job(database, crash={"at": 2, "how": "memory"})
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert (job.state, job.attempt, (job.error or {})["code"]) == ("failed", 1, "out_of_memory")


class FullFolder(FolderStorage):
    """A store that has no room for the first file."""

    full = True

    def save(self, path: Path, announce: Announce | None = None) -> Stored:
        """Refuse once."""
        if self.full:
            self.full = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().save(path, announce)


def test_a_full_store_fails_the_job_and_not_the_next(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=2)
    after = put_job(database, steps=2)
    worker = worker_for(settings, database)
    worker.storage = FullFolder(settings.data_dir / "objects")
    worker.run_next()
    job = job_of(database, job_id)
    assert (job.state, job.attempt, job.lapses, (job.error or {})["code"]) == ("failed", 1, 0, "disk_full")
    assert not artifacts_of(database, job_id)
    assert job_of(database, after).state == "succeeded"


def test_a_folder_that_cannot_be_made_fails_the_job(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: RunFolder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "prepare", full)
    job_id = put_job(database, steps=2)
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert (job.state, (job.error or {})["code"]) == ("failed", "disk_full")


def test_a_lost_process_goes_on_from_its_snapshot(settings: Settings, database: Database) -> None:
    job_id = put_job(database, crash={"at": 7, "how": "kill", "once": True})
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert (job.state, job.attempt, job.lapses) == ("succeeded", 2, 1)
    assert artifacts_of(database, job_id)["checkpoint"] == expected("checkpoint", 12)
    log = (settings.data_dir / "runs" / job_id / "log.txt").read_text()
    assert ", attempt 2 ---\nstarting at step 6" in log


def test_pause_and_resume(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=150)
    worker = worker_for(settings, database)
    running = in_thread(worker)
    when_step(database, job_id, 5)
    assert move(database, job_id, PAUSE)
    running.join()
    job = job_of(database, job_id)
    assert (job.state, job.lapses) == ("paused", 0)
    assert 5 <= job.step < 150
    assert move(database, job_id, RESUME)
    worker.run_next()
    assert job_of(database, job_id).state == "succeeded"
    assert artifacts_of(database, job_id)["model"] == expected("model", 150)
    assert states_of(database, job_id)[2:] == ["pausing", "paused", "queued", "running", "succeeded"]


def test_a_stubborn_engine_is_killed_after_the_grace(tmp_path: Path, settings: Settings, database: Database) -> None:
    quick = settings.model_copy(update={"stop_grace_seconds": 0.3})
    job_id = put_job(database, steps=500, stubborn=True)
    running = in_thread(worker_for(quick, database))
    when_step(database, job_id, 3)
    assert move(database, job_id, PAUSE)
    running.join()
    assert job_of(database, job_id).state == "paused"
    assert (tmp_path / "runs" / job_id / "checkpoints").is_dir()


def test_cancel_kills_the_whole_group(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=500, grandchild=True)
    running = in_thread(worker_for(settings, database))
    when_step(database, job_id, 3)
    grandchild = int((settings.data_dir / "runs" / job_id / "grandchild.txt").read_text())
    assert move(database, job_id, CANCEL_RUN)
    running.join()
    assert job_of(database, job_id).state == "cancelled"
    assert not artifacts_of(database, job_id)
    status = Path(f"/proc/{grandchild}/status")
    assert not status.exists() or "Z (zombie)" in status.read_text()


def test_a_worker_that_leaves_hands_the_job_back(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=60)
    worker = worker_for(settings, database)
    running = in_thread(worker)
    when_step(database, job_id, 5)
    worker.stopping.set()
    running.join()
    job = job_of(database, job_id)
    assert (job.state, job.lapses, job.lease_owner) == ("queued", 0, None)
    worker_for(settings, database).run_next()
    assert artifacts_of(database, job_id)["checkpoint"] == expected("checkpoint", 60)


def test_a_fenced_run_stops_and_writes_nothing(settings: Settings, database: Database) -> None:
    job_id = put_job(database, steps=500)
    running = in_thread(worker_for(settings, database))
    when_step(database, job_id, 3)
    with database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.attempt += 1
    running.join()
    job = job_of(database, job_id)
    assert (job.state, job.attempt) == ("running", 2)
    assert not artifacts_of(database, job_id)


def test_the_threads_of_the_first_claim_stay(settings: Settings, database: Database) -> None:
    job_id = put_job(database, crash={"at": 2, "how": "kill"})
    first = settings.model_copy(update={"threads_per_job": 3})
    worker = worker_for(first, database)
    run = lifecycle.claim(database, "o", 60, 3)
    assert run is not None
    assert worker.execute(run) is State.QUEUED
    again = lifecycle.claim(database, "o", 60, 1)
    assert again is not None
    assert again.threads == 3
    assert "threads=3" in (settings.data_dir / "runs" / job_id / "starts.txt").read_text()


def test_a_claim_wakes_the_next_worker(settings: Settings, database: Database) -> None:
    for _ in range(3):
        put_job(database, steps=1)
    worker = worker_for(settings, database)
    worker.run_next()
    assert isinstance(worker.bell, SilentBell)
    assert worker.bell.rings == 2


def test_data_that_is_gone_fails_the_job(settings: Settings, database: Database) -> None:
    job_id = put_job(database)
    with database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.inputs = {"ds_1": "sha256/ab/" + "ab" * 32}
    worker_for(settings, database).run_next()
    assert (job_of(database, job_id).error or {})["code"] == "invalid_data"


def test_the_spec_names_files_by_data_set(settings: Settings, database: Database) -> None:
    job_id = put_job(database, crash={"at": 0, "how": "kill"})
    worker = worker_for(settings, database)
    source = settings.data_dir / "rows"
    source.write_bytes(b"rows")
    stored = worker.storage.save(source)
    with database.session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.inputs = {"ds_1": stored.key}
        job.spec = {**job.spec, "dataset": {"train": "ds_1", "valid": None, "test": "ds_1"}}
    run = lifecycle.claim(database, "o", 60, 1)
    assert run is not None
    worker.execute(run)
    spec = json.loads((settings.data_dir / "runs" / job_id / "job.json").read_text())
    assert spec["dataset"]["valid"] is None
    assert Path(spec["dataset"]["train"]).name == "ds_1.parquet"
    assert Path(spec["dataset"]["train"]).read_bytes() == b"rows"


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_job_that_kills_itself_fails_at_the_last_lapse(settings: Settings, database: Database, how: str) -> None:
    job_id = put_job(database, sleep=0, crash={"at": 1, "how": how})
    after = put_job(database, steps=1)
    worker_for(settings, database).run_next()
    job = job_of(database, job_id)
    assert (job.state, job.attempt, job.lapses) == ("failed", 5, 5)
    assert (job.error or {})["code"] == "worker_lost"
    assert job_of(database, after).state == "succeeded"
