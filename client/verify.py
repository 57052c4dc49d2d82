"""Whether a downloaded folder is what its receipt says: signature, every file, and with test data the score again.

Knows neither torch nor the server: what it needs is in the folder, but for the key that the receipt is checked against.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client import canonical_json, signature
from client.archive import stored_zip, unpacked
from client.artifact import Package
from client.errors import BadPackage, BadUsage

RECEIPT, ARCHIVE = "receipt.json", "model.zip"
_ROUNDING = 0.005
_AGAIN = "download the model again; if it stays so, do not use it"
_ROWS = 'give JSONL such as {"text": "...", "label": "spam"}, or a CSV file with the columns text and label'


@dataclass(frozen=True)
class Verified:
    """What was checked: the key, and whether it was known before; the files; the score, where data were given."""

    public_key: str
    pinned: bool
    files: Sequence[str]
    measured: Mapping[str, Any] = field(default_factory=dict)


def verify(folder: Path, pinned: str | None, data: Path | None = None) -> Verified:
    """Check a folder that `fiftytwo download` filled, or a `model.zip` by itself.

    Args:
        folder: the unpacked package, with or without `model.zip` beside it, or the ZIP.
        pinned: the server's public key in base64, as kept at login; None checks against the receipt's own.
        data: labelled test rows as JSONL or CSV (`text`, and `label` or `label_name`), to be answered again.

    Raises:
        BadPackage: something differs; says what.
        BadUsage: the folder or the data cannot be read.
    """
    owner, archive = _Unpacked(), folder / ARCHIVE
    if folder.is_file():
        archive, folder = folder, unpacked(owner, folder)
    content = _read(folder / RECEIPT, "fiftytwo download JOB --out FOLDER")
    receipt = _canonical(content)
    key = signature.check(receipt, pinned)
    listed = _check_files(folder, receipt)
    _check_archive(archive, folder, [*listed, RECEIPT])
    measured = _measure(folder, receipt, data) if data is not None else {}
    return Verified(key, pinned is not None, listed, measured)


class _Unpacked:
    """What a ZIP's files lie on disk for: they go with it."""


def _read(path: Path, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadUsage(f"cannot read {path}: {error.strerror}", remedy=remedy) from error


def _canonical(content: bytes) -> dict[str, Any]:
    """The receipt, which must be stored in exactly its canonical bytes."""
    try:
        receipt = json.loads(content)
        same = isinstance(receipt, dict) and canonical_json.encode(receipt) == content
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise BadPackage("receipt.json is not stored in its canonical bytes: it was changed", remedy=_AGAIN)
    return dict(receipt)


def _check_files(folder: Path, receipt: Mapping[str, Any]) -> list[str]:
    try:
        listed = {str(one["path"]): (one["sha256"], one["size_bytes"]) for one in receipt["files"]}
    except (KeyError, TypeError):
        # A key of anybody's may have signed it, where none is pinned.
        raise BadPackage("the receipt has no list of files that can be read", remedy=_AGAIN) from None
    present = {path.name for path in folder.iterdir()} - {RECEIPT, ARCHIVE}
    if missing := sorted(set(listed) - present):
        raise BadPackage(f"the folder lacks {', '.join(missing)}", remedy=_AGAIN)
    if unknown := sorted(present - set(listed)):
        raise BadPackage(f"the receipt does not know {', '.join(unknown)}", remedy="remove it, or use a fresh folder")
    for name, told in listed.items():
        with (folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if (digest, (folder / name).stat().st_size) != told:
            raise BadPackage(f"{name} is not the file that the receipt was made for", remedy=_AGAIN)
    return sorted(listed)


def _check_archive(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Hold the ZIP, where there is one, against the one spelling that its files give it."""
    if not archive.exists():
        return
    expected = io.BytesIO()
    stored_zip([folder / name for name in names], expected)
    if archive.read_bytes() != expected.getvalue():
        raise BadPackage(f"{archive.name} is not the ZIP that its files make: it was changed", remedy=_AGAIN)


def _measure(folder: Path, receipt: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Accuracy on the given rows, beside the receipt's.

    It has to lie in the 95 % interval (Wilson) of the receipt's accuracy, on as many rows as were scored then or are
    given now, whichever are fewer; or within half a point, since processors round differently.

    Raises:
        BadPackage: it does not.
        BadUsage: the data cannot be read, or the receipt has no accuracy.
    """
    package = Package(folder)
    texts, labels = _labelled(data, package.labels)
    said = [one.label for one in package.predict(texts)]
    accuracy = sum(one == label for one, label in zip(said, labels, strict=True)) / len(labels)
    try:
        claimed, scored = float(receipt["quality"]["accuracy"]["exported"]), int(receipt["quality"]["exported"]["n"])
    except (KeyError, TypeError, ValueError):
        claimed, scored = -1.0, 0
    if not (0 <= claimed <= 1 <= scored):
        raise BadUsage("the receipt has no accuracy to hold against", remedy="verify without --data")
    n = min(len(labels), scored)
    low, high = _wilson(claimed, n)
    low, high = min(low, claimed - _ROUNDING), max(high, claimed + _ROUNDING)
    if not low <= accuracy <= high:
        raise BadPackage(
            f"accuracy on {data}: {accuracy:.4f}; the receipt says {claimed:.4f}: {low:.4f} to {high:.4f} on {n} rows",
            remedy="give the rows that the model was tested on, or do not use the model",
        )
    return {"accuracy": round(accuracy, 6), "claimed": claimed, "n": len(labels)}


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n rows (Wilson, 1927)."""
    z = 1.959963984540054
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def _labelled(path: Path, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts and the names of their labels; a whole number is a place among the model's labels."""
    content = _read(path, "check the path of the labelled test rows").decode("utf-8-sig", "replace")
    texts, names = [], []
    for number, line in _lines(path, content):
        try:
            row = json.loads(line) if isinstance(line, str) else line
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            names.append(_name_of(row["label_name"] if "label_name" in row else row["label"], labels))
            texts.append(str(row["text"]))
        except KeyError as error:
            raise BadUsage(f"line {number} of {path} is no labelled row: no {error}", remedy=_ROWS) from error
        except (ValueError, RecursionError) as error:
            raise BadUsage(f"line {number} of {path} is no labelled row: {error}", remedy=_ROWS) from error
    if not texts:
        raise BadUsage(f"{path} holds no rows", remedy=_ROWS)
    return texts, names


def _lines(path: Path, content: str) -> Iterator[tuple[int, str | dict[str, str]]]:
    """Each line that is not empty, with its number: of JSONL as it stands, of CSV the cells by column.

    As an upload reads them: a text may hold other ends of lines than the file's own, such as U+2028, and the fields of
    a CSV file may be parted by tabs or semicolons.
    """
    if path.suffix.lower() not in (".csv", ".tsv"):
        yield from ((number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip())
        return
    header = re.sub('"[^"]*"?', "", content.partition("\n")[0])
    delimiter = next((mark for mark in (",", "\t", ";") if mark in header), ",")
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, {name.strip(): cell for name, cell in row.items() if name and cell is not None}
    except csv.Error as error:
        raise BadUsage(f"line {reader.line_num} of {path} cannot be read: {error}", remedy=_ROWS) from error


def _name_of(label: Any, labels: Sequence[str]) -> str:
    """The name that an upload gives this label, or the one at its place.

    Raises:
        ValueError: the model has no such label, so no answer to the row could be right.
    """
    if isinstance(label, bool):
        label = str(label).lower()
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    name = str(label).strip()
    if name in labels:
        return name
    if not isinstance(label, int):
        raise ValueError(f"label {name[:80]!r} is none of the model's: {', '.join(labels[:10])}")
    if not 0 <= label < len(labels):
        raise ValueError(f"label {label} is none of 0 to {len(labels) - 1}")
    return labels[label]
