"""Stands in for an S3 bucket: the few calls of boto3's client that the storage makes, kept in memory."""

import io
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError


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
