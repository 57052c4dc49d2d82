"""Stands in for an S3 bucket: the few calls of boto3's client that the storage makes, kept in memory."""

import io
import sqlite3
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.exceptions import ClientError

B = TypeVar("B", bound="Bucket")


class Bucket:
    """The client; `handed_out` counts the bytes that were read."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.handed_out = 0

    def upload_file(self, path: str, _bucket: str, key: str) -> None:
        self.objects[key] = Path(path).read_bytes()

    def get_object(self, **wanted: str) -> dict[str, Any]:
        content = self._of(wanted["Key"])
        if "Range" in wanted:
            first, last = wanted["Range"].removeprefix("bytes=").split("-")
            content = content[int(first) : int(last) + 1]
        self.handed_out += len(content)
        return {"Body": io.BytesIO(content)}

    def head_object(self, **wanted: str) -> dict[str, Any]:
        return {"ContentLength": len(self._of(wanted["Key"]))}

    def delete_object(self, **wanted: str) -> None:
        self.objects.pop(wanted["Key"], None)

    def head_bucket(self, **wanted: str) -> None:
        if wanted["Bucket"] != "bucket":
            raise ClientError({"Error": {"Code": "404"}}, "HeadBucket")

    def _of(self, key: str) -> bytes:
        if key not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return self.objects[key]


def stand_in(monkeypatch: pytest.MonkeyPatch, bucket: B) -> B:
    """Let every S3 storage that is made from now on keep its files in this bucket."""
    monkeypatch.setattr("app.storage.boto3.client", lambda *_args, **_options: bucket)
    return bucket


class AwayBucket(Bucket):
    """A bucket that nobody reaches."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def upload_file(self, path: str, _bucket: str, key: str) -> None:
        raise self.error

    def get_object(self, **wanted: str) -> dict[str, Any]:
        raise self.error

    def head_object(self, **wanted: str) -> dict[str, Any]:
        raise self.error

    def delete_object(self, **wanted: str) -> None:
        raise self.error

    def head_bucket(self, **wanted: str) -> None:
        raise self.error


class SlowBucket(Bucket):
    """A bucket whose callers must let others write to the database meanwhile; `in_the_way` names calls that did not."""

    def __init__(self, database: Path) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.in_the_way: list[str] = []
        self._database = database

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        self._asked("upload_file")
        super().upload_file(path, bucket, key)

    def get_object(self, **wanted: str) -> dict[str, Any]:
        self._asked("get_object")
        return super().get_object(**wanted)

    def head_object(self, **wanted: str) -> dict[str, Any]:
        self._asked("head_object")
        return super().head_object(**wanted)

    def delete_object(self, **wanted: str) -> None:
        self._asked("delete_object")
        super().delete_object(**wanted)

    def _asked(self, call: str) -> None:
        self.calls.append(call)
        # Long enough for the short transactions of other threads, and never for one that waits for this very call.
        other = sqlite3.connect(self._database, timeout=2, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self.in_the_way.append(call)
        finally:
            other.close()
