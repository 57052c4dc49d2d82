"""Files are stored whole under their content's hash, in a folder and in S3 alike."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from app.incoming import at_hand
from app.settings import Settings
from app.storage import FolderStorage, S3Storage, Storage, Stored, StoreDown, storage_for
from tests.bucket import AwayBucket, Bucket, stand_in

CONTENT = b"the bytes" * 300_000


def folder(tmp_path: Path) -> Storage:
    return FolderStorage(tmp_path / "objects")


def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    stand_in(monkeypatch, Bucket())
    return storage_for(Settings(data_dir=tmp_path, storage_url="s3://bucket/some/prefix"))


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage of each kind."""
    makers: dict[str, Callable[[], Storage]] = {
        "folder": lambda: folder(tmp_path),
        "bucket": lambda: bucket(tmp_path, monkeypatch),
    }
    return makers[request.param]()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to store."""
    (tmp_path / "file").write_bytes(CONTENT)
    return tmp_path / "file"


def test_a_file_comes_back_as_it_was(storage: Storage, file: Path, tmp_path: Path) -> None:
    stored = storage.save(file)

    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (stored.key, stored.sha256, stored.size_bytes) == (f"sha256/{digest[:2]}/{digest}", digest, len(CONTENT))
    assert storage.save(file) == stored
    storage.fetch(stored.key, tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == CONTENT
    assert b"".join(storage.open(stored.key, 5, 2_000_000)) == CONTENT[5:2_000_005]
    assert b"".join(storage.open(stored.key, 5, 0)) == b""
    assert storage.size(stored.key) == len(CONTENT)


def test_a_file_is_announced_before_it_is_there(storage: Storage, file: Path) -> None:
    there: list[bool] = []
    stored = storage.save(file, lambda announced: there.append(storage.has(announced.key)))
    assert there == [False]
    assert storage.has(stored.key)


def test_a_file_whose_announcement_fails_is_not_stored(storage: Storage, file: Path) -> None:
    told: list[str] = []

    def refuse(announced: Stored) -> None:
        told.append(announced.key)
        raise RuntimeError("nobody listens")

    with pytest.raises(RuntimeError, match="nobody listens"):
        storage.save(file, refuse)
    assert not storage.has(told[0])


def test_a_deleted_file_is_gone(storage: Storage, file: Path, tmp_path: Path) -> None:
    stored = storage.save(file)
    assert storage.has(stored.key)
    storage.delete(stored.key)
    storage.delete(stored.key)

    assert not storage.has(stored.key)
    with pytest.raises(FileNotFoundError):
        storage.fetch(stored.key, tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        storage.size(stored.key)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "/etc/passwd", "sha256/../" + "a" * 64, "sha256/aa/" + "A" * 64, ""]
)
def test_only_content_keys_are_keys(storage: Storage, key: str, tmp_path: Path) -> None:
    for use in (
        storage.delete,
        storage.local_path,
        storage.has,
        storage.size,
        lambda it: storage.fetch(it, tmp_path / "copy"),
    ):
        with pytest.raises(ValueError, match="storage key"):
            use(key)


def test_changed_bytes_are_noticed_and_leave_nothing(tmp_path: Path, file: Path) -> None:
    store = FolderStorage(tmp_path / "objects")
    key = store.save(file).key
    (tmp_path / "objects" / key).write_bytes(b"other")

    with pytest.raises(OSError, match="does not hold the bytes"):
        store.fetch(key, tmp_path / "copies" / "copy")
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_failed_save_leaves_no_file(tmp_path: Path) -> None:
    store = FolderStorage(tmp_path / "objects")
    with pytest.raises(FileNotFoundError):
        store.save(tmp_path / "absent")
    assert list((tmp_path / "objects").iterdir()) == []


def test_checks_tell_a_store_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Bucket())
    S3Storage("bucket", "").check()
    with pytest.raises(OSError, match="bucket other"):
        S3Storage("other", "").check()
    (tmp_path / "objects").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="exists"):
        FolderStorage(tmp_path / "objects").check()


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://minio:9000"),
        ReadTimeoutError(endpoint_url="http://minio:9000"),
        S3UploadFailedError("Failed to upload"),
        ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject"),
    ],
)
def test_a_bucket_that_is_not_reached_is_an_error_of_files(
    error: Exception, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, AwayBucket(error))
    store, key = S3Storage("bucket", ""), "sha256/aa/" + "a" * 64
    for use in (
        store.check,
        lambda: store.save(file),
        lambda: store.has(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.fetch(key, tmp_path / "copy"),
        lambda: b"".join(store.open(key, 0, 5)),
    ):
        with pytest.raises(StoreDown):
            use()
    assert not (tmp_path / "copy").exists()


def test_a_bucket_that_breaks_off_is_an_error_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise ReadTimeoutError(endpoint_url="http://minio:9000")

    bucket = stand_in(monkeypatch, Bucket())
    monkeypatch.setattr(bucket, "get_object", lambda **_: {"Body": Broken()})
    with pytest.raises(StoreDown):
        S3Storage("bucket", "").fetch("sha256/aa/" + "a" * 64, tmp_path / "copy")


def test_a_copy_of_a_bucket_lies_in_the_data_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of the system is memory in a container, and data sets are large."""
    stand_in(monkeypatch, Bucket())
    store = storage_for(Settings(data_dir=tmp_path / "data", storage_url="s3://bucket"))
    with at_hand(store, store.save(file).key, "rows.parquet") as path:
        assert path.read_bytes() == file.read_bytes()
        assert path.is_relative_to(tmp_path / "data" / "incoming")
    assert not path.exists()


def test_an_address_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        storage_for(Settings(data_dir=tmp_path, storage_url="ftp://x/y"))
