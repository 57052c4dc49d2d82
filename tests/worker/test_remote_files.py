"""A run's files in a bucket: each has a name from before it is there, and nobody's write waits for the bucket."""

from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.artifacts.models import Artifact
from app.database import Database
from app.jobs import lifecycle
from app.jobs.lifecycle import Run
from app.jobs.models import Job, JobSnapshot
from app.jobs.states import CANCEL_RUN, State
from app.settings import Settings
from tests.bucket import Bucket, SlowBucket, stand_in
from tests.service import Crash, awaiting_erasure, claimed, job_of, owner_moves, put_job, settings_for, worker_for


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine whose storage is the bucket."""
    return settings_for(tmp_path, storage_url="s3://bucket")


@pytest.fixture
def bucket(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SlowBucket:
    """The bucket."""
    return stand_in(monkeypatch, SlowBucket(settings.data_dir / "fiftytwo.db"))


def names(database: Database) -> set[str]:
    """Every key that is on record: of snapshots, artifacts and logs, and of what is to be erased."""
    with database.reading() as session:
        found = {
            key for column in (JobSnapshot.storage_key, Artifact.storage_key) for key in session.scalars(select(column))
        }
        found |= {key for key in session.scalars(select(Job.log_key)) if key is not None}
    return found | awaiting_erasure(database)


def watch_names(database: Database, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys, as they come, of files that had no name when they were stored."""
    nameless: list[str] = []
    upload = bucket.upload_file

    def watched(path: str, to: str, key: str) -> None:
        if key not in names(database):
            nameless.append(key)
        upload(path, to, key)

    monkeypatch.setattr(bucket, "upload_file", watched)
    return nameless


def fence_off(database: Database, run: Run) -> None:
    """Let another worker have the job, as if the lease had lapsed."""
    with database.session() as session:
        session.execute(update(Job).where(Job.id == run.job_id).values(attempt=Job.attempt + 1))


def test_no_write_waits_for_a_slow_store_and_no_file_is_nameless(
    settings: Settings, database: Database, bucket: SlowBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = watch_names(database, bucket, monkeypatch)
    job_id = put_job(database, steps=12, checkpoint_every=3, sleep=0.05)
    assert worker_for(settings, database).execute(claimed(database)) is State.SUCCEEDED
    assert {"upload_file", "delete_object"} <= set(bucket.calls)
    assert bucket.in_the_way == []
    assert nameless == []
    assert set(bucket.objects) == names(database)
    assert awaiting_erasure(database) == set()
    assert job_of(database, job_id).log_key in bucket.objects


@pytest.mark.parametrize("upload", range(1, 9), ids=lambda upload: f"at upload {upload}")
def test_a_run_that_is_fenced_off_leaves_no_file(
    settings: Settings, database: Database, bucket: SlowBucket, monkeypatch: pytest.MonkeyPatch, upload: int
) -> None:
    """Four snapshots, three outputs, the log: at each the lease may be lost."""
    put_job(database, steps=12, checkpoint_every=3)
    run = claimed(database)
    store, stored = bucket.upload_file, []

    def lose_the_lease(path: str, to: str, key: str) -> None:
        store(path, to, key)
        stored.append(key)
        if len(stored) == upload:
            fence_off(database, run)

    monkeypatch.setattr(bucket, "upload_file", lose_the_lease)
    nameless = watch_names(database, bucket, monkeypatch)
    assert worker_for(settings, database).execute(run) is None
    assert len(stored) >= upload
    assert nameless == []
    with database.reading() as session:
        recorded = set(session.scalars(select(JobSnapshot.storage_key)))
        assert session.scalars(select(Artifact)).all() == []
    assert set(bucket.objects) == recorded
    assert awaiting_erasure(database) == set()


def test_a_run_that_is_cancelled_at_its_end_leaves_no_file(
    settings: Settings, database: Database, bucket: SlowBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put_job(database, steps=2, checkpoint_every=100)
    store = bucket.upload_file

    def cancel(path: str, to: str, key: str) -> None:
        store(path, to, key)
        owner_moves(database, job_id, CANCEL_RUN)

    monkeypatch.setattr(bucket, "upload_file", cancel)
    assert worker_for(settings, database).execute(claimed(database)) is State.CANCELLED
    assert bucket.calls.count("upload_file") > 1
    assert bucket.objects == {}
    assert awaiting_erasure(database) == set()


def test_a_crash_between_commit_and_erasure_loses_no_name(
    settings: Settings, database: Database, bucket: SlowBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Crash

    put_job(database, steps=12, checkpoint_every=3)
    worker = worker_for(settings, database)
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "erase", crash)
        with pytest.raises(Crash):
            worker.execute(claimed(database))
    assert set(bucket.objects) <= names(database)
    assert awaiting_erasure(database)
    lifecycle.erase_due(database, worker.storage)
    assert set(bucket.objects) == names(database)
    assert awaiting_erasure(database) == set()
