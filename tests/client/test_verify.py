"""A signed folder passes; two hundred folders with one byte changed, and every trick with the signature, do not."""

import base64
import hashlib
import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client import canonical_json
from client.archive import stored_zip
from client.cli import main
from client.errors import BadPackage, BadUsage
from client.signature import ensure_key, public_key, sign
from client.verify import verify

ROWS = ['{"text": "hello", "label": 0}', '{"text": "free prize", "label_name": "spam"}', ""]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return ensure_key(tmp_path / "keys" / "receipt_key.pem")


@pytest.fixture
def signed(text_folder: Path, key: Path) -> Path:
    """A folder as a download leaves it: the package's files, its receipt, and the ZIP beside them."""
    write_receipt(text_folder, key)
    return text_folder


def write_receipt(folder: Path, key: Path, **changes: Any) -> None:
    files = [path for path in sorted(folder.iterdir()) if path.name not in ("receipt.json", "model.zip")]
    receipt: dict[str, Any] = {
        "job": "job_1",
        "quality": {"exported": {"value": 1.0, "n": 200, "ci95": [0.9, 1.0]}, "accuracy": {"exported": 1.0}},
        "files": [
            {
                "path": path.name,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size_bytes": path.stat().st_size,
            }
            for path in files
        ],
        **changes,
    }
    receipt["signature"] = sign(receipt, key)
    (folder / "receipt.json").write_bytes(canonical_json.encode(receipt))
    with (folder / "model.zip").open("w+b") as stream:
        stored_zip([*files, folder / "receipt.json"], stream)


def resigned(folder: Path, **changes: str) -> None:
    """Change fields of the signature and keep the bytes canonical."""
    receipt = json.loads((folder / "receipt.json").read_bytes())
    receipt["signature"].update(changes)
    (folder / "receipt.json").write_bytes(canonical_json.encode(receipt))
    (folder / "model.zip").unlink()


def test_an_untouched_folder_passes_pinned_and_unpinned(signed: Path, key: Path) -> None:
    found = verify(signed, public_key(key))
    assert found.pinned
    assert found.files == ["config.json", "labels.json", "model.onnx", "tokenizer.json"]
    assert not verify(signed, None).pinned
    (signed / "model.zip").unlink()
    assert verify(signed, public_key(key)).public_key == public_key(key)


def test_each_of_two_hundred_changed_bytes_fails(signed: Path, key: Path, tmp_path: Path) -> None:
    drawn, names = random.Random(52), sorted(path.name for path in signed.iterdir())
    receipt = (signed / "receipt.json").read_bytes()
    ends = [len(receipt) - 1 - back for back in range(20)]
    value = receipt.index(b'"value":"', receipt.index(b'"signature"')) + len('"value":"')
    chosen = [("receipt.json", at) for at in (*ends, value + 85, value + 86, value + 87)]
    while len(chosen) < 200:
        name = names[len(chosen) % len(names)]
        chosen.append((name, drawn.randrange((signed / name).stat().st_size)))
    for name, at in chosen:
        original = (signed / name).read_bytes()
        changed = bytearray(original)
        changed[at] ^= 1 << drawn.randrange(8)
        (signed / name).write_bytes(changed)
        with pytest.raises(BadPackage):
            verify(signed, public_key(key))
        (signed / name).write_bytes(original)
    verify(signed, public_key(key))


def test_a_signature_has_one_spelling(signed: Path, key: Path) -> None:
    value = json.loads((signed / "receipt.json").read_bytes())["signature"]["value"]
    # 64 bytes leave four bits of the last sign unused: a lax decoder reads the same bytes from another text.
    other = value[:-3] + chr(ord(value[-3]) + 1) + "=="
    assert base64.b64decode(other) == base64.b64decode(value) or other[-3] in "[{:"
    for text in (other, value + "\n", value.rstrip("="), " " + value):
        copy = signed.with_name("copy")
        shutil.copytree(signed, copy)
        resigned(copy, value=text)
        with pytest.raises(BadPackage, match="base64"):
            verify(copy, public_key(key))
        shutil.rmtree(copy)


def test_a_receipt_of_another_key_passes_only_unpinned(signed: Path, key: Path, tmp_path: Path) -> None:
    mine = public_key(key)
    write_receipt(signed, ensure_key(tmp_path / "other.pem"))
    with pytest.raises(BadPackage, match="another key"):
        verify(signed, mine)
    assert verify(signed, None).public_key != mine


@pytest.mark.parametrize("changes", [{"algorithm": "none"}, {"algorithm": "ed448"}, {"note": "x"}])
def test_other_algorithms_and_fields_are_refused(signed: Path, changes: dict[str, str]) -> None:
    resigned(signed, **changes)
    with pytest.raises(BadPackage):
        verify(signed, None)


def test_files_that_the_receipt_does_not_know_and_files_that_lack(signed: Path, key: Path) -> None:
    (signed / "extra.bin").write_bytes(b"x")
    with pytest.raises(BadPackage, match=r"does not know extra\.bin"):
        verify(signed, public_key(key))
    (signed / "extra.bin").unlink()
    (signed / "labels.json").unlink()
    with pytest.raises(BadPackage, match=r"lacks labels\.json"):
        verify(signed, public_key(key))


def test_an_unsigned_receipt_and_no_folder(signed: Path, key: Path, tmp_path: Path) -> None:
    receipt = json.loads((signed / "receipt.json").read_bytes())
    (signed / "receipt.json").write_bytes(canonical_json.encode({**receipt, "signature": None}))
    with pytest.raises(BadPackage, match="not signed"):
        verify(signed, public_key(key))
    with pytest.raises(BadUsage, match=r"receipt\.json"):
        verify(tmp_path / "nowhere", None)


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
    semicolons.write_text("text;label\nhello, there;ham\nfree;spam\n")
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


def test_a_zip_by_itself_is_checked_as_its_folder_is(signed: Path, key: Path, tmp_path: Path) -> None:
    alone = shutil.move(signed / "model.zip", tmp_path / "bought.zip")
    assert verify(Path(alone), public_key(key)).files == verify(signed, None).files
    Path(alone).write_bytes(Path(alone).read_bytes().replace(b'"job_1"', b'"job_2"'))
    with pytest.raises(BadPackage):
        verify(Path(alone), public_key(key))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"MZ" + content,
        lambda content: content + b"\0",
        lambda content: content[:-2] + b"\3\0abc",  # a comment
        lambda content: content[:4] + b"\x15" + content[5:],  # the version that is said to be needed
    ],
)
def test_a_zip_by_itself_has_one_spelling(
    signed: Path, key: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    bought = tmp_path / "bought.zip"
    bought.write_bytes(change((signed / "model.zip").read_bytes()))
    with pytest.raises(BadPackage, match=r"bought\.zip is not the ZIP that its files make"):
        verify(bought, public_key(key))


def test_a_zip_that_carries_itself_is_refused(signed: Path, key: Path, tmp_path: Path) -> None:
    bought = tmp_path / "bought.zip"
    shutil.copy(signed / "model.zip", bought)
    with zipfile.ZipFile(bought, "a") as package:
        package.write(signed / "model.zip", "model.zip")
    with pytest.raises(BadPackage, match="is not the ZIP that its files make"):
        verify(bought, public_key(key))


@pytest.mark.parametrize("files", [None, "model.onnx", [1], [{"path": "model.onnx"}], {"path": "model.onnx"}])
def test_a_list_of_files_that_is_none_is_refused(signed: Path, key: Path, files: object) -> None:
    write_receipt(signed, key, files=files)
    with pytest.raises(BadPackage, match="no list of files"):
        verify(signed, None)


def test_the_key_is_its_owners_alone_and_made_once(tmp_path: Path) -> None:
    path = ensure_key(tmp_path / "key.pem")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert ensure_key(path).read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["key.pem"]


def test_of_two_that_make_the_key_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, link = tmp_path / "key.pem", os.link

    def late(source: Path, target: Path) -> None:
        target.write_bytes(b"theirs")
        link(source, target)

    monkeypatch.setattr("client.signature.os.link", late)
    assert ensure_key(path).read_bytes() == b"theirs"


def test_the_command(signed: Path, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(signed), "--key", public_key(key)]) == 0
    assert "unpinned" not in capsys.readouterr().out
    assert main(["verify", str(signed)]) == 0
    assert "unpinned: the key came with the file" in capsys.readouterr().out
    assert main(["verify", str(signed), "--json", "--key", public_key(key)]) == 0
    assert json.loads(capsys.readouterr().out)["pinned"] is True
    (signed / "labels.json").write_text('["spam", "ham"]')
    assert main(["verify", str(signed)]) == 4
    assert "labels.json" in capsys.readouterr().err
