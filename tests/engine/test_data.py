"""The canonical file, the default split and lazy payloads, against plain Python."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data import Joined, ParquetPayloads, Source, read_rows, split_by_content
from engine.errors import InvalidData
from tests.engine.tiny import tiny_text_rows


def canonical(path: Path, texts: list[str], labels: list[int], names: list[str], **more: list[str]) -> Path:
    columns = {
        "id": [f"{hash(text) & (2**64 - 1):016x}" for text in texts],
        "text": texts,
        "label": pa.array(labels, pa.int32()),
    }
    columns |= more
    about = {"version": 1, "task": "text_classification", "labels": names, "columns": {}}
    table = pa.table(columns).replace_schema_metadata({"fiftytwo": json.dumps(about)})
    pq.write_table(table, path, row_group_size=3)
    return path


def test_payloads_are_read_a_row_group_at_a_time(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(10)]
    payloads = ParquetPayloads(canonical(tmp_path / "ds.parquet", texts, [0, 1] * 5, ["a", "b"]), ["text"], kept=1)
    assert list(payloads) == texts
    read = payloads.bytes_read
    assert [payloads[9], payloads[9]] == ["text 9", "text 9"]
    assert payloads.bytes_read == read  # the last group is still at hand
    assert payloads[0] == "text 0"
    assert payloads.bytes_read > read
    assert list(payloads[2:5]) == texts[2:5]


def test_joined_parts_are_one_sequence(tmp_path: Path) -> None:
    joined = Joined([["a", "b"], ["c"], ["d", "e"]])
    assert list(joined) == ["a", "b", "c", "d", "e"]
    assert (joined[-1], list(joined[1:4])) == ("e", ["b", "c", "d"])
    with pytest.raises(IndexError):
        joined[5]


def test_three_files_become_three_splits_under_the_labels_of_the_first(tmp_path: Path) -> None:
    train = Source.open(canonical(tmp_path / "ds_a.parquet", ["x", "y"], [0, 1], ["ham", "spam"]))
    test = Source.open(canonical(tmp_path / "ds_b.parquet", ["z"], [0], ["spam"]))
    rows = read_rows([(train, "train"), (test, "test")], train.labels)
    assert rows.splits.tolist() == ["train", "train", "test"]
    assert rows.labels.tolist() == [0, 1, 1]
    assert list(rows.payloads) == ["x", "y", "z"]
    assert train.id == "ds_a"
    assert rows.groups is None


def test_groups_may_stand_in_one_file_alone(tmp_path: Path) -> None:
    named = canonical(tmp_path / "ds_a.parquet", ["x", "y"], [0, 1], ["ham", "spam"], group=["ann", "robert"])
    train, test = Source.open(named), Source.open(canonical(tmp_path / "ds_b.parquet", ["z"], [0], ["spam"]))
    rows = read_rows([(train, "train"), (test, "test")], train.labels)
    assert rows.groups is not None
    assert rows.groups.tolist() == ["ann", "robert", ""]


def test_a_label_that_training_lacks_is_refused(tmp_path: Path) -> None:
    train = Source.open(canonical(tmp_path / "a.parquet", ["x", "y"], [0, 1], ["ham", "spam"]))
    test = Source.open(canonical(tmp_path / "b.parquet", ["z"], [0], ["eggs"]))
    with pytest.raises(InvalidData, match="eggs"):
        read_rows([(train, "train"), (test, "test")], train.labels)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(InvalidData, match="not a prepared data file"):
        Source.open(tmp_path / "x.parquet")


def test_the_default_split_is_a_function_of_content_alone() -> None:
    rows = tiny_text_rows(4000)
    bare = rows.assigned(np.full(len(rows), "", dtype="U5"))
    split = split_by_content(bare)
    shares = {name: float((split.splits == name).mean()) for name in ("train", "valid", "test")}
    assert shares["train"] == pytest.approx(0.8, abs=0.03)
    assert shares["valid"] == pytest.approx(0.1, abs=0.03)
    order = np.random.default_rng(0).permutation(len(rows))
    assert split_by_content(bare.take(order)).splits.tolist() == split.splits[order].tolist()


def test_named_splits_stay_and_a_missing_one_is_carved_from_training() -> None:
    rows = tiny_text_rows(400)
    named = rows.assigned(np.array(["test" if i % 10 == 0 else "train" for i in range(len(rows))], dtype="U5"))
    split = split_by_content(named)
    assert (split.splits[named.splits == "test"] == "test").all()
    carved = (split.splits == "valid").sum()
    assert 15 <= carved <= 60


def test_rows_take_map_and_where_agree_with_lists() -> None:
    rows = tiny_text_rows(40)
    loud = rows.map(lambda text: str(text).upper())
    chosen = loud.take(np.array([5, 3, 5])).loaded()
    texts = list(rows.payloads)
    assert chosen.payloads == [str(texts[i]).upper() for i in (5, 3, 5)]
    assert list(loud.where("test").payloads) == [
        str(text).upper() for text, split in zip(texts, rows.splits, strict=True) if split == "test"
    ]
