"""What the check of a text file finds, and what it stores."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from engine.ingest import canonical
from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits
from engine.ingest.tables import PEEKED_ROWS

ROWS = [{"text": "hello", "label": "ham"}, {"text": "win a prize", "label": "spam"}, {"text": "ünï 🎈", "label": "ham"}]
Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks bytes as a text classification file; gives the report, and the file's path under `out`."""

    def run(content: bytes, filename: str = "rows", *, limits: Limits | None = None, **choices: Any) -> dict[str, Any]:
        source = tmp_path / "upload"
        source.write_bytes(content)
        chosen = Choices(choices.pop("columns", {}), **choices)
        out = tmp_path / "rows.parquet"
        found = report(*ingest(source, filename, "text_classification", out, chosen, limits or Limits()))
        left = {path.name for path in tmp_path.iterdir()} - {"upload"}
        assert left == (set() if found["problems"] else {"rows.parquet"})
        return found | {"out": out}

    return run


def jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: list[list[str]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue().encode()


def parquet(columns: dict[str, list[Any]], **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def codes(found: dict[str, Any]) -> list[tuple[str, int | None]]:
    return [(problem["code"], problem["line"]) for problem in found["problems"]]


CSV = as_csv([["label", "text"], *([row["label"], row["text"]] for row in ROWS)])
SOURCES = {
    "jsonl": (jsonl(ROWS), "a.jsonl"),
    "jsonl without a name": (jsonl(ROWS), "file"),
    "jsonl, a BOM, CRLF and blank lines": (b"\xef\xbb\xbf" + jsonl(ROWS).replace(b"\n", b"\r\n\r\n"), "a.jsonl"),
    "csv": (CSV, "a.csv"),
    "csv with a BOM": (b"\xef\xbb\xbf" + CSV, "a.csv"),
    "csv without a name": (CSV, "file"),
    "tsv": (as_csv([["label", "text"], *([row["label"], row["text"]] for row in ROWS)], "\t"), "a.tsv"),
    "parquet": (parquet({name: [row[name] for row in ROWS] for name in ("text", "label")}), "a.parquet"),
    "gzip": (gzip.compress(jsonl(ROWS)), "a.jsonl.gz"),
    "two gzip members": (gzip.compress(jsonl(ROWS[:1])) + gzip.compress(jsonl(ROWS[1:])), "a.jsonl.gz"),
    "zstd": (zstandard.compress(CSV), "a.csv.zst"),
    "two zstd frames": (zstandard.compress(jsonl(ROWS[:1])) + zstandard.compress(jsonl(ROWS[1:])), "a"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_format_comes_to_the_same_rows(check: Check, source: str) -> None:
    found = check(*SOURCES[source])
    table = pq.read_table(found["out"])

    assert found["problems"] == []
    assert (found["rows"], found["labels"], found["label_counts"]) == (3, ["ham", "spam"], {"ham": 2, "spam": 1})
    assert table["text"].to_pylist() == [row["text"] for row in ROWS]
    assert table["label"].to_pylist() == [0, 1, 0]
    assert table["id"].to_pylist() == [hashlib.sha256(row["text"].encode()).hexdigest()[:16] for row in ROWS]
    assert json.loads(table.schema.metadata[b"fiftytwo"])["labels"] == ["ham", "spam"]
    assert table.schema.field("label").type == pa.int32()


def test_equal_rows_give_equal_bytes(check: Check) -> None:
    first = check(*SOURCES["jsonl"])["out"].read_bytes()
    assert check(*SOURCES["zstd"])["out"].read_bytes() == first


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 10, 2], ["2", "9", "10"]),
        (["10", "9", "2", "2"], ["2", "9", "10"]),
        (["b", "a", "10", "9"], ["10", "9", "a", "b"]),
        ([True, False, True, True], ["false", "true"]),
        ([1.0, 0.0, 1.0, 1.0], ["0", "1"]),
        ([" a ", "b", "a", "b"], ["a", "b"]),
    ],
)
def test_classes_are_numbered_by_value_or_by_name(check: Check, labels: list[Any], names: list[str]) -> None:
    found = check(jsonl([{"text": f"row {i}", "label": label} for i, label in enumerate(labels)]))

    assert found["labels"] == names
    assert sum(found["label_counts"].values()) == len(labels)


def test_row_groups_are_bounded(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canonical, "GROUP_BYTES", 10_000)
    found = check(jsonl([{"text": "x" * 1_000, "label": i % 2} for i in range(100)]))

    file = pq.ParquetFile(found["out"])
    assert file.num_row_groups == 10
    assert file.read()["label"].to_pylist() == [0, 1] * 50


def test_named_columns_and_splits(check: Check) -> None:
    rows = [["sms", "class", "part", "who"]]
    rows += [[f"text {i}", "ab"[i % 2], part, "me"] for i, part in enumerate(["train", "Val", "dev", "TEST"])]
    columns = {"text": "sms", "label": "class", "split": "part", "group": "who"}
    found = check(as_csv(rows), "a.csv", columns=columns)
    table = pq.read_table(found["out"])

    assert found["columns"] == columns
    assert found["splits"] == {"train": 1, "valid": 2, "test": 1}
    assert table["split"].to_pylist() == ["train", "valid", "valid", "test"]
    assert table["group"].to_pylist() == ["me"] * 4


def test_a_column_called_split_is_one(check: Check) -> None:
    rows = [{"text": str(i), "label": i % 2, "split": "train" if i else "test"} for i in range(4)]
    assert check(jsonl(rows))["splits"] == {"test": 1, "train": 3}


def test_every_fault_is_told_with_its_line(check: Check) -> None:
    lines = [
        b'{"text": "fine", "label": 1}',
        b'{"text": "no label"}',
        b'{"text": "null", "label": null}',
        b'{"text": "nul \\u0000", "label": 0}',
        b'{"text": "\xff", "label": 0}',
        b'{"text": "surrogate \\ud800", "label": 0}',
        b"not json",
        b"[1, 2]",
        b'{"text": "", "label": 0}',
        b'{"text": 5, "label": 0}',
        b'{"text": "a fraction", "label": 0.5}',
        b'{"label": 0}',
        b'{"text": "a list", "label": [0]}',
        b'{"text": "digits", "label": ' + b"9" * 5_000 + b"}",
        b'{"text": "fine", "label": 0}',
        b'{"text": "one", "label": 1, "text": "two", "l\\u0061bel": 0}',
        b'{"text": "deep", "label": 1, "more": {"a": 1, "a": 1}}',
    ]
    found = check(b"\n".join(lines))

    assert codes(found) == [
        ("missing_label", 2),
        ("missing_label", 3),
        ("nul_character", 4),
        ("not_utf8", 5),
        ("not_utf8", 6),
        ("malformed_row", 7),
        ("malformed_row", 8),
        ("empty_text", 9),
        ("wrong_type", 10),
        ("wrong_label", 11),
        ("missing_text", 12),
        ("wrong_label", 13),
        ("malformed_row", 14),
        ("duplicate_key", 16),
        ("duplicate_key", 17),
    ]
    assert "'text', 'label'" in found["problems"][-2]["detail"]
    assert all(problem["remedy"] for problem in found["problems"])


def test_faults_of_csv_have_the_line_their_row_starts_on(check: Check) -> None:
    content = b'text,label\n"two\nlines",a\nthree,fields,here\nonly one\n'
    content += b'"\xff",a\n"x\x00",a\n"odd"quote,a\nfine,b\n"open,b\n'
    assert codes(check(content, "a.csv")) == [
        ("row_width", 4),
        ("row_width", 5),
        ("not_utf8", 6),
        ("nul_character", 7),
        ("malformed_row", 8),
        ("malformed_row", 10),
    ]


def test_a_row_is_not_blamed_for_the_long_lines_of_the_row_before_it(check: Check) -> None:
    long, limits = b"x" * 100, Limits(max_cell_bytes=10)
    quoted = b'text,label\n"a\n%b\n%b\nb",ham\ngood,ham\n' % (long, long)
    assert codes(check(quoted, "rows.csv", limits=limits)) == [("cell_too_large", 2)]
    broken = b'text,label\n"a\n%b\n"b,ham\ngood,ham\n' % long
    assert codes(check(broken, "rows.csv", limits=limits)) == [("malformed_row", 2)]


def test_a_split_that_only_later_rows_name_is_not_lost(check: Check) -> None:
    first = [{"text": f"word {number}", "label": str(number % 2)} for number in range(PEEKED_ROWS)]
    found = check(jsonl([*first, first[0] | {"split": "test"}, first[1] | {"split": None}]))
    assert codes(found) == [("late_split", PEEKED_ROWS + 1)]


def test_faults_of_parquet_have_their_row(check: Check) -> None:
    found = check(parquet({"text": ["a", None, "b\0", " "], "label": [1, 0, 1, None]}))
    assert codes(found) == [("missing_text", 2), ("nul_character", 3), ("empty_text", 4)]


def test_a_nested_column_of_parquet_is_told_by_row(check: Check) -> None:
    found = check(parquet({"text": [["a"], ["b"]], "label": [1, 2]}), "a.parquet")
    assert codes(found) == [("wrong_type", 1), ("wrong_type", 2)]


def test_many_faults_are_counted(check: Check) -> None:
    found = check(jsonl(ROWS + [{"text": "x"}] * 150))
    assert len(found["problems"]) == 101
    assert found["problems"][-1]["detail"] == "50 more rows have faults"


def test_invalid_rows_may_be_left_out_up_to_a_fraction(check: Check) -> None:
    rows = jsonl([*ROWS, {"text": "no label"}])
    found = check(rows, skip_invalid=True, max_invalid_fraction=0.25)

    assert (found["rows"], found["problems"]) == (3, [])
    assert [(skipped["line"], skipped["code"]) for skipped in found["skipped"]] == [(4, "missing_label")]
    refused = check(rows, skip_invalid=True, max_invalid_fraction=0.2)
    assert codes(refused) == [("missing_label", 4), ("too_many_invalid_rows", None)]


@pytest.mark.parametrize(
    ("content", "filename", "code"),
    [
        (b"", "a.jsonl", "no_rows"),
        (b"\n\n", "a.jsonl", "no_rows"),
        (b"\xef\xbb\xbf", "a.csv", "no_rows"),
        (b"text,label\n", "a.csv", "no_rows"),
        (gzip.compress(b"", mtime=0), "a.csv.gz", "no_rows"),
        (jsonl(ROWS[:1]), "a.jsonl", "single_class"),
        ("text,label\nx,y\n".encode("utf-16"), "a.csv", "not_utf8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "a.png", "unknown_format"),
        (b"text,label,text\na,b,c\n", "a.csv", "duplicate_column"),
        (b"te\xffxt,label\na,b\nc,d\n", "a.csv", "not_utf8"),
        (gzip.compress(jsonl(ROWS), mtime=0)[:-10], "a.gz", "broken_compression"),
        (zstandard.compress(jsonl(ROWS))[:-5], "a.zst", "broken_compression"),
        (b"\x1f\x8b\x08\x00nonsense", "a.gz", "broken_compression"),
        (b"PAR1" + b"x" * 50 + b"PAR1", "a.parquet", "broken_parquet"),
        (parquet({"text": ["a", "b"], "label": [1, 2]})[:-20], "a.parquet", "broken_parquet"),
        (b"PK\x03\x04" + bytes(50), "a.zip", "unknown_format"),
        (b"[" * 5_000_000, "a.jsonl", "malformed_row"),
        (b'{"a":' * 1_000_000, "a.jsonl", "malformed_row"),
    ],
)
def test_unusable_files_are_refused(check: Check, content: bytes, filename: str, code: str) -> None:
    assert [problem["code"] for problem in check(content, filename)["problems"]] == [code]


@pytest.mark.parametrize("source", ["jsonl", "csv", "parquet"])
def test_a_wrong_column_name_gets_the_nearest(check: Check, source: str) -> None:
    found = check(*SOURCES[source], columns={"label": "lable", "text": "colour"})

    assert codes(found) == [("column_missing", None), ("column_missing", None)]
    assert [problem["pointer"] for problem in found["problems"]] == ["/text_column", "/label_column"]
    assert found["problems"][1]["remedy"] == "did you mean label_column=label?"


def test_caps_on_rows_cells_and_bytes(check: Check) -> None:
    content = jsonl([{"text": "x" * 100, "label": i % 2} for i in range(20)])
    assert codes(check(content, limits=Limits(max_rows=10))) == [("too_many_rows", None)]
    assert codes(check(content, limits=Limits(max_bytes=1_000))) == [("decompressed_too_large", None)]
    assert codes(check(gzip.compress(content), limits=Limits(max_bytes=1_000))) == [("decompressed_too_large", None)]
    assert codes(check(content, limits=Limits(max_cell_bytes=99)))[:2] == [("cell_too_large", 1), ("cell_too_large", 2)]
    assert codes(check(content, limits=Limits(max_cell_bytes=10)))[0] == ("cell_too_large", 1)
    assert codes(check(as_csv([["text", "label"], ["x" * 100, "a"]]), "a.csv", limits=Limits(max_cell_bytes=50))) == [
        ("malformed_row", 2)
    ]


def test_semicolons_and_tabs_may_part_the_fields(check: Check) -> None:
    assert check(b"text;label\nhello, you;a\nbye;b\n", "a.csv")["rows"] == 2
    assert check(b"text\tlabel\nhello, you\ta\nbye\tb\n", "a.csv")["rows"] == 2
    assert check(b'"text";"note, long";"label"\nhello;x;a\nbye;"y, z";b\n', "a.csv")["rows"] == 2


def test_line_ends_that_csv_does_not_have_are_told(check: Check) -> None:
    assert "line ends of Unix" in check(b"text,label\rhello,a\rbye,b\r", "a.csv")["problems"][0]["remedy"]


def test_a_label_is_not_read_as_its_own_text(check: Check) -> None:
    rows = jsonl([{"label": "ham"}, {"label": "spam"}])
    assert "same_column" in [code for code, _ in codes(check(rows, columns={"text": "label"}))]
