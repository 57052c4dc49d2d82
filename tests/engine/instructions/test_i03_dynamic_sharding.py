"""Instruction 3: whole records in every cut, each row once, each row group decoded once, one order whoever resumes."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import METADATA_KEY, Data, Source, files_under, read_rows
from engine.errors import InvalidPlan
from engine.events import Listed, Warned
from engine.instructions.preprocessing.i03_dynamic_sharding import (
    DynamicSharding,
    buffered,
    grouped,
    label_skew,
)
from engine.plan import Plan
from engine.randomness import generator
from engine.rows import Rows, pair_labels
from engine.run import Run
from engine.spec import Spec
from tests.engine.runs import tiny_pair_run
from tests.engine.tiny import LABELS, tiny_image_rows, tiny_image_task, tiny_pair_rows, tiny_task, tiny_text_rows


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200), st.integers(0, 12))
def test_row_groups_are_gathered_in_order_and_near_the_target(sizes: list[int], target: int, least: int) -> None:
    table = grouped(sizes, target, least)
    assert [group for shard in table for group in shard] == list(range(len(sizes)))
    assert all(table)
    wanted = max(-(-sum(sizes) // target), least, 1)
    assert len(table) <= wanted
    assert max(sum(sizes[group] for group in shard) for shard in table) <= sum(sizes) / wanted + max(sizes)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=120), st.integers(0, 4))
def test_every_row_comes_once(shards: list[int], together: int) -> None:
    shard_of_row = np.array(shards, dtype=np.int64)
    dealt = generator(1, "deal").permutation(np.unique(shard_of_row))
    assert Counter(buffered(shard_of_row, dealt, together, generator(2, "buffer"))) == Counter(range(len(shards)))


def test_without_a_buffer_the_file_keeps_its_order_inside_a_shard() -> None:
    shard_of_row = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    assert list(buffered(shard_of_row, np.array([1, 0, 2]), 0, generator(1, "x"))) == [3, 4, 0, 1, 2, 5, 6, 7]


def _file(path: Path, rows: Rows, group_rows: int) -> Source:
    payload = "text" if isinstance(rows.payloads[0], str) else "image"
    table = pa.table(
        {
            "id": rows.ids.tolist(),
            payload: list(rows.payloads),
            "label": pa.array(rows.labels, pa.int32()),
            "split": rows.splits.tolist(),
        }
    )
    task = "text_classification" if payload == "text" else "image_classification"
    about = {"version": 1, "task": task, "labels": list(LABELS), "columns": {}}
    pq.write_table(
        table.replace_schema_metadata({METADATA_KEY: json.dumps(about).encode()}), path, row_group_size=group_rows
    )
    return Source.open(path)


def _run(rows: Rows, folder: Path, **parameters: Any) -> tuple[Run, Rows]:
    task = "text_classification" if isinstance(rows.payloads[0], str) else "image_classification"
    asked = {"name": "dynamic_sharding", **parameters}
    spec = Spec.model_validate({"task": task, "dataset": "a", "instructions": [asked]})
    run = Run(spec, Plan.of(spec), Listed())
    sharded = run.plan.on("records")[0].records(run, rows)
    parts = [sharded.where(split) for split in ("train", "valid", "test")]
    run.task = tiny_task(folder) if task == "text_classification" else tiny_image_task(parts[0])
    run.data = Data(parts[0], parts[1], parts[2], run.task)
    return run, sharded


def _order(run: Run, epoch: int) -> list[int]:
    return list(run.plan.slot("order").order(run, epoch))


@pytest.mark.parametrize("make", [tiny_text_rows, tiny_image_rows])
def test_each_row_group_is_decoded_once_an_epoch_and_few_stay(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _file(tmp_path / "ds.parquet", make(400), group_rows=10)
    # Shards of the smallest size that the field allows hold the whole file here, so the bytes are told to be more.
    rows = read_rows([(source, "")], LABELS)
    files_under(rows.payloads)[0].group_bytes = [40_000] * 40
    run, _ = _run(rows, tmp_path / "base", target_bytes=80_000, shuffle_buffer=60)
    file = files_under(run.data.train.payloads)[0]
    file._decoded.clear()  # what opening the task has read
    decoded: list[int] = []
    read = file._file.read_row_group

    def counted(group: int, **named: Any) -> Any:
        decoded.append(group)
        return read(group, **named)

    monkeypatch.setattr(file._file, "read_row_group", counted)
    order = _order(run, 0)
    before, most = file.bytes_read, 0
    examples = run.data.examples["train"]
    for number in order:
        assert len(examples[number]) > 0
        most = max(most, len(file._decoded))
    assert Counter(decoded) == Counter(range(40)), "each once"
    assert file.bytes_read - before == file.stored_bytes
    assert most <= 6, "three shards of two groups hold 60 records"
    assert Counter(order) == Counter(range(len(run.data.train)))
    reported = run.plan.on("report")[0].report(run)
    assert reported["shards"] == 20
    assert reported["balance"] == pytest.approx(1.0)
    assert reported["bytes_read_ratio"] == pytest.approx(file.bytes_read / file.stored_bytes)


def test_the_order_is_a_function_of_seed_and_epoch_and_resumes_at_the_record(tmp_path: Path) -> None:
    source = _file(tmp_path / "ds.parquet", tiny_text_rows(200), group_rows=10)

    def fresh(seed: int = 0) -> Run:
        rows = read_rows([(source, "")], LABELS)
        files_under(rows.payloads)[0].group_bytes = [70_000] * 20
        return _run(rows, tmp_path / "base", target_bytes=70_000, shuffle_buffer=30, seed=seed)[0]

    run = fresh()
    whole = _order(run, 1)
    assert whole != _order(run, 0)
    assert whole != _order(fresh(seed=1), 1)
    resumed = islice(fresh().plan.slot("order").order(fresh(), 1), 57, None)
    assert list(resumed) == whole[57:]


def test_small_data_is_one_shard_and_shuffled_as_a_whole(tmp_path: Path) -> None:
    run, sharded = _run(
        read_rows([(_file(tmp_path / "ds.parquet", tiny_text_rows(100), 50), "")], LABELS), tmp_path / "b"
    )
    assert set(sharded.shards.tolist()) == {0}
    assert _order(run, 0) != sorted(_order(run, 0))
    assert run.plan.on("report")[0].report(run)["shards"] == 1


def test_payloads_stay_on_disk(tmp_path: Path) -> None:
    rows = tiny_text_rows(100)
    _, sharded = _run(read_rows([(_file(tmp_path / "ds.parquet", rows, 50), "")], LABELS), tmp_path / "b")
    assert not isinstance(sharded.payloads, list)
    assert list(sharded.payloads) == list(rows.payloads)


def test_a_sorted_or_coarse_file_is_told(tmp_path: Path) -> None:
    plain = tiny_text_rows(100)
    rows = plain.take(np.argsort(plain.labels, kind="stable"))
    read = read_rows([(_file(tmp_path / "ds.parquet", rows, 50), "")], LABELS)
    files_under(read.payloads)[0].group_bytes = [900_000, 900_000]
    run, _ = _run(read, tmp_path / "b", target_bytes=100_000)
    assert isinstance(run.sink, Listed)
    assert [event.code for event in run.sink.events if isinstance(event, Warned)] == [
        "coarse_row_groups",
        "sorted_by_label",
    ]


def test_numbers_of_captions_and_pictures_are_no_labels(tmp_path: Path) -> None:
    rows = tiny_pair_rows(20)
    rows.labels[:] = pair_labels(rows.labels, np.arange(20) // 2)  # two captions a picture: numbers of 2 to the 32
    run = tiny_pair_run(tmp_path, [3], rows)
    assert isinstance(run.sink, Listed)
    assert not [event for event in run.sink.events if isinstance(event, Warned)]


def test_label_skew_by_hand() -> None:
    assert label_skew(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert label_skew(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == 0.0


def test_one_worker_asks_for_more_shards_and_two_are_refused() -> None:
    assert len(grouped([10] * 16, 2**30, least=4)) == 4
    spec = Spec.model_validate(
        {"task": "text_classification", "dataset": "a", "instructions": [{"number": 3, "workers": 2}]}
    )
    with pytest.raises(InvalidPlan) as refused:
        Plan.of(spec)
    assert [fault.pointer for fault in refused.value.faults] == ["/instructions/0/workers"]
    assert DynamicSharding(workers=1).workers == 1
