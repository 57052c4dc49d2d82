"""No stored file without a name on record, and no named file erased: on SQLite and on Postgres, whatever happens."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from app.database import Database
from app.erasure import erase, erase_due, keep, keep_all, storing, unname
from app.jobs.models import Job
from app.storage import S3Storage
from tests.app.names import drop_names, files, name, named_file
from tests.bucket import Bucket, stand_in
from tests.service import Crash, awaiting_erasure, let_fall_due, put_job


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """What the storage keeps its files in."""
    return stand_in(monkeypatch, Bucket())


@pytest.fixture
def storage(bucket: Bucket) -> S3Storage:
    """A remote store."""
    return S3Storage("bucket", "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    return path


def test_a_kept_file_stays_and_leaves_no_entry(database: Database, storage: S3Storage, file: Path) -> None:
    stored = named_file(database, storage, file)
    assert files(storage) == {stored.key}
    assert awaiting_erasure(database) == set()


def test_a_file_that_is_not_kept_is_erased(database: Database, storage: S3Storage, file: Path) -> None:
    with storing(database, storage, "one") as store:
        store(file)
        assert len(files(storage)) == 1
    assert files(storage) == awaiting_erasure(database) == set()


@pytest.mark.parametrize("error", [Crash, OSError])
def test_a_crash_at_any_moment_of_storing_leaves_a_name(
    database: Database,
    storage: S3Storage,
    bucket: Bucket,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    """So does an upload of which the end is not known: the store may have it all the same."""
    upload, on_record = bucket.upload_file, []

    def crash(path: str, to: str, key: str) -> None:
        on_record.append(key in awaiting_erasure(database))
        upload(path, to, key)
        on_record.append(key in awaiting_erasure(database))
        raise error

    monkeypatch.setattr(bucket, "upload_file", crash)
    with pytest.raises(error), storing(database, storage, "one") as store:
        store(file)
    assert on_record == [True, True]
    erase_due(database, storage)
    assert len(files(storage)) == 1, "it may still be under way"
    let_fall_due(database)
    erase_due(database, storage)
    assert files(storage) == awaiting_erasure(database) == set()


def test_a_crash_before_the_erasure_leaves_a_name(database: Database, storage: S3Storage, file: Path) -> None:
    stored = named_file(database, storage, file)
    assert drop_names(database) == [stored.key]
    assert files(storage) == awaiting_erasure(database) == {stored.key}
    erase_due(database, storage)
    assert files(storage) == awaiting_erasure(database) == set()


@pytest.mark.parametrize("erased", [False, True], ids=["before", "after"])
def test_a_crash_at_the_erasure_leaves_a_name(
    database: Database, storage: S3Storage, bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch, erased: bool
) -> None:
    stored = named_file(database, storage, file)
    keys = drop_names(database)
    forget = bucket.delete_object

    def dead() -> None:
        raise Crash

    with monkeypatch.context() as patch:

        def crash(**wanted: str) -> None:
            if erased:
                forget(**wanted)
            patch.setattr(database, "session", dead)
            raise Crash

        patch.setattr(bucket, "delete_object", crash)
        with pytest.raises(Crash):
            erase(database, storage, keys)
    assert awaiting_erasure(database) == {stored.key}
    erase_due(database, storage)
    assert awaiting_erasure(database) == {stored.key}, "who began may still be at it"
    let_fall_due(database)
    erase_due(database, storage)
    assert files(storage) == awaiting_erasure(database) == set()


def test_a_file_that_another_row_names_stays(database: Database, storage: S3Storage, file: Path) -> None:
    stored = named_file(database, storage, file)
    with storing(database, storage, "two") as store:
        store(file)
    assert files(storage) == {stored.key}
    with database.session() as session:
        unname(session, [stored.key])
    erase(database, storage, [stored.key])
    assert files(storage) == {stored.key}
    assert awaiting_erasure(database) == set(), "the row is its name"


def test_a_log_that_a_job_names_stays(database: Database, storage: S3Storage, file: Path) -> None:
    job_id = put_job(database)
    with storing(database, storage, "one") as store:
        stored = store(file)
        with database.session() as session:
            session.execute(update(Job).where(Job.id == job_id).values(log_key=stored.key))
    assert files(storage) == {stored.key}


def test_a_file_that_is_being_stored_again_stays(database: Database, storage: S3Storage, file: Path) -> None:
    """Its last name goes between the upload of an equal file and the row of that."""
    stored = named_file(database, storage, file)
    with storing(database, storage, "two") as store:
        store(file)
        erase(database, storage, drop_names(database))
        assert files(storage) == {stored.key}
        name(database, stored, "two")
    assert files(storage) == {stored.key}
    erase_due(database, storage)
    assert awaiting_erasure(database) == set()
    assert files(storage) == {stored.key}


def test_two_that_store_equal_files_have_an_entry_each(database: Database, storage: S3Storage, file: Path) -> None:
    with storing(database, storage, "one") as store, storing(database, storage, "two") as store_too:
        stored = store(file)
        store_too(file)
        name(database, stored, "one")
        erase(database, storage, drop_names(database))
        assert files(storage) == {stored.key}
        name(database, stored, "two")
    assert files(storage) == {stored.key}


def test_a_file_is_not_stored_while_an_equal_one_is_being_erased(
    database: Database, storage: S3Storage, bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the erasure would take the new one too."""
    stored = named_file(database, storage, file)
    keys = drop_names(database)
    began, waited, order = threading.Event(), threading.Event(), []
    forget, upload, sleep = bucket.delete_object, bucket.upload_file, time.sleep

    def slowly(**wanted: str) -> None:
        began.set()
        assert waited.wait(20)
        order.append("erased")
        forget(**wanted)

    def watched(path: str, to: str, key: str) -> None:
        order.append("stored")
        waited.set()
        upload(path, to, key)

    def wait(seconds: float) -> None:
        waited.set()
        sleep(seconds)

    monkeypatch.setattr(bucket, "delete_object", slowly)
    monkeypatch.setattr(bucket, "upload_file", watched)
    monkeypatch.setattr("app.erasure.time.sleep", wait)
    thread = threading.Thread(target=erase, args=(database, storage, keys))
    thread.start()
    assert began.wait(20)
    named_file(database, storage, file)
    thread.join()
    assert order == ["erased", "stored"]
    assert files(storage) == {stored.key}
    assert awaiting_erasure(database) == set()


def test_a_file_that_was_erased_cannot_be_kept(database: Database, storage: S3Storage, file: Path) -> None:
    with storing(database, storage, "one") as store:
        stored = store(file)
        let_fall_due(database)
        erase_due(database, storage)
        assert files(storage) == set()
        with database.session() as session:
            assert keep(session, "one", [stored.key]) == set()
        with pytest.raises(FileNotFoundError, match=stored.key), database.session() as session:
            keep_all(session, "one", [stored.key])


def test_a_file_whose_erasure_has_begun_cannot_be_kept(
    database: Database, storage: S3Storage, bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[set[str]] = []

    def meanwhile(**wanted: str) -> None:
        with database.session() as session:
            kept.append(keep(session, "one", [wanted["Key"]]))

    monkeypatch.setattr(bucket, "delete_object", meanwhile)
    with storing(database, storage, "one") as store:
        store(file)
        let_fall_due(database)
        erase_due(database, storage)
    assert kept == [set()]


def test_what_the_store_will_not_erase_is_tried_again_and_holds_up_no_other(
    database: Database, storage: S3Storage, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_text(path.name)
    path_of = {named_file(database, storage, path).key: path for path in paths}
    refused = min(path_of)
    forget = bucket.delete_object

    def refuse(**wanted: str) -> None:
        tried.append(wanted["Key"])
        if wanted["Key"] == refused:
            raise OSError("AccessDenied")
        forget(**wanted)

    keys = drop_names(database)
    with monkeypatch.context() as patch:
        patch.setattr(bucket, "delete_object", refuse)
        erase(database, storage, keys)
        assert tried == [refused], "the store may be away, and each try takes its time"
        erase_due(database, storage)
        assert tried == sorted(keys), "not that one again at once"
    assert files(storage) == awaiting_erasure(database) == {refused}
    named_file(database, storage, path_of[refused])
    let_fall_due(database)
    erase_due(database, storage)
    assert files(storage) == {refused}, "a failed erasure keeps nobody from storing the file again"
    assert awaiting_erasure(database) == set()


def test_a_file_that_is_not_to_be_erased_yet_holds_up_no_other(
    database: Database, storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.erasure.DUE_AT_A_TIME", 1)
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_text(path.name)
    stored = named_file(database, storage, first)
    drop_names(database)
    with storing(database, storage, "two") as store:
        store(first)
        named_file(database, storage, second)
        drop_names(database)
        erase_due(database, storage)
        assert files(storage) == {stored.key}


def test_a_file_without_an_entry_is_not_erased(database: Database, storage: S3Storage, file: Path) -> None:
    stored = storage.save(file)
    erase(database, storage, [stored.key])
    assert files(storage) == {stored.key}
    assert awaiting_erasure(database) == set()
