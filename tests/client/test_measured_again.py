"""Labelled rows are answered again: read as an upload reads them, and held against the accuracy of the receipt."""

import json
from pathlib import Path

import pytest

from client.errors import BadPackage, BadUsage
from client.verify import verify
from tests.client.receipts import write_receipt

ROWS = ['{"text": "hello", "label": 0}', '{"text": "free prize", "label_name": "spam"}', ""]


def test_the_score_is_measured_again(signed: Path, key: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join(ROWS))
    assert verify(signed, None, data).measured == {"accuracy": 1.0, "claimed": 1.0, "n": 2}
    data.write_text("\n".join(ROWS * 10).replace("spam", "ham"))
    with pytest.raises(BadPackage, match="accuracy"):
        verify(signed, None, data)
    data.write_text('{"text": "x"}')
    with pytest.raises(BadUsage, match="line 1"):
        verify(signed, None, data)


@pytest.mark.parametrize(
    ("claimed", "n", "wrong", "passes"),
    [
        # 95 % of 400 rows: Wilson's interval is 0.924 to 0.967, whatever the interval of the job's metric.
        (0.95, 400, 30, True),
        (0.95, 400, 31, False),
        (0.95, 400, 14, True),
        (0.95, 400, 13, False),
        # Of 40 rows in the receipt it is 0.835 to 0.986.
        (0.95, 40, 66, True),
        (0.95, 40, 67, False),
    ],
)
def test_the_score_is_held_against_the_interval_of_the_accuracy(
    signed: Path, key: Path, tmp_path: Path, claimed: float, n: int, wrong: int, passes: bool
) -> None:
    quality = {"exported": {"value": 0.4, "n": n, "ci95": [0.0, 1.0]}, "accuracy": {"exported": claimed}}
    write_receipt(signed, key, quality=quality)
    data = tmp_path / "test.jsonl"
    rows = [json.dumps({"text": "hello", "label": int(number < wrong)}) for number in range(400)]
    data.write_text("\n".join(rows))
    if passes:
        assert verify(signed, None, data).measured["n"] == 400
    else:
        with pytest.raises(BadPackage, match=f"on {min(n, 400)} rows"):
            verify(signed, None, data)


def test_half_a_point_is_allowed_and_a_receipt_needs_an_accuracy(signed: Path, key: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    rows = [json.dumps({"text": "hello", "label": int(number < 20)}) for number in range(4000)]
    data.write_text("\n".join(rows))
    # On so many rows the interval begins at 0.999.
    write_receipt(signed, key, quality={"exported": {"value": 1.0, "n": 4000}, "accuracy": {"exported": 1.0}})
    assert verify(signed, None, data).measured["accuracy"] == 0.995
    data.write_text("\n".join([*rows, rows[0]]))
    with pytest.raises(BadPackage, match="accuracy"):
        verify(signed, None, data)
    for accuracy, n in ((None, 400), ("all", 400), ({"exported": 1.5}, 400), ({"exported": 1.0}, 0)):
        write_receipt(signed, key, quality={"exported": {"value": 1.0, "n": n}, "accuracy": accuracy})
        with pytest.raises(BadUsage, match="no accuracy"):
            verify(signed, None, data)


@pytest.mark.parametrize(
    "line",
    ["[1]", "5", "null", '"text"', '{"text": "x", "label": -1}', '{"text": "x", "label": 2}', "{", '{"label": 0}'],
)
def test_a_line_that_is_no_labelled_row_is_named(signed: Path, tmp_path: Path, line: str) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join([ROWS[0], line]))
    with pytest.raises(BadUsage, match=r"line 2 of .* is no labelled row"):
        verify(signed, None, data)


def test_labelled_rows_may_be_the_csv_file_that_was_uploaded(signed: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.CSV"
    data.write_text('\ufefflabel,text,note\n"ham","hello",\nspam,"free\nprize",x\n', "utf-8")
    assert verify(signed, None, data).measured == {"accuracy": 1.0, "claimed": 1.0, "n": 2}
    data.write_text("text,label\nhello,ham\nfree prize\n")
    with pytest.raises(BadUsage, match=r"line 3 of .* is no labelled row: no 'label'"):
        verify(signed, None, data)
    data.write_text('text,label\n"hello')
    with pytest.raises(BadUsage, match=r"line 1 of .* cannot be read"):
        verify(signed, None, data)


def test_rows_are_read_as_an_upload_reads_them(signed: Path, tmp_path: Path) -> None:
    right = {"accuracy": 1.0, "claimed": 1.0, "n": 2}
    jsonl, tsv = tmp_path / "test.jsonl", tmp_path / "test.tsv"
    rows = ['{"text": "hello\u2028there\u0085", "label": " ham"}', '{"text": "free", "label": 1.0}', ""]
    jsonl.write_text("\r\n".join(rows), "utf-8", newline="")
    assert verify(signed, None, jsonl).measured == right
    tsv.write_text("text\tlabel \nhello\tham\nfree\tspam \n")
    assert verify(signed, None, tsv).measured == right
    semicolons = tsv.rename(tmp_path / "test.csv")
    semicolons.write_text('"text";"note, long";"label"\nhello, there;;ham\nfree;;spam\n')
    assert verify(signed, None, semicolons).measured == right
    (signed / "labels.json").write_text(json.dumps(["false", "true"]))
    write_receipt(signed, tmp_path / "keys" / "receipt_key.pem")
    jsonl.write_text('{"text": "hello", "label": false}\n{"text": "free", "label": true}\n')
    assert verify(signed, None, jsonl).measured == right


def test_a_label_that_the_model_does_not_have_is_no_fault_of_the_model(signed: Path, tmp_path: Path) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text('{"text": "hello", "label": "ham"}\n{"text": "free", "label": "Spam"}\n')
    with pytest.raises(BadUsage, match=r"line 2 of .* label 'Spam' is none of the model's: ham, spam"):
        verify(signed, None, data)


def test_data_that_are_not_there_are_not_looked_for_in_a_download(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match=r"nowhere\.jsonl: No such file") as refused:
        verify(signed, None, tmp_path / "nowhere.jsonl")
    assert refused.value.remedy == "check the path of the labelled test rows"
