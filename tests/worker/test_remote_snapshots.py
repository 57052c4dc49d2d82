"""Snapshots in a bucket: another machine goes on from them, and what nothing names any more is erased."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from sqlalchemy import select

from app.database import Database
from app.identity import Identity
from app.jobs import lifecycle, service
from app.jobs.models import Job, JobSnapshot
from app.jobs.states import State
from app.settings import Settings
from app.storage import storage_for
from migrations.tables import METADATA
from tests.bucket import Bucket, stand_in
from tests.service import artifacts_of, awaiting_erasure, job_of, let_fall_due, put_job, settings_for, worker_for

LOST_AT_10: dict[str, Any] = {
    "steps": 12,
    "sleep": 0.05,
    "checkpoint_every": 3,
    "crash": {"at": 10, "how": "kill", "once": True},
}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The one bucket of all machines."""
    return stand_in(monkeypatch, Bucket())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine whose storage is the bucket."""
    return settings_for(tmp_path, storage_url="s3://bucket")


def run_once(settings: Settings, database: Database) -> State | None:
    run = lifecycle.claim(database, "test", 60, 1)
    assert run is not None
    return worker_for(settings, database).execute(run)


def recorded(database: Database, job_id: str) -> dict[int, str]:
    """Key by step of the snapshots on record."""
    with database.reading() as session:
        rows = session.scalars(select(JobSnapshot).where(JobSnapshot.job_id == job_id)).all()
    return {row.step: row.storage_key for row in rows}


def test_another_machine_goes_on_from_the_newest(
    settings: Settings, database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    job_id = put_job(database, **LOST_AT_10)
    assert run_once(settings, database) is State.QUEUED
    on_record = recorded(database, job_id)
    assert sorted(on_record) == [6, 9]
    assert set(bucket.objects) == set(on_record.values())

    other = settings_for(tmp_path / "other", storage_url="s3://bucket")
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.spec = {**job.spec, "stand_in": {**LOST_AT_10, "crash": None}}
    assert run_once(other, database) is State.SUCCEEDED
    assert "starting at step 9" in (other.data_dir / "runs" / job_id / "log.txt").read_text()
    assert recorded(database, job_id) == {}
    kept = {f"sha256/{sha256[:2]}/{sha256}" for sha256 in artifacts_of(database, job_id).values()}
    assert set(bucket.objects) == kept | {job_of(database, job_id).log_key}


def test_a_snapshot_that_another_job_names_stays(settings: Settings, database: Database, bucket: Bucket) -> None:
    """The stand-in's snapshots depend on the step alone, so those of two jobs are equal."""
    waiting = put_job(database, **LOST_AT_10)
    assert run_once(settings, database) is State.QUEUED
    with database.session() as session:
        session.get_one(Job, waiting).state = State.PAUSED
    put_job(database, steps=12, checkpoint_every=3)
    assert run_once(settings, database) is State.SUCCEEDED
    assert sorted(recorded(database, waiting)) == [6, 9]
    assert set(recorded(database, waiting).values()) <= set(bucket.objects)


def test_nothing_is_erased_before_newer_ones_are_on_record(
    settings: Settings, database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    erase, newer = bucket.delete_object, []
    job_id = put_job(database, **LOST_AT_10)

    def watched(**wanted: str) -> None:
        on_record = recorded(database, job_id).values()
        assert wanted["Key"] not in on_record
        newer.append(len(on_record))
        erase(**wanted)

    monkeypatch.setattr(bucket, "delete_object", watched)
    assert run_once(settings, database) is State.QUEUED
    assert newer
    assert min(newer) >= 2


def test_erasing_a_job_erases_its_snapshots(settings: Settings, database: Database, bucket: Bucket) -> None:
    job_id = put_job(database, **LOST_AT_10)
    assert run_once(settings, database) is State.QUEUED
    with database.session() as session:
        session.get_one(Job, job_id).state = State.CANCELLED
    assert bucket.objects
    with database.session() as session:
        keys = service.delete(session, Identity("default", "key_1", "member"), job_id)
    assert recorded(database, job_id) == {}
    assert set(bucket.objects) == set(keys) == awaiting_erasure(database), "a crash now would lose no name"
    lifecycle.erase_due(database, storage_for(settings))
    assert bucket.objects == {}
    assert awaiting_erasure(database) == set()


def test_a_store_that_will_not_erase_harms_no_run(
    settings: Settings, database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_wanted: str) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "DeleteObject")

    job_id = put_job(database, **LOST_AT_10)
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "delete_object", refuse)
        assert run_once(settings, database) is State.QUEUED
    assert sorted(recorded(database, job_id)) == [6, 9]
    assert set(bucket.objects) == set(recorded(database, job_id).values()) | awaiting_erasure(database)
    assert len(bucket.objects) == 3, "what could not be erased still has a name"
    assert run_once(settings, database) is State.SUCCEEDED
    assert recorded(database, job_id) == {}
    let_fall_due(database)
    lifecycle.erase_due(database, storage_for(settings))
    assert len(bucket.objects) == 4, "three outputs and the log"


def test_a_worker_knows_every_table_that_names_files() -> None:
    code = (
        "import worker.tasks; from app.database import Base;"
        "from app.erasure import NAMING; tables = Base.metadata.tables.values();"
        "print(*sorted(table.name for table in tables for name in NAMING if name in table.c))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    columns = [column for table in METADATA.tables.values() for column in table.c if column.name.endswith("_key")]
    assert shown.stdout.split() == sorted(column.table.name for column in columns)
    assert {"datasets.storage_key", "jobs.log_key"} <= {str(column) for column in columns}


def test_the_last_recorded_stay_and_no_file_loses_its_name(
    settings: Settings, database: Database, bucket: Bucket, tmp_path: Path
) -> None:
    """A step twice with other bytes, then a run that began further back: neither is forgotten, the latter is newest."""
    job_id = put_job(database)
    run = lifecycle.claim(database, "test", 60, 1)
    assert run is not None
    storage = storage_for(settings)
    with lifecycle.storing(database, storage, run.owner) as store:
        for number, step in enumerate((200, 300, 300, 50), 1):
            file = tmp_path / f"snapshot-{number}"
            file.write_text(f"bytes {number}")
            stored = store(file)
            snapshot = lifecycle.Snapshot(step, file.name, stored.sha256, stored.key)
            batch = lifecycle.Batch(number=number, snapshots=(snapshot,))
            for _ in range(2):
                lifecycle.record(database, run, batch)
    assert len(bucket.objects) == 4
    with database.reading() as session:
        assert len(session.scalars(select(JobSnapshot)).all()) == 4, "a repeated batch is written once"
    lifecycle.drop_snapshots(database, storage, job_id, keep=2)
    assert sorted(recorded(database, job_id)) == [50, 300]
    assert set(bucket.objects) == set(recorded(database, job_id).values())
    lifecycle.drop_snapshots(database, storage, job_id, keep=0)
    assert not bucket.objects
