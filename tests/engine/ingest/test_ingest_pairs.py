"""What the check of a ZIP of pairs finds, and what it stores."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.data import Source, read_rows, split_by_content
from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits
from engine.ingest.tables import PEEKED_ROWS
from engine.ports import Pair
from engine.rows import both_numbers
from tests.engine.ingest.test_ingest_images import codes, picture, zipped

Check = Callable[..., dict[str, Any]]
PICTURES = {f"images/{i}.png": picture(i * 20, mode="L") for i in range(6)}


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def row(number: int, text: str | None = None, **further: Any) -> dict[str, Any]:
    return {"image": f"images/{number}.png", "id": str(number), "text": text or f"picture {number}", **further}


SPLITS = {
    "train.jsonl": lines(row(0), row(1), row(2, "picture 0")),
    "val.jsonl": lines(row(3)),
    "test.jsonl": lines(row(4), row(5)),
}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks bytes as a ZIP of pairs; gives the report, and the file's path under `out`."""

    def run(content: bytes, limits: Limits | None = None, **choices: Any) -> dict[str, Any]:
        source = tmp_path / "upload"
        source.write_bytes(content)
        out = tmp_path / "rows.parquet"
        chosen = Choices(choices.pop("columns", {}), **choices)
        found = report(*ingest(source, "a.zip", "text_image_pairs", out, chosen, limits or Limits()))
        left = {path.name for path in tmp_path.iterdir()} - {"upload"}
        assert left == (set() if found["problems"] else {"rows.parquet"})
        return found | {"out": out}

    return run


@pytest.mark.parametrize("around", ["", "emoji/", "a/b/"])
def test_a_file_a_split(check: Check, around: str) -> None:
    members = {f"{around}{name}": content for name, content in {**PICTURES, **SPLITS, ".DS_Store": b"x"}.items()}
    found = check(zipped(members))
    assert (found["rows"], found["labels"], found["label_counts"]) == (6, [], {})
    assert found["splits"] == {"train": 3, "valid": 1, "test": 2}
    assert found["columns"] == {"text": "text", "image": "image"}
    table = pq.read_table(found["out"])
    assert table["text"].to_pylist() == ["picture 0", "picture 1", "picture 0", "picture 3", "picture 4", "picture 5"]
    assert table["image"].to_pylist() == list(PICTURES.values())
    assert table["split"].to_pylist() == ["train"] * 3 + ["valid"] + ["test"] * 2
    assert "label" not in table.schema.names
    content = b"picture 1\0" + PICTURES["images/1.png"]
    assert table["id"][1].as_py() == hashlib.sha256(content).hexdigest()[:16]
    assert set(zip(*(table[name].to_pylist() for name in ("width", "height", "mode")), strict=True)) == {(8, 6, "L")}


def test_the_engine_reads_both_and_tells_equal_captions(check: Check) -> None:
    source = Source.open(check(zipped({**PICTURES, **SPLITS}))["out"])
    rows = read_rows([(source, "")], source.labels)
    assert rows.payloads[1] == Pair("picture 1", PICTURES["images/1.png"])
    assert isinstance(rows.payloads[1], Pair)
    assert rows.labels.tolist() == [1, 0, 1, 0, 0, 0]
    assert (rows.splits == "valid").sum() == 1


def test_one_file_with_a_field_for_the_split_and_other_names(check: Check) -> None:
    told = [row(i, split=name) for i, name in enumerate(["train", "dev", "test"])]
    assert check(zipped({**PICTURES, "pairs.jsonl": lines(*told)}))["splits"] == {"train": 1, "valid": 1, "test": 1}
    named = [{"image": f"./images/{i}.png", "caption": f"c{i}", "by": f"a{i % 2}"} for i in range(6)]
    columns = {"text": "caption", "group": "by"}
    found = check(zipped({**PICTURES, "pairs.ndjson": lines(*named)}), columns=columns)
    table = pq.read_table(found["out"])
    assert table["group"].to_pylist() == ["a0", "a1"] * 3
    assert table["text"].to_pylist() == [f"c{i}" for i in range(6)]
    assert "split" not in table.schema.names
    assert found["columns"] == {"text": "caption", "group": "by", "image": "image"}


def test_a_split_that_only_later_rows_name_is_not_lost(check: Check) -> None:
    first = [row(number % 6, f"caption {number}") for number in range(PEEKED_ROWS)]
    found = check(zipped({**PICTURES, "pairs.jsonl": lines(*first, row(0, "one more", split="test"))}))
    assert [(fault["code"], fault["line"]) for fault in found["problems"]] == [("late_split", PEEKED_ROWS + 1)]


@pytest.mark.parametrize(
    ("bad", "line", "code"),
    [
        ({"image": "images/1.png", "text": " "}, 2, "empty_text"),
        ({"image": "images/1.png"}, 2, "missing_text"),
        ({"text": "no picture"}, 2, "missing_image"),
        ({"image": 7, "text": "a number"}, 2, "wrong_type"),
        ({"image": "images/9.png", "text": "nowhere"}, 2, "image_not_found"),
        ({"image": "../images/1.png", "text": "leads out"}, 2, "image_not_found"),
        ({"image": "/images/1.png", "text": "leads out"}, 2, "image_not_found"),
        ({"image": "images/1.png", "text": "a\0b"}, 2, "nul_character"),
        ({"image": "images/notes.txt", "text": "no picture"}, 2, "not_an_image"),
        ({"image": "images/none.png", "text": "empty"}, 2, "empty_file"),
        ({"image": "images/big.png", "text": "large"}, 2, "image_too_large"),
    ],
)
def test_a_bad_row_is_told_with_file_and_line(check: Check, bad: dict[str, Any], line: int, code: str) -> None:
    odd = {"images/notes.txt": b"no picture", "images/none.png": b"", "images/big.png": picture(0, (3_000, 3_000))}
    rows = {"train.jsonl": lines(row(0), bad, row(2)), "test.jsonl": lines(row(4))}
    found = check(zipped({**PICTURES, **odd, **rows}), limits=Limits(max_pixels=1_000_000))
    assert [(one["code"], one["line"]) for one in found["problems"]] == [(code, line)]
    assert found["problems"][0]["detail"].startswith("train.jsonl: ")
    assert found["problems"][0]["remedy"]
    skipped = check(
        zipped({**PICTURES, **odd, **rows}),
        limits=Limits(max_pixels=1_000_000),
        skip_invalid=True,
        max_invalid_fraction=0.5,
    )
    assert (skipped["rows"], len(skipped["skipped"])) == (3, 1)


def test_lines_that_are_no_objects_are_told(check: Check) -> None:
    content = lines(row(0)) + b"\nnot json\n\xff\n" + b'{"text": "a", "text": "b"}\n'
    found = check(zipped({**PICTURES, "train.jsonl": content}))
    assert [(one["code"], one["line"]) for one in found["problems"]] == [
        ("malformed_row", 3),
        ("not_utf8", 4),
        ("duplicate_key", 5),
    ]


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "images/../../x.png", "..\\x.png", "C:/x.png"])
def test_names_that_lead_out_are_refused(check: Check, name: str) -> None:
    assert codes(check(zipped({**PICTURES, **SPLITS, name: picture()}))) == ["unsafe_path"]


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        ({}, "no_rows", "/file"),
        (PICTURES, "no_rows", "/file"),
        ({**PICTURES, "train.jsonl": b""}, "no_rows", "/file"),
        ({**PICTURES, **SPLITS, "extra.jsonl": lines(row(0))}, "unknown_split", "/file"),
        ({**PICTURES, "train.jsonl": lines({"image": "images/0.png", "texts": "x"})}, "column_missing", "/text_column"),
    ],
)
def test_faults_of_the_whole(check: Check, members: dict[str, bytes], code: str, pointer: str) -> None:
    found = check(zipped(members))
    assert [(one["code"], one["pointer"]) for one in found["problems"]] == [(code, pointer)]


def test_choices_that_do_not_apply_are_told(check: Check) -> None:
    content = zipped({**PICTURES, **SPLITS})
    found = check(content, columns={"label": "x", "split": "id"})
    assert [one["pointer"] for one in found["problems"]] == ["/label_column", "/split_column"]
    assert codes(check(content, columns={"group": "by"})) == ["column_missing"]
    assert codes(check(b'{"text": "x", "image": "y"}')) == ["unknown_format"]


def test_a_bomb_of_a_picture_or_of_lines_is_counted(check: Check) -> None:
    zeros = zipped({**PICTURES, **SPLITS, "images/0.png": bytes(50_000_000)})
    assert len(zeros) < 200_000
    assert codes(check(zeros, limits=Limits(max_cell_bytes=1_000_000))) == ["cell_too_large"]
    blank = zipped({**PICTURES, "train.jsonl": b"\n" * 20_000_000})
    assert len(blank) < 200_000
    assert codes(check(blank, limits=Limits(max_bytes=1_000_000))) == ["decompressed_too_large"]
    often = zipped({**PICTURES, "train.jsonl": lines(*[row(0)] * 500)})
    assert codes(check(often, limits=Limits(max_bytes=30_000))) == ["decompressed_too_large"]
    assert codes(check(often, limits=Limits(max_rows=100))) == ["too_many_rows"]


def test_broken_and_encrypted_members_are_told(check: Check) -> None:
    assert codes(check(zipped({**PICTURES, **SPLITS})[:-30])) == ["broken_zip"]
    whole = bytearray(zipped({"train.jsonl": lines(row(0)), **PICTURES}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.find(magic) + offset] |= 1
    assert codes(check(bytes(whole))) == ["encrypted"]
    damaged = bytearray(zipped({"train.jsonl": lines(row(0), row(1)), **PICTURES}))
    damaged[45] ^= 0xFF
    assert codes(check(bytes(damaged))) == ["broken_zip"]


def test_one_name_twice_is_told(check: Check) -> None:
    doubled = zipped({**PICTURES, **SPLITS, "./images/0.png": picture(9)})
    assert codes(check(doubled)) == ["duplicate_member"]


@pytest.mark.parametrize("name", [".", "./."])
def test_a_member_that_names_no_file(check: Check, name: str) -> None:
    members = {**PICTURES, **SPLITS, name: b"x"}
    assert codes(check(zipped(members))) == ["unsafe_path"]


def test_a_picture_is_dealt_with_all_its_captions(check: Check) -> None:
    pictures = {f"images/{i}.png": picture(i % 250, (8, 6 + i // 250), mode="L") for i in range(40)}
    told = [row(i, f"caption {j} of {i}") for i in range(40) for j in range(5)]
    source = Source.open(check(zipped({**pictures, "pairs.jsonl": lines(*told)}))["out"])
    rows = split_by_content(read_rows([(source, "")], source.labels))
    of_picture = rows.splits.reshape(40, 5)
    assert (of_picture == of_picture[:, :1]).all()
    assert set(of_picture[:, 0]) == {"train", "valid", "test"}
    captions, numbers = both_numbers(rows.labels)
    assert not captions.any()
    assert (numbers.reshape(40, 5) == np.arange(1, 41)[:, None]).all()


def test_a_file_from_before_is_dealt_as_it_was_and_tells_equal_pictures_all_the_same(check: Check) -> None:
    told = [row(i % 2, f"caption {i}") for i in range(40)]
    path = check(zipped({**PICTURES, "pairs.jsonl": lines(*told)}))["out"]
    pq.write_table(pq.read_table(path).drop_columns(["picture"]), path)
    source = Source.open(path)
    before = read_rows([(source, "")], source.labels)
    share = [int(one[:8], 16) / 2**32 for one in before.ids.tolist()]
    expected = ["train" if one < 0.8 else "valid" if one < 0.9 else "test" for one in share]
    assert split_by_content(before).splits.tolist() == expected
    assert both_numbers(before.labels)[1].tolist() == [1, 2] * 20
