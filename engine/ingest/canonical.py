"""Writes rows as the canonical Parquet file: groups of about 16 MiB, labels as class indices. Knows no source format.

The order of the classes is known only after the last row, so the rows go to a first file under the order of their
appearance and are rewritten with the final indices.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.ingest.findings import Unusable

GROUP_BYTES = 16 << 20
MOST_CLASSES = 10_000
PICTURE = "picture"
"""The column of the pictures' hashes: all rows of one picture are dealt to one split by it."""


def hash_of(picture: bytes) -> str:
    """The content hash of a picture's file."""
    return hashlib.sha256(picture).hexdigest()[:16]


class Canonical:
    """Takes rows one by one; `label` is the class's name in them and an index in the file.

    `columns` tells which column of the source plays which role. Without a column `label` in the schema rows have no
    class. `chat`: the texts are conversations as JSON.
    """

    def __init__(self, path: Path, schema: pa.Schema, columns: dict[str, str], *, chat: bool = False) -> None:
        self.schema = schema
        self.chat = chat
        self.columns = columns
        self.path = path
        self._first = path.with_suffix(".first")
        self._writer = pq.ParquetWriter(self._first, schema, compression="none", use_dictionary=False)
        self._values: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._bytes = 0
        self._seen: dict[str, int] = {}
        self.counts: list[int] = []
        self.splits: dict[str, int] = {}
        self.rows = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        """Add a row whose payload has `size` bytes."""
        index = self._index(row["label"]) if "label" in self._values else 0
        for name, values in self._values.items():
            values.append(index if name == "label" else row[name])
        if row.get("split"):
            self.splits[row["split"]] = self.splits.get(row["split"], 0) + 1
        self.rows += 1
        self._bytes += size + 64
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def _index(self, label: str) -> int:
        """The index of a class by its first appearance, and one more row of it."""
        index = self._seen.setdefault(label, len(self._seen))
        if index == len(self.counts):
            if index == MOST_CLASSES:
                detail = f"the label column has more than {MOST_CLASSES} different values"
                raise Unusable(
                    "too_many_classes", detail, "name the column that holds the class", pointer="/label_column"
                )
            self.counts.append(0)
        self.counts[index] += 1
        return index

    @property
    def labels(self) -> list[str]:
        """The class names by index: in numeric order where each is a whole number, else by code point."""
        try:
            return sorted(self._seen, key=lambda name: (int(name), name))
        except ValueError:
            return sorted(self._seen)

    @property
    def label_counts(self) -> dict[str, int]:
        """Rows by class name, in the order of the classes."""
        return {name: self.counts[self._seen[name]] for name in self.labels}

    def finish(self, task: str) -> None:
        """Write the file with its final class indices and its metadata."""
        self._flush()
        self._writer.close()
        final = {name: index for index, name in enumerate(self.labels)}
        indices = pa.array([final[name] for name in self._seen], pa.int32())
        about = {"version": 1, "task": task, "labels": self.labels, "columns": self.columns}
        if self.chat:
            about["chat"] = True
        schema = self.schema.with_metadata({"fiftytwo": json.dumps(about, ensure_ascii=False, sort_keys=True)})
        place = schema.get_field_index("label")  # -1: no classes
        few = [name for name in schema.names if name in ("label", "split", "group", "mode")]
        with (
            pq.ParquetFile(self._first) as first,
            pq.ParquetWriter(self.path, schema, compression="zstd", use_dictionary=few) as writer,
        ):
            for group in range(first.num_row_groups):
                table = first.read_row_group(group, use_threads=False)
                if place >= 0:
                    named = indices.take(table["label"].combine_chunks())
                    table = table.set_column(place, schema.field(place), named)
                writer.write_table(table.cast(schema), row_group_size=max(1, len(table)))
        self._first.unlink()

    def abandon(self) -> None:
        """Leave no file behind."""
        self._writer.close()
        self._first.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._values["id"]:
            return
        table = pa.table(self._values, schema=self.schema)
        self._writer.write_table(table, row_group_size=len(table))
        for values in self._values.values():
            values.clear()
        self._bytes = 0
