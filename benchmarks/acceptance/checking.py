"""What an outsider's check says of a download: that it is untouched, and of every changed byte that it is not."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.topics import compressed, rows_file
from benchmarks.acceptance.walk import Failed, Walk
from client.errors import BadPackage
from client.verify import verify

_CHANGES, _FEW = 200, 30
_LAST = 20
"""Bytes at the receipt's end that are changed one by one."""


def walk(place: Walk) -> Iterator[Finding]:
    """Log in, download, verify, measure again, then change single bytes."""
    done, folder = compressed(place), place.scratch("downloads") / "compressed"
    for ended in (place.login(), place.command("download", done.id, "--out", str(folder))):
        if ended.returncode:
            raise Failed(f"{' '.join(ended.args)} ended with {ended.returncode}: {ended.stderr or ended.stdout}")
    tested = _test_rows(place)
    checked = place.command("verify", str(folder), "--data", str(tested), "--json")
    said = place.command("verify", str(folder)).stdout.strip() or checked.stderr.strip()
    found = json.loads(checked.stdout) if not checked.returncode else {}
    came = {
        "exit code": checked.returncode,
        "key": "pinned at login" if found.get("pinned") else "not pinned",
        "files": found.get("files"),
        "measured again": found.get("measured"),
        "says": said.replace(str(folder), "DIR"),
    }
    passed = not checked.returncode and found["pinned"]
    yield Finding("`fiftytwo verify` passes on an untouched download, and measures the score again", None, came, passed)
    key = str(place.client.get("/v1/receipt-key")["public_key"])
    changes = _FEW if place.quick else _CHANGES
    passed_changed = undetected(folder, key, changes)
    told = {"single-byte changes": changes, "that passed": passed_changed}
    yield Finding("it fails on each of two hundred single-byte changes", None, told, not passed_changed)


def _test_rows(place: Walk) -> Path:
    """The test rows alone, labelled by name."""
    out = place.scratch("downloads") / "test.jsonl"
    with out.open("w", encoding="utf-8") as file:
        for line in rows_file(place).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["split"] == "test":
                file.write(json.dumps({"text": row["text"], "label_name": row["label"]}) + "\n")
    return out


def undetected(folder: Path, key: str, changes: int, seed: int = 52) -> list[str]:
    """Change one bit of one byte at a time; the changes that `verify` did not notice, each as `file:offset`.

    The receipt's last digits and the last signs of its signature are among them; every other place is drawn. The ZIP
    beside the files is left out: what it holds is read from the files themselves.
    """
    drawn = random.Random(seed)
    (folder / "model.zip").unlink(missing_ok=True)
    receipt = (folder / "receipt.json").read_bytes()
    value = receipt.index(b'"value":"', receipt.index(b'"signature"')) + len('"value":"')
    padding = receipt.index(b'"', value)
    chosen = [("receipt.json", len(receipt) - 1 - back) for back in range(_LAST)]
    chosen += [("receipt.json", padding - back) for back in (1, 2, 3)]
    names = sorted(path.name for path in folder.iterdir())
    while len(chosen) < changes:
        name = names[len(chosen) % len(names)]
        chosen.append((name, drawn.randrange((folder / name).stat().st_size)))
    return [f"{name}:{at}" for name, at in chosen[:changes] if _passes(folder, name, at, 1 << drawn.randrange(8), key)]


def _passes(folder: Path, name: str, at: int, bit: int, key: str) -> bool:
    """Whether the folder passes with one bit changed; it is as it was afterwards."""
    _flip(folder / name, at, bit)
    try:
        verify(folder, key)
    except BadPackage:
        return False
    finally:
        _flip(folder / name, at, bit)
    return True


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bit]))


STEP = Step(
    "verify",
    "an outsider's check",
    "`fiftytwo verify` passes on an untouched download and fails on each of two hundred single-byte changes, some of"
    " them in the receipt's last digits and the signature's padding",
    walk,
)
