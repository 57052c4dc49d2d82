"""A signed folder passes; two hundred folders with one byte changed, and every trick with the signature, do not."""

import base64
import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client import canonical_json
from client.cli import main
from client.errors import BadPackage, BadUsage
from client.signature import ensure_key, public_key
from client.verify import verify
from tests.client.receipts import write_receipt


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


@pytest.mark.parametrize("pinned", ["AAAA", "ftw_not_a_receipt_key", ""])
def test_a_key_that_is_none_is_told_of_the_key_and_not_of_the_download(signed: Path, pinned: str) -> None:
    with pytest.raises(BadUsage, match="32 bytes") as caught:
        verify(signed, pinned)
    assert "/v1/receipt-key" in caught.value.remedy


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
