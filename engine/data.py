"""Reads the canonical data files and splits them for a run. Knows no format but that one, and no task by name.

Canonical is what `engine.ingest` writes: Parquet with `id`, a payload column (`text`, `image`, or both), `label` where
rows have one, optional `split` and `group`, and the label names in the schema's metadata.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import nn

from engine.errors import InvalidData
from engine.on_read import OnRead
from engine.pairs import PICTURE, labels_of
from engine.parts import refuse_unscored, scored
from engine.ports import Batch, Cutting, Example, Pair, Payload, Task, size_of
from engine.rows import SPLITS, Mapped, Rows, Taken

METADATA_KEY = b"fiftytwo"
PAYLOADS = ("text", "image")


@dataclass(frozen=True)
class Source:
    """One canonical file: its identity, labels and size, read without its payloads.

    `columns` are its own, `roles` tells from which column of the upload the text, the label, the group and so on came.
    `chat`: its texts are conversations as JSON.
    """

    path: Path
    id: str
    sha256: str
    rows: int
    task: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    roles: Mapping[str, str]
    chat: bool = False

    @classmethod
    def open(cls, path: Path) -> "Source":
        """Read the footer and hash the bytes.

        Raises:
            InvalidData: if the file is not a canonical one.
        """
        try:
            parquet = pq.ParquetFile(path)
            about = json.loads((parquet.schema_arrow.metadata or {})[METADATA_KEY])
        except (OSError, ValueError, KeyError) as error:
            raise InvalidData(
                f"{path.name} is not a prepared data file", remedy="run python -m engine.ingest on it"
            ) from error
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(
            path,
            path.stem,
            digest,
            parquet.metadata.num_rows,
            about["task"],
            tuple(about["labels"]),
            tuple(parquet.schema_arrow.names),
            about["columns"],
            about.get("chat", False),
        )


class ParquetPayloads(OnRead[Payload]):
    """The payloads of one file, read a row group at a time; the last `kept` groups stay decoded.

    `columns`: one of texts or of pictures, or both in this order.
    """

    def __init__(self, path: Path, columns: Sequence[str], kept: int = 2) -> None:
        self._file = pq.ParquetFile(path)
        self._columns = list(columns)
        groups = [self._file.metadata.row_group(i) for i in range(self._file.metadata.num_row_groups)]
        counts = [group.num_rows for group in groups]
        self.group_bytes = [int(group.total_byte_size) for group in groups]
        places = [self._file.schema_arrow.names.index(column) for column in columns]
        self._stored = [sum(int(group.column(at).total_compressed_size) for at in places) for group in groups]
        self.stored_bytes = sum(self._stored)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.kept = kept
        self.bytes_read = 0
        self._decoded: OrderedDict[int, list[Payload]] = OrderedDict()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, index: int) -> Payload:
        """Read one payload through its row group."""
        group = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self._group(group)[index - int(self.starts[group])]

    def _group(self, group: int) -> list[Payload]:
        if group not in self._decoded:
            self.bytes_read += self._stored[group]
            table = self._file.read_row_group(group, columns=self._columns)
            values = [table[column].to_pylist() for column in self._columns]
            paired = len(values) == 2
            self._decoded[group] = [Pair(*both) for both in zip(*values, strict=True)] if paired else values[0]
            while len(self._decoded) > self.kept:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(group)
        return self._decoded[group]


class Joined(OnRead[Payload]):
    """Payloads of several files behind one another."""

    def __init__(self, parts: Sequence[Sequence[Payload]]) -> None:
        self.parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, index: int) -> Payload:
        """Read from the part that holds the number."""
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.parts[part][index - int(self._starts[part])]


def files_under(payloads: Sequence[Payload]) -> list[ParquetPayloads]:
    """The files that payloads are read from, however often they were joined, mapped and taken."""
    if isinstance(payloads, Mapped | Taken):
        return files_under(payloads.payloads)
    if isinstance(payloads, Joined):
        return [file for part in payloads.parts for file in files_under(part)]
    return [payloads] if isinstance(payloads, ParquetPayloads) else []


def read_rows(sources: Sequence[tuple[Source, str]], labels: Sequence[str]) -> Rows:
    """The rows of files with the split that each stands for ("" where the file's own column, or nobody, says).

    Payloads stay on disk until they are read. Class indices are those of `labels`.

    Raises:
        InvalidData: if a file has a label that `labels` lacks, or some files hold conversations and others do not.
    """
    if len({source.chat for source, _ in sources}) > 1:
        raise InvalidData(
            "some of the files hold conversations, others plain texts", remedy="give files of one of the two kinds"
        )
    parts, shard = [], 0
    for source, role in sources:
        unknown = sorted(set(source.labels) - set(labels))
        if unknown:
            raise InvalidData(
                f"{source.id} has labels that the training rows lack: {', '.join(unknown[:5])}",
                remedy="give every file the same label set",
            )
        columns = [name for name in PAYLOADS if name in source.columns]
        table = pq.read_table(
            source.path, columns=[name for name in source.columns if name in {"id", "label", "split", "group", PICTURE}]
        )
        payloads = ParquetPayloads(source.path, columns)
        index = np.array([labels.index(name) for name in source.labels], dtype=np.int64)
        splits = [
            role or value or ""
            for value in (table["split"].to_pylist() if "split" in source.columns else [""] * source.rows)
        ]
        shards = shard + np.searchsorted(payloads.starts, np.arange(source.rows), side="right") - 1
        shard += len(payloads.starts) - 1
        told = table["group"].to_pylist() if "group" in source.columns else [""] * source.rows
        groups = [value or "" for value in told]
        numbers = index[table["label"].to_numpy()] if "label" in source.columns else _shared(source)
        pictures = table[PICTURE if PICTURE in source.columns else "id"].to_pylist()
        parts.append((payloads, table["id"].to_pylist(), numbers, splits, groups, shards, pictures))
    payloads_of, ids, indices, splits_of, groups_of, shards_of, pictures_of = zip(*parts, strict=True)
    return Rows(
        payloads=payloads_of[0] if len(parts) == 1 else Joined(payloads_of),
        ids=_joined(ids),
        labels=np.concatenate(indices),
        splits=np.array([value for part in splits_of for value in part], dtype="U5"),
        groups=_joined(groups_of) if any("group" in source.columns for source, _ in sources) else None,
        shards=np.concatenate(shards_of).astype(np.int64),
        label_names=tuple(labels),
        chat=sources[0][0].chat,
        pictures=_joined(pictures_of) if any(PICTURE in source.columns for source, _ in sources) else None,
    )


def _joined(parts: Iterable[Sequence[str]]) -> npt.NDArray[np.str_]:
    return np.array([value for part in parts for value in part], dtype=np.str_)


def _shared(source: Source) -> npt.NDArray[np.int64]:
    """The labels of rows that have none, (n,): pairs of one caption, or of one picture, are told by it."""
    paired = set(PAYLOADS) <= set(source.columns)
    return labels_of(source.path, source.columns) if paired else np.zeros(source.rows, np.int64)


def split_by_content(rows: Rows) -> Rows:
    """Give each row without a split one by its content hash alone: 80 % train, 10 % valid, 10 % test.

    So no job's test row is another job's training row. A pair goes by its picture, all of whose captions stay together;
    a caption of several pictures may stand on both sides, since it may tie any number of them together. Where the data
    names some splits but lacks valid or test, a tenth of the training rows, by the same hash, stands in for each that
    is missing.
    """
    share = np.array([int(value[:8], 16) / 2**32 for value in rows.contents.tolist()])
    drawn = np.where(share < 0.8, "train", np.where(share < 0.9, "valid", "test"))
    splits = np.where(rows.splits == "", drawn, rows.splits)
    for name, low, high in (("valid", 0.8, 0.9), ("test", 0.9, 1.0)):
        if not (splits == name).any():
            splits = np.where((splits == "train") & (share >= low) & (share < high), name, splits)
    return replace(rows.assigned(splits), pictures=None)


class Encoded(OnRead[Example]):
    """The examples of some rows: encoded at once where payloads lie in memory, else one by one as they are read."""

    def __init__(self, task: Task, rows: Rows) -> None:
        self._task = task
        self._rows = rows
        self._all = task.encode(rows.payloads) if isinstance(rows.payloads, list) else None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Example:
        """Give one example."""
        return self._all[index] if self._all is not None else self._task.encode([self._rows.payloads[index]])[0]


@dataclass
class Data:
    """The rows of a run by split, and their examples; `train` after `training_records`, long rows in parts.

    `dealt`: how many rows each split had before any was added, set aside or cut; if not told, how many there are.
    `left_out`: training rows of which no part teaches anything; `taught`: (n, k), a teacher's answers on `train`;
    `teacher`: one that speaks itself, where its answers are too many to keep.
    """

    train: Rows
    valid: Rows
    test: Rows
    task: Task
    dealt: Mapping[str, int] = field(default_factory=dict)
    examples: dict[str, Sequence[Example]] = field(init=False)
    left_out: int = field(init=False, default=0)
    taught: npt.NDArray[np.float32] | None = field(init=False, default=None)
    teacher: nn.Module | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._whole = self.train
        self.dealt = self.dealt or {name: len(self.rows(name)) for name in SPLITS}
        self.examples = {name: Encoded(self.task, self.rows(name)) for name in SPLITS}
        if isinstance(self.task, Cutting):
            whole = len(self.train)
            numbers, self.examples["train"] = self.task.cut(self.examples["train"])
            self.train = self.train.take(numbers)
            self.left_out = whole - len(np.unique(numbers))
            refuse_unscored(self.examples["test"])
            if not scored(self.examples["valid"]):
                self.valid = self.valid.take(np.arange(0))
                self.examples["valid"] = Encoded(self.task, self.valid)

    def rows(self, split: str) -> Rows:
        """The rows of one split by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def anew(self, task: Task) -> "Data":
        """The same rows, encoded and cut by another task."""
        return Data(self._whole, self.valid, self.test, task, self.dealt)

    def lengths(self, split: str) -> npt.NDArray[np.int64]:
        """The cost of each row of a split in tokens, (n,)."""
        return self.task.lengths(self.examples[split])

    def first_batch(self, most: int, device: torch.device) -> Batch:
        """The first training rows as a batch on a device: what a probe of a model looks at."""
        numbers, examples = range(min(most, len(self.train))), self.examples["train"]
        batch = self.task.collate([examples[i] for i in numbers], [int(self.train.labels[i]) for i in numbers])
        return {name: value.to(device) for name, value in batch.items()}

    @property
    def traced(self) -> str:
        """The split whose rows show a tracer what inputs look like: nothing is learned from them, so any will do."""
        return "train" if len(self.train) else "test"

    def sample_payloads(self) -> list[Payload]:
        """Shortest and longest of the first 64 payloads to trace with: what an export is made and checked by."""
        payloads = self.rows(self.traced).payloads
        first = [payloads[i] for i in range(min(64, len(payloads)))]
        return [min(first, key=size_of), max(first, key=size_of)]
