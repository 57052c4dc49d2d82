"""Instruction 3: shards by bytes, cut at records. Knows files and their sizes, not what stands in a record."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.data import files_under
from engine.errors import Fault
from engine.instruction import Instruction
from engine.randomness import generator
from engine.rows import Rows
from engine.run import Run

if TYPE_CHECKING:  # a spec holds instructions: a circle of types only
    from engine.spec import Spec

Numbers = npt.NDArray[np.int64]

_MIB = 2**20
_COARSE = 4  # a row group of more than so many targets deserves a warning
_SKEWED, _SKEWED_BY_CHANCE = 0.25, 1.5  # mean distance of a shard's labels from all, and over that of shuffled labels


class DynamicSharding(Instruction):
    """Divides the data into shards of about equal bytes without rewriting or loading it, and streams them.

    Sound: whatever was uploaded lies in row groups of whole records, and a shard is a run of whole row groups: no
    record is broken or lost, and its size counts bytes. The shards of an epoch are permuted by seed and epoch, taken
    into a buffer of at least `shuffle_buffer` records as whole shards, and shuffled there. So each row group is
    decoded once an epoch, memory holds one buffer, and the order is a pure function: a resumed run goes on at the
    same record.

    Refuses: instructions that need every row at once (2, 5, 10, 11); more than one worker, since one process trains
    and reads.

    Effect: memory, not time: a run holds a few row groups instead of the whole file (docs/article.md). Less reading
    holds against a rewrite or readers that skip lines, not against plain streaming.
    """

    number = 3
    band = "preprocessing"
    title = "Shards by bytes, cut at records"
    source = "MosaicML Streaming (whole shards, shuffled in a buffer by seed and epoch)"
    metric = "bytes_read_ratio"
    name: Literal["dynamic_sharding"] = "dynamic_sharding"
    target_bytes: int = Field(
        default=16 * _MIB, ge=64 * 1024, le=1024 * _MIB, description="bytes a shard, uncompressed"
    )
    min_shards_per_worker: int = Field(
        default=4, ge=1, le=64, description="shards to cut for each worker, where there are row groups enough"
    )
    workers: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="0: cut by target_bytes alone; 1: cut at least min_shards_per_worker shards",
    )
    shuffle_buffer: int = Field(
        default=2048,
        ge=0,
        le=1_000_000,
        description="least records that are shuffled together; 0: the order of the file",
    )
    seed: int = Field(default=0, ge=0, lt=2**53, description="seed of the order, beside the job's own")

    @property
    def provides(self) -> frozenset[str]:
        """Payloads stay on disk."""
        return frozenset({"streamed_records"})

    @property
    def excludes(self) -> Mapping[str, str]:
        """Whatever looks at all rows at once."""
        reason = "it needs every row at once, and streamed rows come shard by shard"
        return dict.fromkeys(("deduplication", "label_noise_detection", "class_rebalancing"), reason)

    def check(self, spec: "Spec", facts: frozenset[str]) -> Iterable[Fault]:
        """One process trains and reads."""
        if self.workers > 1:
            detail = f"{self.workers} workers: this engine reads in the process that trains, one reader"
            yield Fault("/workers", "one_reader", detail, "send 0 or 1")

    def records(self, run: Run, rows: Rows) -> Rows:
        """Number the shard of each row, and let as many row groups stay decoded as one buffer touches."""
        files = files_under(rows.payloads)
        # Rows that lie in memory have no bytes on disk: each weighs the same.
        sizes = [size for file in files for size in file.group_bytes] or np.bincount(rows.shards).tolist()
        table = grouped(sizes, self.target_bytes, self.workers * self.min_shards_per_worker)
        shards = np.repeat(np.arange(len(table)), [len(groups) for groups in table])[rows.shards]
        together = _shards_together(self.shuffle_buffer, len(table), len(rows))
        for file in files:
            file.kept = max(file.kept, together * max(map(len, table)))
        self._warn(run, sizes, shards, rows)
        weights = [sum(sizes[i] for i in groups) for groups in table]
        run.state(self.name).update(shards=len(table), balance=max(weights) * len(table) / sum(weights))
        return replace(rows, shards=shards)

    def order(self, run: Run, epoch: int) -> Iterator[int]:
        """Training rows, buffer by buffer."""
        data = run.data
        count = 1 + int(max(part.shards.max(initial=0) for part in (data.train, data.valid, data.test)))
        together = _shards_together(self.shuffle_buffer, count, len(data.train) + len(data.valid) + len(data.test))
        draw = generator(run.spec.training.seed, self.name, self.seed, epoch)
        dealt = draw.permutation(np.unique(data.train.shards))
        return buffered(data.train.shards, dealt, together if self.shuffle_buffer else 0, draw)

    def report(self, run: Run) -> Mapping[str, float]:
        """The shard table, its largest shard over the mean, and the bytes that this process read over those on disk."""
        files = files_under(run.data.train.payloads)
        state = run.state(self.name)
        return {
            "shards": state["shards"],
            "balance": state["balance"],
            "bytes_read_ratio": sum(file.bytes_read for file in files)
            / max(sum(file.stored_bytes for file in files), 1),
        }

    def _warn(self, run: Run, sizes: Sequence[int], shards: Numbers, rows: Rows) -> None:
        if max(sizes) > _COARSE * self.target_bytes:
            detail = f"a row group of {max(sizes)} bytes stays one shard: over {_COARSE} targets of {self.target_bytes}"
            run.warn("coarse_row_groups", detail)
        if run.spec.task == "text_image_pairs":  # whose labels say which rows are equal, and are no classes
            return
        skew = label_skew(shards, rows.labels)
        chance = label_skew(shards, generator(run.spec.training.seed, self.name).permutation(rows.labels))
        if skew > _SKEWED and skew > _SKEWED_BY_CHANCE * chance:
            run.warn(
                "sorted_by_label", f"the labels of a shard differ by {skew:.2f} of 1 from all: shuffle the file first"
            )


def grouped(sizes: Sequence[int], target_bytes: int, least: int = 0) -> list[list[int]]:
    """Runs of row groups whose bytes come nearest to equal shards of at most about `target_bytes`.

    The number of shards is max(ceil(bytes / target), least), as far as there are row groups. A group goes to the shard
    that its middle falls into.
    """
    total = sum(sizes)
    wanted = max(math.ceil(total / target_bytes), least, 1)
    ends = np.cumsum(sizes)
    middles = ends - np.asarray(sizes) / 2
    shard_of = np.floor(middles * wanted / max(total, 1)).astype(np.int64)
    return [np.flatnonzero(shard_of == shard).tolist() for shard in np.unique(shard_of)]


def buffered(shard_of_row: Numbers, dealt: Numbers, together: int, draw: np.random.Generator) -> Iterator[int]:
    """Rows of `together` whole shards at a time, shuffled; with 0, shard by shard in the order of the file."""
    by_shard = np.argsort(shard_of_row, kind="stable")
    starts = np.searchsorted(shard_of_row[by_shard], dealt, side="left")
    ends = np.searchsorted(shard_of_row[by_shard], dealt, side="right")
    for first in range(0, len(dealt), max(together, 1)):
        last = min(first + max(together, 1), len(dealt))
        rows = np.concatenate([by_shard[starts[i] : ends[i]] for i in range(first, last)])
        yield from (draw.permutation(rows) if together else rows).tolist()


def label_skew(shards: Numbers, labels: Numbers) -> float:
    """Mean total-variation distance, 0 to 1, between the label shares of a shard and those of all rows."""
    counts = np.zeros((int(shards.max(initial=0)) + 1, int(labels.max(initial=0)) + 1))
    np.add.at(counts, (shards, labels), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(np.abs(shares - counts.sum(axis=0) / max(counts.sum(), 1)).sum(axis=1).mean() / 2)


def _shards_together(shuffle_buffer: int, shards: int, rows: int) -> int:
    """How many shards hold `shuffle_buffer` records, at the mean."""
    return min(shards, max(1, math.ceil(shuffle_buffer * shards / max(rows, 1))))
