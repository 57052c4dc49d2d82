"""Where files live for good: a folder, or an S3 bucket. A key is the content's hash, so a retry overwrites nothing.

Knows nothing of data sets, artifacts or tenants: who may see a file is decided by the row that names its key.
"""

import contextlib
import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.settings import Settings

CHUNK_BYTES = 1 << 20
MAPPED_BYTES = 4 << 20
_MADV_POPULATE_READ = 22  # Linux 5.14; Python does not name it yet
ABSENT = ("NoSuchKey", "NotFound", "404")
KEY = re.compile(r"sha256/[0-9a-f]{2}/[0-9a-f]{64}")


@dataclass(frozen=True)
class Stored:
    """A file that is stored whole: its key, its content's sha256 in hex and its size."""

    key: str
    sha256: str
    size_bytes: int


Announce = Callable[[Stored], None]
"""Hears of a file before it is stored; if it raises, nothing is."""


class StoreDown(OSError):
    """The store does not answer, or says that it cannot serve now."""


class Storage(Protocol):
    """A store of whole files under content keys. A key that is not there raises FileNotFoundError.

    `scratch` is a folder of this machine for copies: the system's own may be memory, and no data set must fill that.
    """

    scratch: Path

    def save(self, path: Path, announce: Announce | None = None) -> Stored:
        """Store a copy of the file at `path`; it is there whole when this returns."""

    def fetch(self, key: str, to: Path) -> None:
        """Copy the file to the path `to`, which appears whole or not at all; raises OSError if its bytes changed."""

    def delete(self, key: str) -> None:
        """Erase the file; nothing happens if it is not there."""

    def open(self, key: str, start: int, length: int) -> Iterator[bytes | memoryview]:
        """The bytes [start, start + length) in chunks of at most 4 MiB."""

    def has(self, key: str) -> bool:
        """Whether the file is there."""

    def size(self, key: str) -> int:
        """How many bytes the file has."""

    def local_path(self, key: str) -> Path | None:
        """The file's path where the store is a folder of this machine, else None."""

    def check(self) -> None:
        """Raise OSError where the store cannot be used now."""


def storage_for(settings: Settings) -> Storage:
    """The store that the settings name."""
    if settings.storage_url is None:
        return FolderStorage(settings.data_dir / "objects")
    url = urlsplit(settings.storage_url)
    if url.scheme != "s3" or not url.netloc:
        raise ValueError(f"FIFTYTWO_STORAGE_URL is {settings.storage_url!r}: write s3://bucket/prefix")
    return S3Storage(url.netloc, url.path.strip("/"), settings.storage_endpoint, settings.data_dir)


class FolderStorage:
    """Files in a folder: written beside their place, synced, then renamed into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = self.scratch = folder

    def save(self, path: Path, announce: Announce | None = None) -> Stored:
        """Copy, sync and rename; the same bytes take the place of a file that is already there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".incoming-")
        temporary = Path(name)
        try:
            with open(descriptor, "wb") as target, path.open("rb") as source:
                digest, size = _copy(source, target)
                target.flush()
                os.fsync(target.fileno())
            stored = Stored(_key(digest), digest, size)
            if announce is not None:
                announce(stored)
            place = self._path(stored.key)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, place)
            for folder in (place.parent, place.parent.parent, self.folder):
                _sync_folder(folder)
            return stored
        finally:
            temporary.unlink(missing_ok=True)

    def fetch(self, key: str, to: Path) -> None:
        """Copy the file out and hold its bytes against its key."""
        with self._path(key).open("rb") as source:
            _receive(iter(lambda: source.read(CHUNK_BYTES), b""), key, to)

    def delete(self, key: str) -> None:
        """Erase the file."""
        self._path(key).unlink(missing_ok=True)

    def open(self, key: str, start: int, length: int) -> Iterator[bytes | memoryview]:
        """Map a span of the file: what is sent goes from the page cache to the socket, without a copy between.

        A stored file is never cut short, only unlinked, so its pages stay as long as they are mapped.
        """
        if length <= 0:
            return
        with self._path(key).open("rb") as source:
            mapped = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        whole, stop = memoryview(mapped), min(start + length, len(mapped))
        for first in range(start, stop, MAPPED_BYTES):
            last = min(first + MAPPED_BYTES, stop)
            page = first - first % mmap.PAGESIZE
            with contextlib.suppress(OSError, AttributeError):  # older kernels read each page when it is sent
                # Read here, in a thread, and not in the loop that sends.
                mapped.madvise(_MADV_POPULATE_READ, page, last - page)
            yield whole[first:last]

    def has(self, key: str) -> bool:
        """Whether the file is there."""
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        """What the file system says of it."""
        return self._path(key).stat().st_size

    def local_path(self, key: str) -> Path | None:
        """The file's place."""
        return self._path(key)

    def check(self) -> None:
        """Write and erase an empty file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def _path(self, key: str) -> Path:
        return self.folder / _checked(key)


class S3Storage:
    """Files in an S3 bucket; credentials come from the usual AWS variables."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None = None, scratch: Path | None = None) -> None:
        self.scratch = scratch or Path(tempfile.gettempdir())
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        config = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 3, "mode": "standard"})
        self.client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)

    def save(self, path: Path, announce: Announce | None = None) -> Stored:
        """Upload; S3 shows an object only when it is whole."""
        with path.open("rb") as source:
            digest, size = _copy(source, None)
        stored = Stored(_key(digest), digest, size)
        if announce is not None:
            announce(stored)
        with _as_of_files(stored.key):
            self.client.upload_file(str(path), self.bucket, self._name(stored.key))
        return stored

    def fetch(self, key: str, to: Path) -> None:
        """Download and hold the bytes against the key."""
        _receive(self._chunks(key, {}), key, to)

    def delete(self, key: str) -> None:
        """Erase the object."""
        with _as_of_files(key):
            self.client.delete_object(Bucket=self.bucket, Key=self._name(key))

    def open(self, key: str, start: int, length: int) -> Iterator[bytes | memoryview]:
        """Read a span of the object."""
        return self._chunks(key, {"Range": f"bytes={start}-{start + length - 1}"}) if length > 0 else iter(())

    def has(self, key: str) -> bool:
        """Whether the object is there."""
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def size(self, key: str) -> int:
        """What the store says of the object."""
        with _as_of_files(key):
            return int(self.client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"])

    def local_path(self, key: str) -> Path | None:
        """None: the file is not on this machine."""
        _checked(key)
        return None

    def check(self) -> None:
        """Ask for the bucket."""
        with _as_of_files(f"bucket {self.bucket}"):
            self.client.head_bucket(Bucket=self.bucket)

    def _chunks(self, key: str, options: dict[str, str]) -> Iterator[bytes]:
        wanted = {"Bucket": self.bucket, "Key": self._name(key), **options}
        with _as_of_files(key), self.client.get_object(**wanted)["Body"] as body:
            yield from iter(lambda: body.read(CHUNK_BYTES), b"")

    def _name(self, key: str) -> str:
        return self.prefix + _checked(key)


@contextlib.contextmanager
def _as_of_files(what: str) -> Iterator[None]:
    """Turns the errors of the store's client into those of files."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ABSENT:
            raise FileNotFoundError(what) from error
        down = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
        raise (StoreDown if down else OSError)(f"{what}: {error}") from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreDown(f"{what}: {error}") from error


def _key(digest: str) -> str:
    return f"sha256/{digest[:2]}/{digest}"


def _checked(key: str) -> str:
    """Keys come from the database; one that is no content key would be a path of somebody's making."""
    if not KEY.fullmatch(key):
        raise ValueError("not a storage key")
    return key


def _copy(source: Any, target: Any) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def _receive(chunks: Iterator[bytes], key: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor, name = tempfile.mkstemp(dir=to.parent, prefix=".incoming-")
    temporary = Path(name)
    try:
        with open(descriptor, "wb") as target:
            for chunk in chunks:
                digest.update(chunk)
                target.write(chunk)
        if _key(digest.hexdigest()) != key:
            raise OSError(f"{key} does not hold the bytes it was stored with")
        os.replace(temporary, to)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # As `engine.disk` has it, which the worker may not import, not even by way of this module.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
